"""NIfTI volumes to axial slices, sizes checked against the file before anything is allocated."""

import gzip
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from repdiff.data.refusal import Refused, library_may_fail
from repdiff.data.slices import Skipped, Slice
from repdiff.errors import UserError

Note = Callable[[str, str], None]  # (source, remark)

_MIN_SIDE, _MAX_SIDE = 16, 4096  # pixels of a slice
_MAX_VOXELS = 1 << 28  # 1,024 slices of 512 by 512, held in memory once
_MAX_OFFSET = 1 << 20  # bytes before the voxels: header and extensions
_DEFLATE = 1032  # gzip grows at most this many times
_MAX_HU = 1e5  # far above metal
_AIR = -1000.0  # HU


def is_nifti(path: str | os.PathLike) -> bool:
    """Whether a file is named as NIfTI is: `.nii` or `.nii.gz`."""
    return str(path).lower().endswith(('.nii', '.nii.gz'))


def read(
    paths: Iterable[str | os.PathLike], *, root: str | os.PathLike, note: Note
) -> Iterator[Slice | Skipped]:
    """Reads the axial slices of single-file NIfTI-1 and NIfTI-2 volumes of HU.

    A volume has no patient's name, so the volume stands for the patient. Names are raw paths:
    `deidentify.anonymise` what is kept. Row 0 is anterior, column 0 the patient's right.

    Args:
      paths: `.nii` and `.nii.gz` files.
      root: directory that names are relative to.
      note: takes (file, remark) where values may not be HU.

    Yields:
      Slices in HU, (H, W) float32, from foot to head, with ids `FILE#K`, K counting from 1 in the
      order of the file; or one Skipped a file.

    Raises:
      UserError: nibabel is not installed.
    """
    try:
        import nibabel
    except ImportError:
        raise UserError("reading NIfTI needs nibabel; run pip install 'repdiff[ct]'.") from None
    for path in map(Path, paths):
        try:
            yield from _slices(nibabel, path, os.path.relpath(path, root), note)
        except Refused as refusal:
            yield Skipped(str(path), f'{refusal}.')


def _slices(nibabel: Any, path: Path, name: str, note: Note) -> Iterator[Slice]:
    if not path.is_file():
        raise Refused('is not a file')
    with library_may_fail('is damaged'):
        zipped = path.suffix.lower() == '.gz'
        with gzip.open(path) if zipped else open(path, 'rb') as file:
            header = _header(nibabel, file)
            shape = _shape(header, path.stat().st_size * (_DEFLATE if zipped else 1))
            voxels = _voxels(file, header, shape)
        volume, numbers = _axial(nibabel, header, voxels)
        slope, intercept = (value or 0.0 for value in header.get_slope_inter())
    _check_values(volume, slope or 1.0, intercept, path, note)
    for k, number in enumerate(numbers):
        hu = volume[:, :, k].T * np.float64(slope or 1.0) + intercept
        yield Slice(
            id=f'{Path(name).as_posix()}#{number}',
            patient=Path(name).as_posix(),
            facility='',
            pixels=np.where(np.isfinite(hu), hu, _AIR).astype(np.float32),
            unit='hu',
            label=None,
            source=str(path),
        )


def _header(nibabel: Any, file: Any) -> Any:
    block = file.read(540)
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        size = kind.template_dtype.itemsize
        if len(block) >= size and kind.may_contain_header(block):
            header = kind(block[:size], check=False)
            if bytes(header['magic'])[:2] == b'ni':
                raise Refused('is half of a pair of files; store it as one .nii')
            return header
    raise Refused('is not NIfTI')


def _shape(header: Any, most_bytes: int) -> tuple[int, int, int]:
    """The three sides, once the file is known to be long enough to hold them."""
    shape = header.get_data_shape()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise Refused(f'has shape {shape}, not that of one volume')
    kind = header.get_data_dtype()
    if kind.kind not in 'iuf':
        raise Refused(f'has voxels of type {kind}, not one number each')
    if math.prod(shape) > _MAX_VOXELS:
        raise Refused(f'claims {math.prod(shape)} voxels; at most {_MAX_VOXELS} are read')
    offset = float(header['vox_offset'])
    if not 0 <= offset <= _MAX_OFFSET:
        raise Refused(f'claims its voxels to start at byte {offset:g}')
    if offset + math.prod(shape) * kind.itemsize > most_bytes:
        raise Refused(f'is too short for the {math.prod(shape)} voxels that it claims')
    return shape


def _voxels(file: Any, header: Any, shape: tuple[int, int, int]) -> np.ndarray:
    kind = header.get_data_dtype()
    file.seek(int(header['vox_offset']))
    size = math.prod(shape) * kind.itemsize
    data = file.read(size)
    if len(data) < size:
        raise Refused(f'is truncated: {len(data)} of {size} bytes of voxels')
    return np.frombuffer(data, kind).reshape(shape, order='F')


def _axial(nibabel: Any, header: Any, voxels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Turns a volume so that its axes count up to the left, to the back and to the head.

    Returns:
      (x, y, z) volume, and the numbers of its z slices in the file, from 1.
    """
    if not (int(header['qform_code']) or int(header['sform_code'])):
        raise Refused('has no orientation: both its qform and its sform are unset')
    affine = header.get_best_affine()
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise Refused('has an orientation that is no map to space')
    tools = nibabel.orientations
    turn = tools.ornt_transform(tools.io_orientation(affine), tools.axcodes2ornt('LPS'))
    volume = tools.apply_orientation(voxels, turn)
    across = sorted(np.linalg.norm(affine[:3, int(np.flatnonzero(turn[:, 0] == axis)[0])])
                    for axis in (0, 1))  # fmt: skip
    if across[1] > 1.05 * across[0]:
        raise Refused(f'was not acquired axially: pixels of {across[0]:.2g} by {across[1]:.2g} mm')
    height, width, depth = volume.shape
    if not (_MIN_SIDE <= min(height, width) and max(height, width) <= _MAX_SIDE):
        raise Refused(
            f'has slices of {height} by {width}; {_MIN_SIDE} to {_MAX_SIDE} a side are read'
        )
    numbers = list(range(1, depth + 1))
    flipped = turn[np.flatnonzero(turn[:, 0] == 2)[0], 1] < 0
    return volume, numbers[::-1] if flipped else numbers


def _check_values(
    volume: np.ndarray, slope: float, intercept: float, path: Path, note: Note
) -> None:
    ends = np.array([np.fmin.reduce(volume, axis=None), np.fmax.reduce(volume, axis=None)])
    with np.errstate(all='ignore'):
        ends = ends.astype(np.float64) * slope + intercept
    lowest, highest = ends.min(), ends.max()
    if not -_MAX_HU < lowest <= highest < _MAX_HU:
        raise Refused(f'has values from {lowest:g} to {highest:g}, which are no HU')
    if lowest > -200:
        note(str(path), f'no value below {lowest:g}: without air, these may not be HU')
