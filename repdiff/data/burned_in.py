"""Signs of text burned into a slice: rows of glyphs beside the head.

No detector of text is sure; this one is to make people look. It sees rows of at least four bright
glyphs on a dark ground, as scanners and viewers write names into the corners. It does not see, and
nothing removes, text over the head; nor does it see text over a head-rest, dark or slanted text, or
glyphs below five pixels.
"""

import numpy as np
from scipy import ndimage

from repdiff.data import head

REMARK = 'text seems to be burned in beside the head'
_LEVELS = {'hu': (100.0, 1000.0), 'grey': (64, 160)}  # glyphs stand out of what is below one
_LOWEST, _HIGHEST = 5, 0.1  # height of a glyph: pixels, and share of the picture's side
_WIDEST = 3.0  # width over height: letters may touch
_INK = (0.2, 0.9)  # share of a glyph's box that is bright; a dash or a solid block is no glyph
_GLYPHS = 4  # in a row, by any of the levels
_LEVEL = 0.15  # of the height: the feet of a row's glyphs differ by less
_ALIKE = 0.2  # of the height: their heights do
_GAP = 1.5  # heights between neighbours
_GROUND = 0.2  # the share of ink just above or below a row
_BESIDE = 0.8  # the share of a row's ink that lies outside the head


def seen(pixels: np.ndarray, unit: str) -> bool:
    """Whether a slice seems to have text beside the head.

    Args:
      pixels: (H, W) HU or grey, or (H, W, C) grey.
      unit: 'hu' or 'grey'.
    """
    bright = pixels.max(-1) if pixels.ndim == 3 else pixels
    rows = [row for level in _LEVELS[unit] for row in _rows(bright > level)]
    if not rows:
        return False
    kept = head.mask(pixels, unit)
    beside = np.ones_like(kept) if kept.all() else ~kept
    return any(np.mean([beside[box].mean() for box in row]) >= _BESIDE for row in rows)


def _rows(ink: np.ndarray) -> list[list[tuple[slice, slice]]]:
    """The boxes of each row of glyphs."""
    parts, _ = ndimage.label(ink, np.ones((3, 3)))
    boxes = ndimage.find_objects(parts)
    sizes = np.array([[y.start, y.stop, x.start, x.stop] for y, x in boxes]).reshape(-1, 4)
    top, foot, left, right = sizes.T
    height, width = foot - top, right - left
    area = np.bincount(parts.ravel(), minlength=len(boxes) + 1)[1:]
    filled = area / np.maximum(height * width, 1)
    is_glyph = ((height >= _LOWEST) & (height <= _HIGHEST * min(ink.shape))
                & (width <= _WIDEST * height) & (_INK[0] <= filled) & (filled <= _INK[1]))
    waiting = sorted(np.flatnonzero(is_glyph), key=lambda part: left[part])
    rows = []
    while waiting:
        row = [waiting.pop(0)]
        for part in list(waiting):
            last, tall = row[-1], height[row[0]]
            if (abs(foot[part] - foot[row[0]]) <= max(1, _LEVEL * tall)
                    and abs(height[part] - tall) <= max(1, _ALIKE * tall)
                    and left[part] - right[last] <= _GAP * tall):
                row.append(part)
                waiting.remove(part)
        if len(row) >= _GLYPHS and _stands_alone(ink, [boxes[part] for part in row]):
            rows.append([boxes[part] for part in row])
    return rows


def _stands_alone(ink: np.ndarray, row: list[tuple[slice, slice]]) -> bool:
    """Whether the ground above or below a row is dark: noise and texture have no such ground."""
    left, right = row[0][1].start, row[-1][1].stop
    top, foot = min(y.start for y, _ in row), max(y.stop for y, _ in row)
    sides = ink[max(top - 2, 0):top, left:right], ink[foot:foot + 2, left:right]
    return any(side.size == 0 or side.mean() <= _GROUND for side in sides)
