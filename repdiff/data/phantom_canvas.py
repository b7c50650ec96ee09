"""The drawing surface of the simulated CT: distances in millimetres, partial volume at edges."""

import functools
import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Canvas:
    """A window of the slice: Hounsfield units and the head's coordinates at every pixel centre.

    x, y: (H, W) float32 mm in the head's frame; x to the image's right, y to the back of the head,
    (0, 0) the centre of the cavity. hu: (H, W) float32, painted in place. mm: the pixel's size.
    turn: (cos, sin) of the head's rotation; centre: the pixel (row, column) of (0, 0).
    """

    x: np.ndarray
    y: np.ndarray
    hu: np.ndarray
    mm: float
    turn: tuple[float, float]
    centre: tuple[float, float]

    def pixel(self, x: float | np.ndarray, y: float | np.ndarray) -> tuple:
        """The pixel (row, column), not rounded, of the head's (x, y) mm."""
        cos, sin = self.turn
        return (self.centre[0] + (sin * x + cos * y) / self.mm,
                self.centre[1] + (cos * x - sin * y) / self.mm)

    def box(self, x: float, y: float, radius: float) -> tuple[slice, slice]:
        """The rows and columns within `radius` mm of the head's (x, y); may be empty."""
        row, column = self.pixel(x, y)
        reach = radius / self.mm + 1.5
        return (slice(max(int(row - reach), 0), max(int(row + reach) + 1, 0)),
                slice(max(int(column - reach), 0), max(int(column + reach) + 1, 0)))

    def crop(self, box: tuple[slice, slice]) -> 'Canvas':
        """The part of the canvas in `box`; it shares the pixels."""
        rows, columns = box
        return Canvas(self.x[box], self.y[box], self.hu[box], self.mm, self.turn,
                      (self.centre[0] - rows.start, self.centre[1] - columns.start))

    def near(self, x: float, y: float, radius: float) -> 'Canvas':
        """The part of the canvas within `radius` mm of the head's (x, y)."""
        return self.crop(self.box(x, y, radius))

    def cover(self, distance: np.ndarray, soft: float = 0.0) -> np.ndarray:
        """(H, W) share of each pixel inside a shape, from its signed distance in mm (inside < 0).

        `soft`: width in mm of an edge that is oblique to the slice (partial volume).
        """
        return np.clip(0.5 - distance / (self.mm + soft), 0, 1)

    def paint(self, cover: np.ndarray | float, hu: np.ndarray | float) -> None:
        """Mixes a tissue of `hu` into the slice by its `cover`."""
        self.hu[...] += cover * (hu - self.hu)


def empty_canvas(size: int, field_of_view: float, centre: tuple[float, float],
                 degrees: float) -> Canvas:
    """A square canvas of air. field_of_view: mm; centre: the head's place (row, column) in mm from
    the middle of the image; degrees: the head's rotation."""
    mm = field_of_view / size
    steps = ((np.arange(size) + 0.5) * mm - field_of_view / 2).astype(np.float32)
    rows, columns = (steps - centre[0])[:, None], (steps - centre[1])[None, :]
    cos, sin = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    middle = size / 2 - 0.5
    return Canvas(cos * columns + sin * rows, cos * rows - sin * columns,
                  np.full((size, size), -1000, np.float32), mm, (cos, sin),
                  (middle + centre[0] / mm, middle + centre[1] / mm))


@functools.lru_cache(maxsize=64)
def _spline(size: int, knots: int) -> np.ndarray:
    """(size, knots) weights of the uniform cubic B-spline at `size` pixel centres."""
    place = (np.arange(size) + 0.5) / size * (knots - 3) + 1
    distance = np.abs(place[:, None] - np.arange(knots)[None, :])
    near = 2 / 3 - distance ** 2 + distance ** 3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth_field(knots: np.ndarray, size: int, box: tuple[slice, slice]) -> np.ndarray:
    """(H, W) of a smooth random field over the `box` of an image of `size`, of unit variance.

    knots: (M, M) normal values on a grid fixed in the image: the field at two image sizes is the
    same field.
    """
    weights = _spline(size, len(knots))
    # The mean of the squared sums of cubic B-spline weights is 151/315 along each axis.
    return (weights[box[0]] @ knots @ weights[box[1]].T) * np.float32(315 / 151)


def direction(canvas: Canvas, angle: float, half: float) -> np.ndarray:
    """(H, W) bump around the head: 1 at `angle` (radians from the back), 0 beyond `half` of it."""
    turn = np.arctan2(canvas.x, canvas.y) - angle
    turn = np.mod(turn + math.pi, 2 * math.pi) - math.pi
    return np.sqrt(np.clip(1 - (turn / half) ** 2, 0, 1))


def ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """Approximate signed distance in mm to the ellipse of semi-axes a, b at the origin."""
    k0 = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    k1 = np.sqrt((x / a ** 2) ** 2 + (y / b ** 2) ** 2)
    return k0 * (k0 - 1) / np.maximum(k1, 1e-6)


def ellipse_3d(x: np.ndarray, y: np.ndarray, z: float, a: float, b: float,
               c: float) -> np.ndarray | None:
    """`ellipse` of the section at height z of an ellipsoid; None where the plane misses it."""
    section = 1 - (z / c) ** 2
    if section <= 0.02:
        return None
    scale = section ** 0.5
    return ellipse(x, y, a * scale, b * scale)


def tube(x: np.ndarray, y: np.ndarray, z: float, start: tuple[float, float, float],
         end: tuple[float, float, float], radius: tuple[float, float]) -> np.ndarray:
    """Signed distance in mm, in the plane at z, to a round-ended tube from start to end (x, y, z).

    radius: (at start, at end), mm.
    """
    dx, dy, dz = (e - s for s, e in zip(start, end))
    px, py, pz = x - start[0], y - start[1], z - start[2]
    along = np.clip((px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz), 0, 1)
    away = (px - along * dx) ** 2 + (py - along * dy) ** 2 + (pz - along * dz) ** 2
    return np.sqrt(away) - (radius[0] + along * (radius[1] - radius[0]))
