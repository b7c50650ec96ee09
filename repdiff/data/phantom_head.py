"""The simulated person: the head's size and shape, age, and the grids of the smooth fields.

Heights are mm above the orbitomeatal plane, from the skull base (-12) to the vertex (93); the
frame is that of `phantom_canvas.Canvas`.
"""

from dataclasses import dataclass

import numpy as np

CENTRE_HEIGHT, UPPER = 26.0, 71.0  # of the cavity: the widest section, and from there to the top


@dataclass(frozen=True)
class Head:
    """One person. Lengths in mm, densities in HU; `knots_*` are the grids of smooth fields."""

    half_width: float
    half_length: float
    taper: float
    square: float
    lean: float
    skull: float
    scalp: float
    atrophy: float
    ventricle: float
    side: tuple[float, float]
    brain_offset: float
    sinus_hu: float
    air_cells: float
    knots_sulci: tuple[np.ndarray, np.ndarray]
    knots_warp: tuple[np.ndarray, np.ndarray]
    knots_texture: np.ndarray
    knots_cells: np.ndarray

    @property
    def radius(self) -> float:
        return (self.half_width * self.half_length) ** 0.5


def draw_head(rng: np.random.Generator) -> Head:
    """A person: shape, age (atrophy widens sulci and ventricles), and asymmetry."""
    age = rng.beta(1.6, 1.4)
    atrophy = float(np.clip(1.5 * age + rng.normal(0, 0.15), 0, 1.6))
    grid = [rng.standard_normal((38, 38), dtype=np.float32) for _ in range(3)]
    warp = [rng.standard_normal((9, 9), dtype=np.float32) for _ in range(2)]
    return Head(
        half_width=rng.normal(64, 2.8), half_length=rng.normal(80, 3.4),
        taper=rng.uniform(0.06, 0.16), square=rng.uniform(2.0, 2.45), lean=rng.normal(0, 0.03),
        skull=rng.uniform(5.5, 8.5), scalp=rng.uniform(3.5, 7.0), atrophy=atrophy,
        ventricle=float(np.clip(0.65 + 0.5 * atrophy + rng.normal(0, 0.14), 0.5, 1.7)),
        side=tuple(rng.normal(1, 0.08, 2)), brain_offset=rng.normal(0, 1.7),
        sinus_hu=rng.normal(54, 6), air_cells=rng.uniform(0.3, 1.0),
        knots_sulci=(grid[0], grid[1]), knots_warp=(warp[0], warp[1]), knots_texture=grid[2],
        knots_cells=rng.standard_normal((66, 66), dtype=np.float32))


def section(height: float, extra: float = 0.0) -> float:
    """The scale (1 at the widest) of the head's section at `height`, `extra` mm outside the cavity.

    Near the vertex the skull is cut obliquely and its ring looks thick.
    """
    if height < CENTRE_HEIGHT:
        return 1 - 0.10 * ((CENTRE_HEIGHT - height) / 50) ** 2
    up = min((height - CENTRE_HEIGHT) / (UPPER + extra), 1)
    return max(1 - up ** 2.5, 1e-4) ** 0.4


def outline(head: Head, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The head's own radius at (x, y) mm: 1 on the inner table of the widest section."""
    v = y / head.half_length
    u = (x + head.lean * y) / (head.half_width * (1 + head.taper * (v - 0.2)))
    u, v = np.abs(u), np.abs(v)
    return (u ** head.square + v ** head.square) ** (1 / head.square)
