"""Pictures: PNG, JPEG and TIFF files as slices in grey or colour."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from repdiff.data.refusal import Refused, library_may_fail
from repdiff.data.slices import Skipped, Slice

SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff')

_MAX_SIDE = 8192  # pixels; a long thin picture would pad to a vast square
_WHITE = 65535  # of 16 bits
_TWELVE_BITS = 4096  # a scanner's range; a picture below it does not use 16
_FORMATS = ('PNG', 'JPEG', 'TIFF')


def is_picture(path: str | os.PathLike) -> bool:
    """Whether a file is named as a PNG, JPEG or TIFF picture."""
    return str(path).lower().endswith(SUFFIXES)


def read(paths: Iterable[str | os.PathLike], *, root: str | os.PathLike) \
        -> Iterator[Slice | Skipped]:
    """Reads pictures, one slice each; those that use their 16 bits are scaled to 8.

    A picture has no patient's name: the label table says whose it is. A picture whose three planes
    agree is grey.

    Args:
      paths: files.
      root: directory that names are relative to.

    Yields: (H, W) or (H, W, 3) uint8 slices with the relative path as id; a Skipped for each file
      that is no whole picture, or whose black and white are unknown.
    """
    for path in map(Path, paths):
        try:
            pixels = _pixels(path)
        except Refused as refusal:
            yield Skipped(str(path), f'{refusal}.')
            continue
        yield Slice(id=Path(os.path.relpath(path, root)).as_posix(), patient='', facility='',
                    pixels=pixels, unit='grey', label=None, source=str(path))


def _pixels(path: Path) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8."""
    with library_may_fail('is not a readable picture'), Image.open(path, formats=_FORMATS) as image:
        if max(image.size) > _MAX_SIDE:
            raise Refused(f'has {image.width} x {image.height} pixels, more than 8192 x 8192')
        if getattr(image, 'n_frames', 1) > 1:
            raise Refused(f'holds {image.n_frames} pictures; save each as a file')
        if image.mode in ('I;16', 'I;16B', 'I;16L', 'I'):
            return _eight_bits(np.asarray(image, np.int64))
        if image.mode == 'F':
            raise Refused('holds fractions, whose black and white are unknown; save it as 8 bits')
        if image.mode in ('L', '1'):
            return np.asarray(image.convert('L'))
        pixels = np.asarray(image.convert('RGB'))                   # (H, W, 3)
    grey = (pixels == pixels[..., :1]).all()
    return np.ascontiguousarray(pixels[..., 0]) if grey else pixels


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """(H, W) integers of 0 to 65535 as uint8.

    Raises: Refused where that range is not the picture's own: CT would lose nearly all its grey.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise Refused(f'holds values down to {low}, as HU do; save CT as NIfTI or NumPy')
    if high > _WHITE:
        raise Refused(f'holds values up to {high}, more than 16 bits; save it as 8 or 16 bits')
    if high < _TWELVE_BITS:
        raise Refused(f'holds values up to {high} in 16 bits, so its white is unknown; save it as '
                      '8 bits, or CT in HU as NIfTI or NumPy')
    return (values >> 8).astype(np.uint8)
