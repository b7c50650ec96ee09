"""The simulated head: one person's anatomy in three dimensions, drawn at a height of the slice.

Heights are mm above the orbitomeatal plane, from the skull base (-12) to the vertex (94); the
frame is that of `phantom_canvas.Canvas`. HU follow the usual ranges of unenhanced CT: CSF 0-15,
white matter 20-33, grey matter 30-45, fat about -90, skull above 300.
"""

import math
from dataclasses import dataclass

import numpy as np

from repdiff.data.phantom_canvas import Canvas, ellipse, ellipse_3d, smooth_field, tube

CSF, WHITE, GREY, CEREBELLUM, BRAINSTEM = 7.0, 27.0, 37.0, 34.0, 30.0
FAT, MUSCLE, SKIN, BONE, DIPLOE = -85.0, 52.0, 25.0, 1250.0, 520.0
CENTRE_HEIGHT, UPPER = 26.0, 71.0  # of the cavity: the widest section, and from there to the top
DEEP_GREY = (  # x, y, height; semi-axes; HU above white matter
    (12.5, -21.0, 39.0, 4.6, 8.5, 10.0, 9.0),   # caudate head
    (24.0, -5.0, 33.0, 6.5, 14.0, 12.0, 8.0),   # lentiform nucleus
    (11.0, 11.0, 35.0, 8.5, 12.5, 11.0, 8.0),   # thalamus
)


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

    @property
    def radius(self) -> float:
        return (self.half_width * self.half_length) ** 0.5


@dataclass(frozen=True)
class Brain:
    """What a slice's brain is made of, over the cavity's `canvas`; each cover is (H, W) in 0..1.

    depth: mm inside the inner table; box: the canvas's place in the whole slice; x, y: the brain's
    own coordinates (warped, and displaced by a hematoma).
    """

    canvas: Canvas
    box: tuple[slice, slice]
    depth: np.ndarray
    x: np.ndarray
    y: np.ndarray
    cavity: np.ndarray
    csf: np.ndarray
    ventricles: np.ndarray
    white: np.ndarray
    grey: np.ndarray


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
        side=tuple(rng.normal(1, 0.08, 2)), brain_offset=rng.normal(0, 1.2),
        sinus_hu=rng.normal(54, 6), air_cells=rng.uniform(0.3, 1.0),
        knots_sulci=(grid[0], grid[1]), knots_warp=(warp[0], warp[1]), knots_texture=grid[2])


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


def paint_head(canvas: Canvas, head: Head, height: float, push: 'Push | None') -> Brain:
    """Draws scalp, skull, face and brain at `height`; `push` displaces the brain. Returns it."""
    size, radius = len(canvas.hu), head.radius
    rho = outline(head, canvas.x, canvas.y)
    outside = section(height, head.skull) * (1 + head.skull / radius)
    skin = section(height, head.skull + head.scalp) * (1 + (head.skull + head.scalp) / radius)
    to_bone = (rho - outside) * radius
    to_cavity = (rho - section(height)) * radius
    canvas.paint(canvas.cover((rho - skin) * radius), SKIN)
    canvas.paint(canvas.cover((rho - skin) * radius + 1.6), FAT)
    canvas.paint(canvas.cover(to_bone - 1.2), 15.0)
    if height < 40:
        _paint_muscle(canvas, height, to_bone)
    to_cavity = _close_base(canvas, height, to_cavity)
    canvas.paint(canvas.cover(to_bone), BONE)
    wall = (outside - section(height)) * radius
    middle = np.abs(to_bone + 0.5 * wall) - 0.22 * wall
    canvas.paint(canvas.cover(middle, 0.8), DIPLOE)
    if height < 16:
        _paint_base(canvas, head, height, to_bone, to_cavity)
    reach = section(height) * max(head.half_length, head.half_width * (1 + head.taper)) + 4
    box = canvas.box(0, 0, reach)
    return _paint_brain(canvas.crop(box), head, height, -to_cavity[box], box, size, push)


def _paint_muscle(canvas: Canvas, height: float, to_bone: np.ndarray) -> None:
    """Temporal muscles, and at the base the neck's."""
    fade = min(max((40 - height) / 20, 0.0), 1.0)
    for side in (-1, 1):
        shape = ellipse(canvas.x - side * 68, canvas.y + 32, 5 + 6 * fade, 26)
        canvas.paint(canvas.cover(shape, 1), MUSCLE)
    if height < 0:
        canvas.paint(canvas.cover(np.maximum(ellipse(canvas.x, canvas.y - 80, 45, 16), -to_bone)),
                     MUSCLE)


def _close_base(canvas: Canvas, height: float, to_cavity: np.ndarray) -> np.ndarray:
    """Below the orbital roofs the cavity is three fossae: two middle ones and the posterior one."""
    if height >= 16:
        return to_cavity
    down = (16 - height) / 28
    x = np.abs(canvas.x)
    middle = ellipse(x - 36, canvas.y + 22, 26 - 9 * down, 30 - 9 * down)
    posterior = ellipse(x, canvas.y - 32 - 4 * down, 60 - 10 * down, 52 - 6 * down)
    fossae = np.minimum(middle, posterior)
    if height > 4:
        fossae = np.minimum(fossae, ellipse(x, canvas.y + 38, 30 + (height - 4) * 2.5,
                                            20 + (height - 4) * 2.6))
    return np.maximum(to_cavity, fossae)


def _paint_base(canvas: Canvas, head: Head, height: float, to_bone: np.ndarray,
                to_cavity: np.ndarray) -> None:
    """Between the fossae: dense bone, then orbits, ethmoid and mastoid air, and soft tissue."""
    inside = np.maximum(to_bone + 5, 3.5 - to_cavity)
    canvas.paint(canvas.cover(inside, 1), 40.0)
    air = canvas.near(0, -72, 26)
    cells = np.sin(air.y * 0.75 + 1.1 * np.sin(air.x * 0.6)) - 0.55 + 0.4 * head.air_cells
    nose = np.maximum(np.abs(air.x) - 10, np.abs(air.y + 70) - 22)
    air.paint(air.cover(nose), 300.0)
    air.paint(air.cover(np.maximum(nose + 1.2, -3 * cells)), -900.0)
    for side in (-1, 1):
        orbit = canvas.near(side * 33, -68, 32)
        x, y = orbit.x - side * 33, orbit.y + 68
        orbit.paint(orbit.cover(ellipse(x, y, 18.5, 23)), 700.0)
        orbit.paint(orbit.cover(ellipse(x, y, 16.5, 21)), FAT)
        orbit.paint(orbit.cover(ellipse(x + side * 0.3 * (y - 4), y - 6, 2.2, 16)), 38.0)
        orbit.paint(orbit.cover(ellipse(x, y + 8, 12, 12)), 42.0)
        orbit.paint(orbit.cover(ellipse(x, y + 8, 10.6, 10.6)), 12.0)
        orbit.paint(orbit.cover(ellipse(x, y + 16, 4.5, 2)), 75.0)
        mastoid = canvas.near(side * 58, 18, 20)
        x, y = mastoid.x - side * 56, mastoid.y - 16
        holes = np.sin(1.3 * x + np.sin(0.9 * y)) * np.sin(1.1 * y + np.sin(1.2 * x)) - 0.05
        bone = np.maximum(ellipse(x, y, 15, 13), to_bone[canvas.box(side * 58, 18, 20)])
        bone = np.maximum(bone, -to_cavity[canvas.box(side * 58, 18, 20)])
        mastoid.paint(mastoid.cover(bone), 750.0)
        mastoid.paint(mastoid.cover(np.maximum(bone + 2, -2.5 * (holes + 0.5 * head.air_cells - 0.4))),
                      -700.0)


@dataclass(frozen=True)
class Push:
    """Mass effect: the brain moves `shift` mm away from (x, y), fading over `reach` mm."""

    x: float
    y: float
    shift: float
    reach: float


def _brain_coordinates(canvas: Canvas, head: Head, box: tuple[slice, slice], size: int,
                       push: Push | None) -> tuple[np.ndarray, np.ndarray]:
    """The brain's coordinates: an irregular warp of the head's, and the mass effect undone."""
    x = canvas.x + 1.6 * smooth_field(head.knots_warp[0], size, box)
    y = canvas.y + 1.6 * smooth_field(head.knots_warp[1], size, box)
    if push is not None:
        dx, dy = canvas.x - push.x, canvas.y - push.y
        away = np.sqrt(dx * dx + dy * dy) + 1
        amount = push.shift * np.exp(-0.5 * (away / push.reach) ** 2) * np.minimum(away / 8, 1)
        x, y = x - amount * dx / away, y - amount * dy / away
    return x, y


def _paint_brain(canvas: Canvas, head: Head, height: float, depth: np.ndarray,
                 box: tuple[slice, slice], size: int, push: Push | None) -> Brain:
    x, y = _brain_coordinates(canvas, head, box, size, push)
    cavity = canvas.cover(-depth)
    angle = height / 9  # the folding changes over about 14 mm of height
    fold = (math.cos(angle) * smooth_field(head.knots_sulci[0], size, box)
            + math.sin(angle) * smooth_field(head.knots_sulci[1], size, box))
    crease = np.abs(fold) * 4.2  # about mm from the nearest crease
    surface = _surface(head, height, depth, x, y)
    space = 0.9 + 1.7 * head.atrophy  # CSF between the inner table and the cortex
    width = (0.35 + 1.15 * head.atrophy) * np.clip(1 - surface / (12 + 8 * head.atrophy), 0, 1)
    csf = np.maximum(canvas.cover(surface - space, 0.6),
                     canvas.cover(crease - width) * (width > 0))
    ribbon = np.minimum(surface - space - 3.2, crease + 0.28 * surface - 3.8)
    grey = canvas.cover(ribbon, 1.5)
    texture = smooth_field(head.knots_texture, size, box)
    white_hu = WHITE + head.brain_offset - 1.2 * head.atrophy
    tissue = white_hu + 0.7 * texture
    tissue += grey * (GREY - WHITE)
    lobes = np.clip((y - 14 + 0.3 * np.abs(x)) / 6, 0, 1) if height < 14 else None
    if lobes is not None:
        tissue += lobes * (CEREBELLUM + head.brain_offset + 1.5 * fold - tissue)
        csf = csf * (1 - 0.7 * lobes)
    brain = Canvas(x, y, tissue, canvas.mm, canvas.turn, canvas.centre)
    deep = _paint_deep(brain, head, height)
    ventricles = np.minimum(_ventricles(brain, head, height), cavity)
    cisterns = _cisterns(brain, head, height)
    csf = np.maximum(np.maximum(csf, cisterns), ventricles)
    brain.paint(csf, CSF)
    _paint_falx(brain, head, height, depth)
    canvas.paint(cavity, brain.hu)
    solid = cavity * (1 - csf)
    grey = np.maximum(grey, deep)
    if lobes is not None:
        grey = np.maximum(grey, lobes)
    return Brain(canvas, box, depth, x, y, cavity, cavity * csf, ventricles,
                 solid * (1 - grey), solid * grey)


def _surface(head: Head, height: float, depth: np.ndarray, x: np.ndarray,
             y: np.ndarray) -> np.ndarray:
    """(H, W) mm from the brain's outside, the interhemispheric and the Sylvian fissures."""
    middle = np.abs(x) + 0.6
    if height < 60:  # the corpus callosum and deep structures bridge the midline
        bridge = np.clip(np.minimum(y + 44, 40 - y) / 6, 0, 1) * min((60 - height) / 6, 1.0)
        middle = middle + 30 * bridge
    surface = np.minimum(depth, middle)
    if 10 < height < 52:
        back = 0.55 * (height - 22)
        for side, gain in zip((-1, 1), head.side):
            fissure = tube(x, y, height, (side * 39, -24, 14), (side * 52 * gain, 12 + back, 46),
                           (0.0, 0.0))
            curve = np.abs(fissure - 3 * gain) + 0.4
            surface = np.minimum(surface, curve + 1.5)
    return surface


def _paint_deep(brain: Canvas, head: Head, height: float) -> np.ndarray:
    """Deep grey nuclei and brainstem, painted on `brain`; returns the cover of grey matter."""
    cover = np.zeros_like(brain.hu)
    for x, y, z, a, b, c, hu in DEEP_GREY:
        for side, gain in zip((-1, 1), head.side):
            box = brain.box(side * x, y, max(a, b) + 8)
            part = brain.crop(box)
            tilt = side * 0.25 if x > 20 else -side * 0.25
            px, py = part.x - side * x * gain, part.y - y
            shape = ellipse_3d(px + tilt * py, py, height - z, a, b, c)
            if shape is None:
                continue
            inside = part.cover(shape, 1.5)
            part.paint(inside, part.hu + hu * 0.85)
            cover[box] = np.maximum(cover[box], inside)
    if height < 20:
        box = brain.box(0, 12, 28)
        part = brain.crop(box)
        inside = part.cover(ellipse(part.x, part.y - 12, 16 - 0.2 * max(height, 0), 13), 2)
        part.paint(inside, BRAINSTEM + head.brain_offset)
    return cover


def _ventricles(brain: Canvas, head: Head, height: float) -> np.ndarray:
    """(H, W) cover of the ventricular system."""
    cover = np.zeros_like(brain.hu)
    v, soft = head.ventricle, 1.2

    def add(distance: np.ndarray | None, box: tuple[slice, slice]) -> None:
        if distance is not None:
            cover[box] = np.maximum(cover[box], brain.cover(distance, soft))

    for side, gain in zip((-1, 1), head.side):
        s, w = side * gain, v * gain
        wide = 1 + 0.25 * (v - 1)
        horn = ((4.5 + 7 * w) * s, -35 - 3 * v, 38.0), (5.0 * s * wide, -14.0, 44.0)
        tubes = (
            (*horn, (2.6 * w, 3.6 * w)),
            ((6.0 * s * wide, -14.0, 46.0), (13.0 * s * wide, 14.0, 52.0), (4.0 * w, 4.6 * w)),
            ((13.0 * s * wide, 14.0, 52.0), (23.0 * s * wide, 32.0, 38.0), (4.6 * w, 5.6 * w)),
            ((23.0 * s * wide, 32.0, 38.0), (22.0 * s, 50.0 + 4 * v, 34.0), (4.6 * w, 2.2 * w)),
            ((26.0 * s, 28.0, 34.0), (34.0 * s, 2.0, 14.0), (2.6 * w, 1.4 * w)),
        )
        for start, end, radii in tubes:
            if min(start[2], end[2]) - 9 * w < height < max(start[2], end[2]) + 9 * w:
                x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
                reach = math.dist(start[:2], end[:2]) / 2 + 18
                box = brain.box(x, y, reach)
                part = brain.crop(box)
                add(tube(part.x, part.y, height, start, end, radii), box)
    for x, y, z, a, b, c in ((0, 3, 31, 1.7 * v, 12, 12), (0, 40, -1, 6.5 * v, 4.5 * v, 11)):
        box = brain.box(x, y, 24)
        part = brain.crop(box)
        add(ellipse_3d(part.x - x, part.y - y, height - z, a, b, c), box)
    return cover


def _cisterns(brain: Canvas, head: Head, height: float) -> np.ndarray:
    """(H, W) cover of the basal cisterns: suprasellar star, ambient and quadrigeminal, prepontine."""
    cover = np.zeros_like(brain.hu)
    if not -14 < height < 28:
        return cover
    size = 0.8 + 0.35 * head.atrophy
    box = brain.box(0, 4, 44)
    part = brain.crop(box)
    near = 1 - abs(height - 12) / 14
    if near > 0:
        angle = np.arctan2(part.x, -(part.y + 10))
        star = np.hypot(part.x, part.y + 10) - size * (8 + 3.5 * np.cos(5 * angle)) * near ** 0.5
        cover[box] = np.maximum(cover[box], part.cover(star, 1.5))
    around = np.hypot(part.x, part.y - 12) - 15.5
    arch = np.maximum(np.abs(around) - 1.5 * size * max(near, 0.0), 4 - (part.y - 12) * 0.6)
    cover[box] = np.maximum(cover[box], part.cover(arch, 1.2))
    if height < 4:
        front = ellipse(part.x, part.y + 4, 12, 2.2 * size)
        cover[box] = np.maximum(cover[box], part.cover(front, 1.2))
    return cover


def _paint_falx(brain: Canvas, head: Head, height: float, depth: np.ndarray) -> None:
    """Falx, tentorium and the venous sinuses."""
    if height > 22:
        gap = np.minimum(brain.y + 44, 40 - brain.y) if height < 62 else -np.ones_like(brain.y)
        line = np.maximum(np.abs(brain.x) - 0.55, gap)
        brain.paint(brain.cover(line, 0.5) * 0.9, 46.0)
    back = head.half_length * section(height)
    if height > 8:
        shape = np.maximum(ellipse(brain.x, brain.y - back + 3, 4, 5.5), 0.8 - depth)
        brain.paint(brain.cover(shape, 1.0), head.sinus_hu)
    if 6 < height < 24:
        x = np.abs(brain.x)
        edge = np.abs(0.75 * (brain.y - 38) + 0.66 * x * (1 - (height - 6) / 30)) - 0.6
        leaf = np.maximum(edge, np.maximum(x - 44, 10 - x * 0.9))
        brain.paint(brain.cover(leaf, 0.8) * 0.7, 46.0)
