"""NumPy files: `.npy` and `.npz` arrays of slices, of HU or of grey, never unpickled."""

import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from repdiff.data.refusal import Refused, library_may_fail
from repdiff.data.slices import Skipped, Slice

_MIN_SIDE, _MAX_SIDE = 16, 4096  # pixels of a slice
_MAX_BYTES = 4 << 30  # of one array in an .npz, which is unpacked whole


def is_array(path: str | os.PathLike) -> bool:
    """Whether a file is named as NumPy's are: `.npy` or `.npz`."""
    return str(path).lower().endswith(('.npy', '.npz'))


def read(
    paths: Iterable[str | os.PathLike], *, root: str | os.PathLike
) -> Iterator[Slice | Skipped]:
    """Reads arrays of slices: (H, W), (N, H, W), (H, W, 3) or (N, H, W, C) with C of 1 or 3.

    uint8 is grey or colour; any other integer or float is HU and has no colour. An array has no
    patient's name, so the file stands for the patient unless a label table says better.

    Args:
      paths: `.npy` and `.npz` files.
      root: directory that names are relative to.

    Yields:
      Slices with ids `FILE#K`, K from 1, in an `.npz` `FILE#KEY#K`; a Skipped for each array or
      slice that is none.
    """
    for path in map(Path, paths):
        name = Path(os.path.relpath(path, root)).as_posix()
        try:
            if not path.is_file():
                raise Refused('is not a file')
            if path.suffix.lower() == '.npz':
                yield from _archive(path, name)
            else:
                with library_may_fail('is not a readable array'):
                    array = np.lib.format.open_memmap(path, mode='r')
                yield from _slices(array, path, name, name)
        except Refused as refusal:
            yield Skipped(str(path), f'{refusal}.')


def _archive(path: Path, name: str) -> Iterator[Slice | Skipped]:
    with library_may_fail('is not a readable archive'):
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
    with archive:
        for member in members:
            key = member.filename.removesuffix('.npy')
            try:
                with library_may_fail('is not a readable array'), archive.open(member) as file:
                    array = _member(file, member.file_size)
                yield from _slices(array, path, f'{name}#{key}', name)
            except Refused as refusal:
                yield Skipped(f'{path}#{key}', f'{refusal}.')


def _member(file: BinaryIO, size: int) -> np.ndarray:
    """Reads one array of an archive, once its header is known to claim what is there."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise Refused(f'has NumPy format version {version}')
    shape, fortran, kind = readers[version](file)
    claimed = math.prod(shape) * kind.itemsize
    if kind.hasobject or claimed > min(size, _MAX_BYTES):
        raise Refused(f'claims {claimed} bytes of {kind.name}; its file holds {size}')
    data = file.read(claimed)
    if len(data) < claimed:
        raise Refused(f'is truncated: {len(data)} of {claimed} bytes')
    return np.frombuffer(data, kind).reshape(shape, order='F' if fortran else 'C')


def _slices(array: np.ndarray, path: Path, name: str, patient: str) -> Iterator[Slice | Skipped]:
    if array.dtype.kind not in 'iuf':
        raise Refused(f'holds {array.dtype.name}, not numbers')
    grey = array.dtype == np.uint8
    colour = grey and array.ndim in (3, 4) and array.shape[-1] == 3
    if array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2 + colour:
        array = array[None]
    if array.ndim != 3 + colour:
        raise Refused(f'has shape {array.shape}; slices are (H, W), (N, H, W) or (N, H, W, C)')
    height, width = array.shape[1:3]
    if not (_MIN_SIDE <= min(height, width) and max(height, width) <= _MAX_SIDE):
        raise Refused(
            f'has slices of {height} by {width}; {_MIN_SIDE} to {_MAX_SIDE} a side are read'
        )
    for number, pixels in enumerate(array, 1):
        try:
            yield Slice(
                id=f'{name}#{number}',
                patient=patient,
                facility='',
                pixels=np.array(pixels) if grey else _hounsfield(pixels),
                unit='grey' if grey else 'hu',
                label=None,
                source=str(path),
            )
        except Refused as refusal:
            yield Skipped(f'{path}#{number}', f'{refusal}.')


def _hounsfield(pixels: np.ndarray) -> np.ndarray:
    low, high = float(pixels.min()), float(pixels.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise Refused('holds values that are not finite')
    if pixels.dtype.kind == 'f' and 0 <= low and 0 < high <= 1:
        raise Refused('holds values from 0 to 1, neither HU nor 8-bit grey; store uint8 or HU')
    if max(abs(low), abs(high)) > 1e5:
        raise Refused(f'has values from {low:g} to {high:g}, which are no HU')
    return pixels.astype(np.float32)
