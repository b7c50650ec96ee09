"""Bright and dark findings that are not hematomas; heads with and without one carry them."""

import math
from dataclasses import dataclass

import numpy as np

from repdiff.data.phantom_brain import TENTORIUM, Brain, falx, tentorium
from repdiff.data.phantom_canvas import direction, ellipse, ellipse_3d


@dataclass(frozen=True)
class Confounders:
    """One person's findings. spots: calcifications as (x, y, height, radius, HU, softness in mm);
    falx, tentorium, sinus: HU where dense, else 0; scalp: (angle, half width, thickness mm) of a
    swelling outside the skull; infarct: (x, y, height, radius) of an old one; rim: (angle, half
    width, mm, HU) of bone that partly fills the slice along the inner table."""

    spots: tuple[tuple[float, float, float, float, float, float], ...]
    falx: float
    tentorium: float
    sinus: float
    scalp: tuple[float, float, float] | None
    infarct: tuple[float, float, float, float] | None
    rim: tuple[float, float, float, float] | None


def draw_confounders(rng: np.random.Generator) -> Confounders:
    """A person's findings; each is there by its own chance, whatever the label."""
    spots = []
    if rng.random() < 0.45:  # choroid plexus, mostly both sides
        for side in (-1, 1) if rng.random() < 0.75 else (1,):
            spots.append((side * rng.normal(22, 1.5), rng.normal(31, 2), rng.normal(40, 3),
                          rng.uniform(2.2, 5.0), rng.uniform(75, 260), 1.5))
    if rng.random() < 0.5:  # pineal gland
        spots.append((rng.normal(0, 0.7), rng.normal(24, 1.5), rng.normal(31, 2),
                      rng.uniform(2.0, 3.6), rng.uniform(90, 260), 1.0))
    if rng.random() < 0.16:  # basal ganglia, both sides
        radius, hu = rng.uniform(3.0, 6.0), rng.uniform(52, 95)
        spots += [(side * 22, -6, 34, radius, hu, 3.0) for side in (-1, 1)]
    if rng.random() < 0.10:  # a calcified granuloma or vessel anywhere
        angle, away = rng.uniform(0, 2 * math.pi), rng.uniform(15, 52)
        spots.append((away * math.sin(angle), away * math.cos(angle), rng.uniform(10, 75),
                      rng.uniform(1.8, 4.0), rng.uniform(70, 220), 1.0))
    turn = rng.uniform(0, 2 * math.pi, 3)
    scalp = (turn[0], rng.uniform(0.25, 0.6), rng.uniform(4, 12)) if rng.random() < 0.14 else None
    infarct = (52 * math.sin(turn[1]), 58 * math.cos(turn[1]), rng.uniform(15, 75),
               rng.uniform(8, 22)) if rng.random() < 0.12 else None
    rim = (turn[2], rng.uniform(0.25, 0.8), rng.uniform(3, 8), rng.uniform(55, 95)
           ) if rng.random() < 0.35 else None
    return Confounders(
        tuple(spots), falx=rng.uniform(58, 85) if rng.random() < 0.25 else 0.0,
        tentorium=rng.uniform(55, 75) if rng.random() < 0.25 else 0.0,
        sinus=rng.uniform(62, 76) if rng.random() < 0.25 else 0.0,
        scalp=scalp, infarct=infarct, rim=rim)


def paint_confounders(found: Confounders, brain: Brain, height: float) -> None:
    """Draws the findings that the slice at `height` meets, inside the cavity."""
    if found.infarct is not None:
        x, y, z, radius = found.infarct
        _spot(brain, (x, y), (height - z, radius, 0.7 * radius, radius), 16.0, 5.0)
    for x, y, z, radius, hu, soft in found.spots:
        if abs(height - z) < 1.6 * radius + 2:  # a slice is about 5 mm thick
            _spot(brain, (x, y), (0.4 * (height - z), radius, radius, radius), hu, soft)
    part = brain.canvas
    if found.falx and height > 30:
        part.paint(part.cover(falx(brain.x, brain.y, height, 1.3), 0.5), found.falx)
    if found.tentorium and TENTORIUM[0] < height < TENTORIUM[1]:
        leaves = tentorium(brain.x, brain.y, height, 1.6)
        part.paint(part.cover(leaves, 1.2), found.tentorium)
    if found.sinus:
        back = float(brain.y[brain.cavity > 0.5].max(initial=60.0))
        shape = ellipse(brain.x, brain.y - back + 3.5, 5, 6.5)
        part.paint(part.cover(shape, 1.0), found.sinus)
    if found.rim is not None:
        angle, half, thick, hu = found.rim
        fade = np.clip(1 - brain.depth / (thick * direction(part, angle, half) + 1e-3), 0, 1)
        part.paint(0.9 * fade, hu)


def _spot(brain: Brain, at: tuple[float, float], size: tuple[float, float, float, float],
          hu: float, soft: float) -> None:
    """An ellipsoid at the brain's (x, y). size: height above its centre, then its semi-axes, mm."""
    box = brain.canvas.box(*at, size[1] + soft + 4)
    part = brain.canvas.crop(box)
    distance = ellipse_3d(brain.x[box] - at[0], brain.y[box] - at[1], *size)
    if distance is not None:
        part.paint(part.cover(distance, soft), hu)
