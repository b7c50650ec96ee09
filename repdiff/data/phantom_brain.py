"""The simulated brain: cortex and sulci, deep nuclei, ventricles, cisterns, falx and tentorium.

HU follow the usual ranges of unenhanced CT: CSF 0-15, white matter 20-33, grey matter 30-45.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from repdiff.data.phantom_canvas import Canvas, ellipse, ellipse_3d, smooth_field, tube
from repdiff.data.phantom_head import Head, section

CSF, WHITE, GREY, CEREBELLUM, BRAINSTEM = 7.0, 28.5, 39.0, 35.0, 32.0
TENTORIUM = (6.0, 24.0)  # mm, the heights at which a slice meets it
DEEP_GREY = (  # x, y, height; semi-axes; HU above white matter
    (12.5, -21.0, 39.0, 4.6, 8.5, 10.0, 9.0),   # caudate head
    (24.0, -5.0, 33.0, 6.5, 14.0, 12.0, 8.0),   # lentiform nucleus
    (11.0, 11.0, 35.0, 8.5, 12.5, 11.0, 8.0),   # thalamus
)


@dataclass(frozen=True)
class Brain:
    """A slice's brain before it is put into the skull; each cover is (H, W) in 0..1.

    canvas: the brain alone, filling its window; box: the window's place in the whole slice; depth:
    mm inside the inner table; x, y: the brain's own coordinates (warped, and displaced by a
    hematoma); cavity: the part of each pixel inside the skull.
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


def paint_brain(slice_canvas: Canvas, head: Head, height: float, to_cavity: np.ndarray,
                push: Push | None) -> Brain:
    """The brain at `height`, drawn on a canvas of its own. to_cavity: (H, W) mm from the inner
    table, inside < 0; push: a hematoma's mass effect."""
    size = len(slice_canvas.hu)
    reach = 1.1 * section(height) * max(head.half_length, head.half_width)
    box = slice_canvas.box(0, 0, reach)
    canvas, depth = slice_canvas.crop(box), -to_cavity[box]
    x, y = _brain_coordinates(canvas, head, box, size, push)
    cavity = canvas.cover(-depth)
    angle = height / 9  # the folding changes over about 14 mm of height
    fold = (math.cos(angle) * smooth_field(head.knots_sulci[0], size, box)
            + math.sin(angle) * smooth_field(head.knots_sulci[1], size, box))
    surface = _surface(head, height, depth, x, y)
    csf, grey = _cortex(canvas, head, fold, surface)
    tissue = WHITE + head.brain_offset - 1.2 * head.atrophy + grey * (GREY - WHITE)
    tissue += 0.7 * smooth_field(head.knots_texture, size, box)
    if height < 14:  # the cerebellum's folia are finer than a slice shows
        lobes = np.clip((y - 14 + 0.3 * np.abs(x)) / 6, 0, 1)
        tissue += lobes * (CEREBELLUM + head.brain_offset + 1.2 * fold - tissue)
        csf *= 1 - 0.7 * lobes
        grey = np.maximum(grey, lobes)
    brain = Canvas(x, y, tissue, canvas.mm, canvas.turn, canvas.centre)
    grey = np.maximum(grey, _paint_deep(brain, head, height))
    ventricles = np.minimum(_ventricles(brain, head, height), cavity)
    csf = np.maximum(np.maximum(csf, _cisterns(brain, head, height)), ventricles)
    brain.paint(csf, CSF)
    _paint_falx(brain, head, height, depth)
    solid = cavity * (1 - csf)
    return Brain(replace(canvas, hu=brain.hu), box, depth, x, y, cavity, cavity * csf, ventricles,
                 solid * (1 - grey), solid * grey)


def _cortex(canvas: Canvas, head: Head, fold: np.ndarray,
            surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) covers of the subarachnoid CSF and of the cortex.

    fold: smooth field whose zeros are the sulci; surface: mm from the brain's outside.
    """
    crease = np.abs(fold) * 4.2  # about mm from the nearest sulcus
    space = 0.8 + 1.5 * head.atrophy  # mm of CSF between the inner table and the cortex
    reach = np.clip(1 - surface / (11 + 8 * head.atrophy), 0, 1)
    sulci = canvas.cover(crease - (0.4 + 1.2 * head.atrophy) * reach, 1.0) * np.minimum(
        2.5 * reach, 0.85)  # oblique sulci fill only a part of the slice's thickness
    csf = np.maximum(canvas.cover(surface - space, 0.8), sulci)
    ribbon = np.minimum(surface - space - 3.4, crease + 0.25 * surface - 4.2)
    return csf, canvas.cover(ribbon, 2.0)


def _surface(head: Head, height: float, depth: np.ndarray, x: np.ndarray,
             y: np.ndarray) -> np.ndarray:
    """(H, W) mm from the brain's outside, the interhemispheric and the Sylvian fissures."""
    middle = np.abs(x) + 0.6
    if height < 57:  # the corpus callosum and deep structures bridge the midline
        bridge = np.clip(np.minimum(y + 44, 40 - y) / 6, 0, 1) * min((57 - height) / 6, 1.0)
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
    """(H, W) cover of the basal cisterns: suprasellar, ambient, quadrigeminal, prepontine."""
    cover = np.zeros_like(brain.hu)
    if not -14 < height < 28:
        return cover
    size = 0.8 + 0.35 * head.atrophy
    box = brain.box(0, 4, 44)
    part = brain.crop(box)
    near = 1 - abs(height - 12) / 14
    if near > 0:
        angle = np.arctan2(part.x, -(part.y + 10))
        points = size * (7.5 + 2.5 * np.cos(5 * angle)) * near ** 0.5
        star = np.hypot(part.x, part.y + 10) - points
        cover[box] = np.maximum(cover[box], 0.9 * part.cover(star, 2.5))
    around = np.hypot(part.x, part.y - 12) - 15.5
    arch = np.maximum(np.abs(around) - 1.5 * size * max(near, 0.0), 4 - (part.y - 12) * 0.6)
    cover[box] = np.maximum(cover[box], part.cover(arch, 1.2))
    if height < 4:
        front = ellipse(part.x, part.y + 4, 12, 2.2 * size)
        cover[box] = np.maximum(cover[box], part.cover(front, 1.2))
    return cover


def falx(x: np.ndarray, y: np.ndarray, height: float, half: float) -> np.ndarray:
    """(H, W) signed distance in mm to the falx, `half` mm thick to each side; below the corpus
    callosum it has a front and a back part."""
    gap = np.minimum(y + 44, 40 - y) if height < 57 else np.float32(-1)
    return np.maximum(np.abs(x) - half, gap)


def tentorium(x: np.ndarray, y: np.ndarray, height: float, half: float) -> np.ndarray:
    """(H, W) signed distance in mm to the tentorium's two leaves, `half` mm thick to each side."""
    x = np.abs(x)
    leaf = np.abs(0.75 * (y - 38) + 0.66 * x * (1 - (height - 6) / 30)) - half
    return np.maximum(leaf, np.maximum(x - 44, 10 - 0.9 * x))


def _paint_falx(brain: Canvas, head: Head, height: float, depth: np.ndarray) -> None:
    """Falx, tentorium and the venous sinuses."""
    if height > 22:
        brain.paint(0.9 * brain.cover(falx(brain.x, brain.y, height, 0.55), 0.5), 46.0)
    if height > 8:
        back = head.half_length * section(height)
        sinus = np.maximum(ellipse(brain.x, brain.y - back + 3, 4, 5.5), 0.8 - depth)
        brain.paint(brain.cover(sinus, 1.0), head.sinus_hu)
    if TENTORIUM[0] < height < TENTORIUM[1]:
        leaves = tentorium(brain.x, brain.y, height, 0.6)
        brain.paint(0.7 * brain.cover(leaves, 0.8), 46.0)
