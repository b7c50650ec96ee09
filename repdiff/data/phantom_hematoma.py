"""Simulated hematomas with the paper's four markers (arXiv 2505.06890, section on data)."""

import math
from dataclasses import dataclass

import numpy as np

from repdiff.data.phantom_brain import Brain, Push
from repdiff.data.phantom_canvas import Canvas, ellipse

MARKERS = ('hypodensities', 'margin_irregularity', 'blend_sign', 'fluid_level')
KINDS = ('intraparenchymal', 'epidural', 'subdural', 'intraventricular')
VENTRICLE_HEIGHTS = (23.0, 57.0)  # where the lateral ventricles are wide enough to fill
BRAIN_HU = 33.0
SOFT = 0.6  # mm: width of a hematoma's edge


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


@dataclass(frozen=True)
class Cut:
    """Where a slice cuts a hematoma. x, y: mm in the head's frame, of the centre or, outside the
    brain, of the nearest inner table; profile: 0..1, the share of the semi-axes at this height."""

    lesion: Hematoma
    x: float
    y: float
    profile: float


def draw_hematoma(rng: np.random.Generator, height: float, half_height: float, contrast: float,
                  size: float) -> Hematoma:
    """A hematoma centred at `height`. contrast, size: the settings' difficulty, 1 the default."""
    low, high = VENTRICLE_HEIGHTS
    ventricular = low < height - 0.8 * half_height and height + 0.8 * half_height < high
    odds = np.array([0.42, 0.17, 0.23, 0.55 * ventricular])
    kind = KINDS[rng.choice(4, p=odds / odds.sum())]
    markers = _draw_markers(rng, kind)
    length = size * math.exp(rng.uniform(math.log(8), math.log(24)))
    long, short = {
        'intraparenchymal': (length, length * rng.uniform(0.6, 1.0)),
        'epidural': (size * rng.uniform(15, 36), size * rng.uniform(7, 17)),
        'subdural': (size * rng.uniform(28, 80), size * rng.uniform(2.8, 6.5)),
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
        density=contrast * rng.uniform(19, 43), waves=tuple(waves), islands=tuple(islands),
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


def cut(lesion: Hematoma, height: float, canvas: Canvas, to_cavity: np.ndarray) -> Cut | None:
    """The slice's cut through `lesion`; None where it misses. to_cavity: (H, W) mm from the inner
    table, inside < 0."""
    inside = 1 - ((height - lesion.height) / lesion.half_height) ** 2
    if inside <= 0:
        return None
    profile = math.sqrt(inside)
    steps = np.arange(0.0, 110.0)
    for angle in (lesion.angle, math.copysign(0.85, math.sin(lesion.angle))):
        sin, cos = math.sin(angle), math.cos(angle)
        depth = -_sample(canvas, to_cavity, steps * sin, steps * cos)
        if (depth > 0).sum() > 20:  # at the base some directions meet bone only
            break
    edge = float(steps[depth > 0].max())
    if lesion.kind == 'intraparenchymal':
        away = min(edge * lesion.reach, max(edge - 0.8 * lesion.long * profile - 4, 4.0))
        if depth[round(away)] < 4:
            away = float(steps[depth.argmax()])
        edge = away
    return Cut(lesion, edge * sin, edge * cos, profile)


def _sample(canvas: Canvas, values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`values` of the canvas at the head's (x, y), by the nearest pixel; 99 outside."""
    rows, columns = (np.rint(v).astype(int) for v in canvas.pixel(x, y))
    there = (rows >= 0) & (rows < len(values)) & (columns >= 0) & (columns < values.shape[1])
    return np.where(there, values[rows * there, columns * there], 99.0)


def mass_effect(section: Cut) -> Push | None:
    """How the hematoma displaces the brain; None where it does not."""
    lesion = section.lesion
    if lesion.kind == 'intraventricular':
        return None
    shift = {'intraparenchymal': 0.22, 'epidural': 0.4, 'subdural': 0.9}[lesion.kind]
    return Push(section.x, section.y, section.profile * shift * lesion.short, 34 + lesion.short)


def paint_edema(section: Cut, brain: Brain) -> None:
    """The dark rim of swollen brain around an intraparenchymal hematoma."""
    lesion = section.lesion
    if lesion.kind != 'intraparenchymal':
        return
    box, distance, *_ = _inside(section, brain)
    part = brain.canvas.crop(box)
    part.paint(part.cover(distance - lesion.edema, 4) * (part.hu > 15), part.hu - 7)


def paint_hematoma(section: Cut, brain: Brain) -> np.ndarray:
    """Paints the hematoma's cut; returns its cover, (H, W) of the brain's canvas in 0..1."""
    lesion = section.lesion
    draw = {'intraparenchymal': _inside, 'epidural': _epidural, 'subdural': _subdural,
            'intraventricular': _ventricular}[lesion.kind]
    box, distance, along, across, size = draw(section, brain)
    part = brain.canvas.crop(box)
    cover = part.cover(distance, SOFT)
    density = BRAIN_HU + _density(lesion, part, cover, along, across, size)
    # The first and last slices cut the hematoma's rounded ends: part of their thickness is brain.
    part.paint(cover * (0.72 + 0.28 * section.profile), density)
    whole = np.zeros_like(brain.depth)
    whole[box] = cover * brain.cavity[box]
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


# The box of the brain's canvas; over it, the signed distance to the cut, mm along and across its
# axes, and its semi-axes.
Region = tuple[tuple[slice, slice], np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]


def _ripple(lesion: Hematoma, angle: np.ndarray) -> np.ndarray:
    """The outline's waves at `angle`, as a share of `short`."""
    return sum(a * np.cos(k * angle + phase) for k, a, phase in lesion.waves)


def _axes(section: Cut) -> tuple[float, float]:
    return section.lesion.long * section.profile, section.lesion.short * section.profile


def _inside(section: Cut, brain: Brain) -> Region:
    """An ellipsoid in the brain."""
    lesion, (long, short) = section.lesion, _axes(section)
    box = brain.canvas.box(section.x, section.y, long * 1.6 + 8)
    part = brain.canvas.crop(box)
    cos, sin = math.cos(lesion.turn), math.sin(lesion.turn)
    dx, dy = part.x - section.x, part.y - section.y
    along, across = cos * dx + sin * dy, cos * dy - sin * dx
    ripple = short * _ripple(lesion, np.arctan2(across, along))
    distance = np.maximum(ellipse(along, across, long, short) - ripple, 1.5 - brain.depth[box])
    return box, distance, along, across, (long, short)


def _epidural(section: Cut, brain: Brain) -> Region:
    """A lens between the inner table and the dura."""
    long, short = _axes(section)
    box = brain.canvas.box(section.x, section.y, long * 1.6)
    part = brain.canvas.crop(box)
    away = math.hypot(section.x, section.y)
    nx, ny = -section.x / away, -section.y / away
    across = nx * (part.x - section.x) + ny * (part.y - section.y)
    along = ny * (part.x - section.x) - nx * (part.y - section.y)
    ripple = 0.6 * short * _ripple(section.lesion, np.arctan2(across, along))
    distance = ellipse(along, across, long, short) - ripple
    return box, distance, along, across - 0.45 * short, (long, 0.55 * short)


def _subdural(section: Cut, brain: Brain) -> Region:
    """A crescent along the inner table."""
    lesion, canvas = section.lesion, brain.canvas
    angle = np.arctan2(canvas.x, canvas.y) - math.atan2(section.x, section.y)
    angle = np.mod(angle + math.pi, 2 * math.pi) - math.pi
    radius = max(math.hypot(section.x, section.y), 20.0)
    half = min(lesion.long / radius, 1.5) * section.profile
    taper = np.sqrt(np.clip(1 - (angle / half) ** 2, 0, 1))
    short = lesion.short * section.profile
    thick = 2 * short * taper * (1 + 1.4 * _ripple(lesion, 2.5 * angle))
    distance = np.where(taper > 0, brain.depth - thick, 9.0)
    return _everywhere(brain), distance, angle * radius, brain.depth - short, (half * radius, short)


def _ventricular(section: Cut, brain: Brain) -> Region:
    """Blood that fills one lateral ventricle, or both."""
    side = math.copysign(1.0, section.x)
    distance = (0.5 - brain.ventricles) * (brain.canvas.mm + SOFT)
    if section.lesion.reach < 0.5:
        distance = np.maximum(distance, -side * brain.x)
    along, across = brain.y - 4, side * brain.x - 12
    return _everywhere(brain), distance, along, across, (section.lesion.long, 8.0)


def _everywhere(brain: Brain) -> tuple[slice, slice]:
    return slice(0, brain.depth.shape[0]), slice(0, brain.depth.shape[1])
