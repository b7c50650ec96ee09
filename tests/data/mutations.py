"""Random damage to files, the same for the same random state: what the fuzzer feeds the readers."""

import io
import random
import struct
import warnings
from collections.abc import Callable

from pydicom import dcmread


def mutate(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """One to three random changes."""
    changes = [_flip, _flip, _truncate, _cut, _insert, _fill, _length]
    if suffix == '.dcm':
        changes += [_drop_tag, _drop_tag, _spoil_tag, _spoil_tag]
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(changes)(content, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """Anywhere, but half the time in the first 500 bytes, where the headers are."""
    end = max(1, len(content) if rng.random() < 0.5 else min(len(content), 500))
    return rng.randrange(end)


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 4, 32))):
        if changed:
            changed[_place(content, rng)] = rng.randrange(256)
    return bytes(changed)


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _cut(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.choice((1, 2, 8, 64)) :]


def _insert(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + rng.randbytes(rng.choice((1, 2, 8, 64))) + content[at:]


def _fill(content: bytes, rng: random.Random) -> bytes:
    at, size = _place(content, rng), rng.choice((2, 4, 16, 128))
    return content[:at] + rng.choice((b'\0', b'\xff')) * size + content[at + size :]


def _length(content: bytes, rng: random.Random) -> bytes:
    """Overwrites what may be a length or a count with an extreme one."""
    at = _place(content, rng) // 2 * 2
    value = rng.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF))
    size = rng.choice('HI')
    packed = struct.pack(rng.choice('<>') + size, value & (0xFFFF if size == 'H' else 0xFFFFFFFF))
    return content[:at] + packed + content[at + len(packed) :]


def _with_dataset(content: bytes, change: Callable) -> bytes:
    """Applies a change to a parsed data set, or none where it no longer parses or writes."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            dataset = dcmread(io.BytesIO(content))
            change(dataset, [element.tag for element in dataset])
            stream = io.BytesIO()
            dataset.save_as(stream)
            return stream.getvalue()
        except Exception:  # an earlier mutation may have made the file unreadable
            return content


def _drop_tag(content: bytes, rng: random.Random) -> bytes:
    return _with_dataset(content, lambda dataset, tags: dataset.pop(rng.choice(tags)))


def _spoil_tag(content: bytes, rng: random.Random) -> bytes:
    names = ('Rows', 'Columns', 'BitsAllocated', 'BitsStored', 'HighBit', 'NumberOfFrames',
             'PixelRepresentation', 'SamplesPerPixel', 'RescaleSlope', 'RescaleIntercept')
    name, value = rng.choice(names), rng.choice((0, 1, 7, 33, 4097, 65535))
    return _with_dataset(content, lambda dataset, tags: setattr(dataset, name, value))
