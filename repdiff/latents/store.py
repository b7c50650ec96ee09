"""Latents on disk: ArrayRecord files, each whole or not there, that tell which images they hold.

A record is the moments of one image, float32 in C order. The last record of a file is its index:
a JSON list of the keys (hexadecimal) of the records before it.
"""

import contextlib
import hashlib
import json
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from repdiff.errors import UserError, writable

RECORDS = 4096  # images in a file: few files to hold open, even of a million images
SECONDS = 300.0  # after which a file is finished anyway: a killed build loses at most these
DTYPE = np.dtype('<f4')

_WRITE = 'group_size:1,uncompressed'  # random access; compression would gain 7% of its size
_READ = 'readahead_buffer_size:0,max_parallelism:0'


def key(image: np.ndarray, id: np.ndarray) -> bytes:
    """What a latent is kept under (24 bytes): the image's id words (2,), a hash of its pixels."""
    pixels = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    pixels.update(np.ascontiguousarray(image))
    return np.asarray(id, '<u4').tobytes() + pixels.digest()


class Files:
    """Random access to record files of one `shape`, by (file number, row)."""

    def __init__(self, paths: Sequence[Path], shape: Sequence[int]):
        self._paths, self._shape = paths, tuple(int(size) for size in shape)
        self._readers = [_reader(path) for path in paths]

    def read(self, file: int, row: int) -> np.ndarray:
        """One record; read-only."""
        with _undamaged(self._paths[file]):
            content = self._readers[file].read([int(row)])[0]
        return np.frombuffer(content, DTYPE).reshape(self._shape)


class Writer:
    """Adds records to the files of a directory.

    `places` maps the key of everything in finished files to (file name, row). To be closed.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        with _writable(directory):
            directory.mkdir(parents=True, exist_ok=True)
        self._partial = directory / f'.partial-{socket.gethostname()}-{os.getpid()}'
        self._remove_abandoned()
        self.places: dict[bytes, tuple[str, int]] = {}
        for path in sorted(directory.glob('*.array_record')):
            self._place(path.name, _index(path))
        self._open()

    def add(self, keys: Sequence[bytes], moments: np.ndarray) -> None:
        """Appends the records `moments` (B, ...) under their keys (B,)."""
        with _writable(self.directory):
            if self._records is None:
                self._records = ArrayRecordWriter(str(self._partial), _WRITE)
            for key, record in zip(keys, moments, strict=True):
                self._records.write(np.asarray(record, DTYPE).tobytes())
                self._keys.append(key)
        if len(self._keys) >= RECORDS or time.monotonic() - self._began >= SECONDS:
            self.close()

    def close(self) -> None:
        """Finishes the file in hand, if there is one."""
        if self._records is None:
            return
        records, keys = self._records, self._keys
        self._open()
        name = f'{hashlib.sha256(b"".join(keys)).hexdigest()[:16]}.array_record'
        try:
            with _writable(self.directory):
                records.write(json.dumps([key.hex() for key in keys]).encode())
                records.close()
                with open(self._partial, 'rb') as file:
                    os.fsync(file.fileno())
                os.replace(self._partial, self.directory / name)
        finally:
            self._partial.unlink(missing_ok=True)
        self._place(name, keys)

    def _open(self) -> None:
        self._records, self._keys, self._began = None, [], time.monotonic()

    def _place(self, name: str, keys: Sequence[bytes]) -> None:
        self.places |= {key: (name, row) for row, key in enumerate(keys)}

    def _remove_abandoned(self) -> None:
        """Removes what writers on this host that were killed have left."""
        for path in self.directory.glob(f'.partial-{socket.gethostname()}-*'):
            if not Path(f'/proc/{path.name.rpartition("-")[2]}').exists():
                path.unlink(missing_ok=True)


def _reader(path: Path) -> ArrayRecordReader:
    with _undamaged(path):
        reader = ArrayRecordReader(str(path), _READ)
        if not reader.num_records():  # which is what a damaged file shows
            raise RuntimeError
        return reader


def _index(path: Path) -> list[bytes]:
    with _undamaged(path):
        reader = _reader(path)
        keys = json.loads(reader.read([reader.num_records() - 1])[0])
        return [bytes.fromhex(key) for key in keys]


@contextlib.contextmanager
def _undamaged(path: Path):
    try:
        yield
    except (RuntimeError, ValueError, TypeError, OSError):
        raise UserError(f'the latent cache {path} is damaged; remove it and run again, which '
                        'encodes its images anew.') from None


def _writable(directory: Path) -> contextlib.AbstractContextManager:
    return writable('latents', directory, 'choose another --config.cache')
