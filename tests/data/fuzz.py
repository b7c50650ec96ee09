"""Feeds mutated files to the readers: each must be read, or left out with a reason, in time.

`python tests/data/fuzz.py --count=2000` runs long; `test_fuzz.py` runs a short one. The readers run
in a child process, so that a crash or a hang inside a decoder is seen and counted, and the next
file goes on. A failing case is named by its number; the same seed and number give the same bytes.
"""

import argparse
import collections
import io
import multiprocessing
import random
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ct_files
import mutations
import nibabel
import numpy as np
from PIL import Image
from pydicom import uid

from repdiff.data import arrays, deidentify, dicom, head, labels, nifti, pictures, windows
from repdiff.data.slices import Skipped
from repdiff.errors import UserError

SECONDS = 60  # per file: far above any honest reading, on a busy machine too
START = 300  # seconds until the child has imported the readers
MEMORY = 2 << 30  # bytes that the child may grow by in a whole run
TABLE = b'file,who,y,z\na.png,p1,1,0\nb.png,p2,0,0\n"c, d.png",p3,1,1\ne.png,p4,,0\n'


# -- valid files, one list of bytes a format


def originals(directory: Path) -> dict[str, list[bytes]]:
    """Valid files by the suffix that the mutated ones get."""
    found = {'.dcm': _dicoms(directory), '.csv': [TABLE]}
    volume, affine = ct_files.volume()
    for suffix in ('.nii', '.nii.gz'):
        first = ct_files.nifti(volume, affine, directory / f'a{suffix}').read_bytes()
        nibabel.save(nibabel.Nifti2Image(volume, affine), directory / f'b{suffix}')
        found[suffix] = [first, (directory / f'b{suffix}').read_bytes()]
    grey = ct_files.random_picture(3, (2, 20, 24), bits=8).astype(np.uint8)
    found['.npy'] = [_written(lambda stream, array=array: np.save(stream, array))
                     for array in (volume.T, grey, grey[0].astype(np.float64) - 90)]  # fmt: skip
    found['.npz'] = [_written(lambda stream: np.savez_compressed(stream, a=volume.T, b=grey)),
                     _written(lambda stream: np.savez(stream, a=grey))]  # fmt: skip
    for suffix, kind in (('.png', 'PNG'), ('.jpg', 'JPEG'), ('.tif', 'TIFF')):
        colour = np.stack([grey[0]] * 2 + [grey[1]], -1)
        found[suffix] = [_written(lambda stream, a=a: Image.fromarray(a).save(stream, kind))
                         for a in (grey[0], colour)]  # fmt: skip
    return found


def _written(write: Callable[[io.BytesIO], None]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def _dicoms(directory: Path) -> list[bytes]:
    stored = ct_files.random_picture(4)
    picture = ct_files.jpeg_ls_picture()
    small = ct_files.random_picture(5, (20, 24), bits=8)
    made = [ct_files.dicom(stored, PixelPaddingValue=3), ct_files.dicom(stored, WindowCenter=40)]
    made[1].file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    made += [ct_files.dicom(stored), ct_files.dicom(stored), ct_files.dicom(stored)]
    made[2].file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    made[3].compress(uid.RLELossless)
    made[4].compress(uid.JPEG2000Lossless)
    made += [
        ct_files.with_codestream(ct_files.dicom(a, **tags), [frame], syntax)
        for a, tags, frame, syntax in (
            (stored, {}, ct_files.jpeg_lossless(stored, 12), uid.JPEGLosslessSV1),
            (picture, {}, ct_files.JPEG_LS, uid.JPEGLSLossless),
            (small, {'BitsAllocated': 8, 'BitsStored': 8, 'HighBit': 7},
             ct_files.jpeg_baseline(small), uid.JPEGBaseline8Bit),
        )  # fmt: skip
    ]
    frames = ct_files.random_picture(6, (3, 24, 20), bits=10)
    made += [ct_files.enhanced(frames, [1, 2, 3]), ct_files.enhanced(frames, [1, 2, 3])]
    made[-1].compress(uid.RLELossless)
    return [ct_files.save(dataset, directory / 'a.dcm').read_bytes() for dataset in made]


# -- reading, in a child


def read(path: Path) -> str:
    """'read', 'skipped' or 'mixed'; AssertionError where a reader breaks its word."""
    if path.suffix == '.csv':
        return _read_table(path)
    if path.suffix == '.dcm':
        items = list(dicom.read([path], root=path.parent, note=lambda *remark: None))
    elif nifti.is_nifti(path):
        items = list(nifti.read([path], root=path.parent, note=lambda *remark: None))
    elif arrays.is_array(path):
        items = list(arrays.read([path], root=path.parent))
    else:
        items = list(pictures.read([path], root=path.parent))
    assert items or path.suffix == '.npz', 'neither read nor listed'
    for item in items:
        _check(item)
    kinds = {type(item) for item in items}
    return 'mixed' if len(kinds) > 1 else 'skipped' if Skipped in kinds else 'read'


def _check(item) -> None:
    if isinstance(item, Skipped):
        assert len(item.reason) > 10 and item.reason.endswith('.') and '\n' not in item.reason
        shown = deidentify.scrub(item.reason)
        assert not any(name in shown for name in ('DOE', 'JANE', '7710', 'Elsewhere')), shown
        return
    assert item.id and item.unit in ('hu', 'grey')
    assert item.pixels.dtype == (np.float32 if item.unit == 'hu' else np.uint8)
    assert np.isfinite(item.pixels).all()
    kept = head.mask(item.pixels, item.unit)
    shown = head.resize(head.crop(item.pixels, kept, item.unit), 32, item.unit)
    if item.unit == 'hu':
        shown = windows.apply(shown, windows.parse('brain'))
    assert shown.shape[:2] == (32, 32) and shown.dtype == np.uint8


def _read_table(path: Path) -> str:
    try:
        labels.read(path, preset='csv', label='l = y & ~z', classes=None, markers=(),
                    columns=labels.Columns(key='file', patient='who'))  # fmt: skip
    except UserError as error:
        assert '\n' not in str(error)
        return 'skipped'
    return 'read'


def _child(pipe) -> None:
    pipe.send('ready')
    while True:
        path = pipe.recv()
        try:
            outcome = read(path)
        except BaseException as error:  # whatever escapes a reader is what the fuzzer looks for
            outcome = f'FAILED {type(error).__name__}: {error}'
        pipe.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


class Reader:
    """A child process that reads files, replaced when it dies or hangs."""

    def __init__(self):
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context('spawn')
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_child, args=(other,), daemon=True)
        self._process.start()
        other.close()
        assert self._pipe.poll(START) and self._pipe.recv() == 'ready'

    def __call__(self, path: Path, seconds: float) -> tuple[str, int]:
        """What became of the file, and the most memory that the child has held, in bytes."""
        try:
            self._pipe.send(path)
            if self._pipe.poll(seconds):
                return self._pipe.recv()
            outcome = f'FAILED: not read in {seconds:.0f} s'
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            outcome = f'FAILED: the reader died with code {self._process.exitcode}'
        self.close()
        self._start()
        return outcome, 0

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def run(count: int, seed: int) -> tuple[dict[str, collections.Counter], list[str]]:
    """Reads `count` mutated files, formats in turn.

    Returns:
      format -> outcome -> count, and a line for each failure.
    """
    outcomes: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    failures = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        sources = originals(directory)
        formats = ['.dcm', *sources]  # DICOM twice as often: it has the most to break
        reader = Reader()
        base = None
        for suffix, contents in sources.items():
            for number, content in enumerate(contents):
                outcome, base = _try(reader, directory, f'valid{number}{suffix}', content)
                if outcome != 'read':
                    failures.append(f'valid {suffix} {number}: {outcome}')
        for case in range(count):
            rng = random.Random(f'{seed}/{case}')
            suffix = formats[case % len(formats)]
            content = mutations.mutate(rng.choice(sources[suffix]), suffix, rng)
            outcome, most = _try(reader, directory, f'{case}{suffix}', content)
            outcomes[suffix][outcome.split(' ')[0]] += 1
            if outcome.startswith('FAILED') or most > base + MEMORY:
                failures.append(f'case {case} of seed {seed}, {suffix}: {outcome}, {most} bytes')
        reader.close()
    return dict(outcomes), failures


def _try(reader: Reader, directory: Path, name: str, content: bytes) -> tuple[str, int]:
    path = directory / name
    path.write_bytes(content)
    try:
        return reader(path, SECONDS)
    finally:
        path.unlink()


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, required=True)
    parser.add_argument('--seed', type=int, default=0)
    asked = parser.parse_args()
    results, failed = run(asked.count, asked.seed)
    for kind, counts in results.items():
        print(f'{kind:8s}', ', '.join(f'{n} {what}' for what, n in sorted(counts.items())))
    print(f'{asked.count} files, {len(failed)} failures', *failed, sep='\n')
    sys.exit(bool(failed))
