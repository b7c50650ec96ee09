"""Simulated hematomas with the paper's four markers (arXiv 2505.06890, section on data)."""

import math
from dataclasses import dataclass

import numpy as np

from repdiff.data.phantom_brain import Brain, Push
from repdiff.data.phantom_canvas import Canvas, ellipse
from repdiff.data.phantom_head import Head, outline, section

MARKERS = ('hypodensities', 'margin_irregularity', 'blend_sign', 'fluid_level')
KINDS = ('intraparenchymal', 'epidural', 'subdural', 'intraventricular')
VENTRICLE_HEIGHTS = (26.0, 56.0)  # where the lateral ventricles are wide enough to fill
BRAIN_HU = 33.0


@dataclass(frozen=True)
class Hematoma:
    """One hematoma. Angles in radians, lengths in mm, densities in HU above brain.

    markers: 0/1 in the order of MARKERS. angle: direction from the head's centre; reach: share of
    the way from there to the inner table. long, short: semi-axes (subdural: half the arc's length
    and half the thickness). waves: (order, amplitude as a share of `short`, phase) of the outline.
    islands: (along, across, radius) as shares of the semi-axes, the radius of `short`.
    """

    kind: str
    markers: tuple[int, int, int, int]
    height: float
    half_height: float
    angle: float
    reach: float
    long: float
    short: float
    turn: float
    density: float
    waves: tuple[tuple[int, float, float], ...]
    islands: tuple[tuple[float, float, float], ...]
    blend: tuple[float, float]
    level: float
    edema: float

    def profile(self, height: float) -> float:
        """0..1: the share of the semi-axes at `height`; 0 where the slice misses the hematoma."""
        inside = 1 - ((height - self.height) / self.half_height) ** 2
        return math.sqrt(inside) if inside > 0 else 0.0


def draw_hematoma(rng: np.random.Generator, height: float, half_height: float, contrast: float,
                  size: float) -> Hematoma:
    """A hematoma centred at `height`. contrast, size: the settings' difficulty, 1 the default."""
    ventricular = VENTRICLE_HEIGHTS[0] < height < VENTRICLE_HEIGHTS[1]
    odds = np.array([0.42, 0.17, 0.23, 0.18 * ventricular])
    kind = KINDS[rng.choice(4, p=odds / odds.sum())]
    markers = _draw_markers(rng, kind)
    length = size * math.exp(rng.uniform(math.log(7), math.log(24)))
    long, short = {
        'intraparenchymal': (length, length * rng.uniform(0.6, 1.0)),
        'epidural': (size * rng.uniform(15, 36), size * rng.uniform(6, 17)),
        'subdural': (size * rng.uniform(28, 80), size * rng.uniform(2.4, 6.0)),
        'intraventricular': (26.0, 13.0),
    }[kind]
    waves = [(k, rng.uniform(0.0, 0.08), rng.uniform(0, 2 * math.pi)) for k in (2, 3)]
    if markers[1]:
        waves += [(k, rng.uniform(0.5, 1.3) / (k + 1), rng.uniform(0, 2 * math.pi))
                  for k in rng.choice(np.arange(3, 10), 4, replace=False).tolist()]
    islands = [(rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4), rng.uniform(0.25, 0.42))
               for _ in range(rng.integers(1, 4))]
    return Hematoma(
        kind, markers, height, half_height, angle=rng.uniform(0, 2 * math.pi),
        reach=rng.uniform(0.2, 0.72), long=long, short=short, turn=rng.uniform(0, math.pi),
        density=contrast * rng.uniform(20, 46), waves=tuple(waves), islands=tuple(islands),
        blend=(rng.uniform(0, 2 * math.pi), rng.uniform(-0.25, 0.25)),
        level=rng.uniform(-0.3, 0.3), edema=rng.uniform(1.5, 6.0))


def _draw_markers(rng: np.random.Generator, kind: str) -> tuple[int, int, int, int]:
    """One to three markers; blood that fills a ventricle takes the ventricle's margin."""
    odds = np.array([0.32, 0.30, 0.22, 0.16])
    if kind == 'intraventricular':
        odds = np.array([0.30, 0.0, 0.20, 0.50])
    count = rng.choice([1, 2, 3], p=[0.62, 0.30, 0.08])
    chosen = rng.choice(4, count, replace=False, p=odds / odds.sum())
    return tuple(int(k in chosen) for k in range(4))


def _place(lesion: Hematoma, head: Head, height: float) -> tuple[float, float]:
    """The head's (x, y) of the hematoma's centre; of the nearest inner table if extra-axial."""
    x, y = math.sin(lesion.angle), math.cos(lesion.angle)
    if height < 16 and y < 0.25:  # at the base the brain lies behind and to the sides
        x, y = math.copysign(0.75, x), 0.66
    edge = 60.0
    for _ in range(4):
        edge *= section(height) / float(outline(head, x * edge, y * edge))
    if lesion.kind == 'intraparenchymal':
        edge = min(edge * lesion.reach, max(edge - 0.8 * lesion.long - 4, 4.0))
    return x * edge, y * edge


def mass_effect(lesion: Hematoma, head: Head, height: float) -> Push | None:
    """How the hematoma displaces the brain at `height`; None where it does not."""
    profile = lesion.profile(height)
    if lesion.kind == 'intraventricular' or not profile:
        return None
    x, y = _place(lesion, head, height)
    shift = {'intraparenchymal': 0.22, 'epidural': 0.4, 'subdural': 0.9}[lesion.kind]
    return Push(x, y, profile * shift * lesion.short, 34.0 + lesion.short)


def paint_edema(lesion: Hematoma, head: Head, brain: Brain, height: float) -> None:
    """The dark rim of swollen brain around an intraparenchymal hematoma."""
    if lesion.kind != 'intraparenchymal' or not lesion.profile(height):
        return
    x, y = _place(lesion, head, height)
    part = brain.canvas.near(x, y, lesion.long * 1.4 + 12)
    distance = ellipse(part.x - x, part.y - y, lesion.long, lesion.short) - lesion.edema
    part.paint(part.cover(distance, 4) * (part.hu > 15), part.hu - 7)


def paint_hematoma(lesion: Hematoma, head: Head, brain: Brain, height: float) -> np.ndarray:
    """Paints the hematoma's section at `height`; returns its cover, (H, W) of the brain's canvas."""
    profile = lesion.profile(height)
    whole = np.zeros_like(brain.depth)
    if not profile:
        return whole
    x, y = _place(lesion, head, height)
    draw = {'intraparenchymal': _inside, 'epidural': _epidural, 'subdural': _subdural,
            'intraventricular': _ventricular}[lesion.kind]
    box, cover, along, across, size = draw(lesion, brain, x, y, profile)
    part = brain.canvas.crop(box)
    cover = np.minimum(cover, brain.cavity[box])
    density = BRAIN_HU + _density(lesion, part, cover, along, across, size)
    # The first and last slices cut the hematoma's rounded ends: part of their thickness is brain.
    part.paint(cover * (0.72 + 0.28 * profile), density)
    whole[box] = cover
    return whole


def _density(lesion: Hematoma, part: Canvas, cover: np.ndarray, along: np.ndarray,
             across: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """(H, W) HU above brain, by the markers. size: the section's semi-axes, mm."""
    density = np.full_like(cover, lesion.density)
    long, short = size
    if lesion.markers[2]:  # two densities, sharply bounded, at least 18 HU apart at contrast 1
        angle, offset = lesion.blend
        cos, sin = math.cos(angle), math.sin(angle)
        width = math.hypot(long * cos, short * sin)
        side = cos * along + sin * across - offset * width + 0.6 * np.sin(along * 0.5)
        density -= part.cover(side) * max(0.5 * lesion.density, min(18.0, 0.75 * lesion.density))
    if lesion.markers[3] and cover.any():  # cells settle: dense below, in the direction of gravity
        cos, sin = part.turn
        down = sin * part.x + cos * part.y
        inside = down[cover > 0.5] if (cover > 0.5).any() else down[cover > 0]
        top, bottom = float(inside.min()), float(inside.max())
        level = (top + bottom) / 2 + lesion.level * (bottom - top) / 2
        density += 4 - part.cover(down - level) * (4 + 0.8 * lesion.density)
    if lesion.markers[0]:
        for a, b, radius in lesion.islands:
            spot = ellipse(along - a * long, across - b * short,
                           max(radius * short * min(1.6, long / short), 1.8),
                           max(radius * short, 1.5))
            density -= part.cover(spot) * (density - 0.08 * lesion.density)
    return density


Region = tuple[tuple[slice, slice], np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]


def _ripple(lesion: Hematoma, angle: np.ndarray) -> np.ndarray:
    """The outline's waves at `angle`, as a share of `short`."""
    return sum(a * np.cos(k * angle + phase) for k, a, phase in lesion.waves)


def _inside(lesion: Hematoma, brain: Brain, x: float, y: float, profile: float) -> Region:
    """An ellipsoid in the brain."""
    long, short = lesion.long * profile, lesion.short * profile
    box = brain.canvas.box(x, y, long * 1.6)
    part = brain.canvas.crop(box)
    cos, sin = math.cos(lesion.turn), math.sin(lesion.turn)
    dx, dy = part.x - x, part.y - y
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    ripple = short * _ripple(lesion, np.arctan2(across, along))
    distance = np.maximum(ellipse(along, across, long, short) - ripple, 1.5 - brain.depth[box])
    return box, part.cover(distance, 0.8), along, across, (long, short)


def _epidural(lesion: Hematoma, brain: Brain, x: float, y: float, profile: float) -> Region:
    """A lens between the inner table and the dura."""
    long, short = lesion.long * profile, lesion.short * profile
    box = brain.canvas.box(x, y, long * 1.4)
    part = brain.canvas.crop(box)
    away = math.hypot(x, y)
    nx, ny = -x / away, -y / away
    across = nx * (part.x - x) + ny * (part.y - y)
    along = ny * (part.x - x) - nx * (part.y - y)
    ripple = 0.6 * short * _ripple(lesion, np.arctan2(across, along))
    distance = np.maximum(ellipse(along, across, long, short) - ripple, -brain.depth[box])
    return box, part.cover(distance, 0.5), along, across - 0.4 * short, (long, 0.6 * short)


def _subdural(lesion: Hematoma, brain: Brain, x: float, y: float, profile: float) -> Region:
    """A crescent along the inner table."""
    box = (slice(0, brain.depth.shape[0]), slice(0, brain.depth.shape[1]))
    canvas = brain.canvas
    angle = np.arctan2(canvas.x, canvas.y) - math.atan2(x, y)
    angle = np.mod(angle + math.pi, 2 * math.pi) - math.pi
    radius = math.hypot(x, y)
    half = min(lesion.long / max(radius, 20.0), 1.5) * profile
    taper = np.sqrt(np.clip(1 - (angle / half) ** 2, 0, 1))
    thick = 2 * lesion.short * profile * taper * (1 + 1.4 * _ripple(lesion, 2.5 * angle))
    distance = np.where(taper > 0, np.maximum(brain.depth - thick, -brain.depth), 9.0)
    along, across = angle * radius, brain.depth - 0.5 * thick
    return box, canvas.cover(distance, 0.3), along, across, (half * radius, lesion.short * profile)


def _ventricular(lesion: Hematoma, brain: Brain, x: float, y: float, profile: float) -> Region:
    """Blood that fills one lateral ventricle, or both."""
    box = (slice(0, brain.depth.shape[0]), slice(0, brain.depth.shape[1]))
    canvas = brain.canvas
    side = math.copysign(1.0, x)
    one = canvas.cover(-side * brain.x) if lesion.reach < 0.5 else 1.0
    along, across = brain.y - 4, side * brain.x - 12
    return box, brain.ventricles * one, along, across, (lesion.long, 8.0)
