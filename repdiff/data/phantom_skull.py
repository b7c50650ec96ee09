"""The simulated skull and what lies outside it: scalp, muscles, orbits, air cells, skull base."""

import numpy as np

from repdiff.data.phantom_canvas import Canvas, direction, ellipse, smooth_field
from repdiff.data.phantom_head import Head, outline, section

FAT, MUSCLE, SKIN, BONE, DIPLOE, AIR = -85.0, 52.0, 55.0, 1250.0, 520.0, -950.0
BASE = 16.0  # mm: below, the cavity closes into fossae and the face begins

_WHOLE = (slice(None), slice(None))

Swelling = tuple[float, float, float]  # angle, half width in radians, thickness in mm


def paint_skull(canvas: Canvas, head: Head, height: float, swelling: Swelling | None) -> np.ndarray:
    """Draws scalp, skull and face at `height`; returns (H, W) mm from the inner table (inside < 0).

    swelling: of the scalp, as after a blow.
    """
    radius = head.radius
    rho = outline(head, canvas.x, canvas.y)
    outside = section(height, head.skull) * (1 + head.skull / radius)
    to_bone = (rho - outside) * radius
    wall = (outside - section(height)) * radius
    _paint_scalp(canvas, head, height, to_bone, swelling)
    if height < 8:
        _paint_face(canvas)
    canvas.paint(canvas.cover(to_bone), BONE)
    middle = np.abs(to_bone + 0.5 * wall) - 0.22 * wall
    canvas.paint(canvas.cover(middle, 0.8), DIPLOE)
    to_cavity = _close_base(canvas, height, to_bone + wall + _thicker(canvas, head, rho))
    if height < BASE:
        soft = np.maximum(to_bone + 5, 3.5 - to_cavity)
        canvas.paint(canvas.cover(soft, 1), 42.0)
        _paint_orbits(canvas, height, to_cavity)
        _paint_mastoids(canvas, head, to_bone, to_cavity)
    if height < 20:
        _paint_nose(canvas, head, height, to_cavity)
    return to_cavity


def _thicker(canvas: Canvas, head: Head, rho: np.ndarray) -> np.ndarray:
    """(H, W) mm that the bone is thicker than its mean: in front and behind, and on the midline at
    the frontal crest and the occipital protuberance; less at the temples."""
    along = np.abs(canvas.y) / (head.half_length * np.maximum(rho, 0.1))
    crest = np.exp(-(canvas.x / 4) ** 2) * np.clip(along - 0.5, 0, 1)
    field = smooth_field(head.knots_warp[0], len(rho), _WHOLE)
    return 2.4 * (along ** 2 - 0.45) + 3.0 * crest + 0.5 * field


def _paint_scalp(canvas: Canvas, head: Head, height: float, to_bone: np.ndarray,
                 swelling: Swelling | None) -> None:
    """Skin, fat, temporal muscle; the thickness changes around the head."""
    thick = np.full_like(to_bone, head.scalp)
    bump = None
    if swelling is not None:
        bump = swelling[2] * direction(canvas, swelling[0], swelling[1]) ** 2
        thick += bump
    muscle = None
    if height < 45:
        fade = min((45 - height) / 30, 1.0)
        muscle = 9 * fade * np.exp(-((canvas.y + 30) / 22) ** 2) * (np.abs(canvas.x) > 25)
        thick += 0.8 * muscle
    skin = to_bone - thick
    canvas.paint(canvas.cover(skin), SKIN)
    canvas.paint(canvas.cover(skin + 2.8), FAT)
    if muscle is not None:
        canvas.paint(canvas.cover(to_bone - muscle), MUSCLE)
    if bump is not None:
        canvas.paint(canvas.cover(np.maximum(skin + 2.8, 1.0 - bump)), 58.0)


def _paint_face(canvas: Canvas) -> None:
    """Soft tissue of the nose and the cheeks, in front of the skull."""
    for x, y, a, b in ((0, -88, 11, 14), (-34, -74, 24, 17), (34, -74, 24, 17)):
        part = canvas.near(x, y, max(a, b) + 2)
        part.paint(part.cover(ellipse(part.x - x, part.y - y, a, b), 1), SKIN)


def _close_base(canvas: Canvas, height: float, to_cavity: np.ndarray) -> np.ndarray:
    """Below the orbital roofs the cavity is three fossae: two middle ones and the posterior one."""
    if height >= BASE:
        return to_cavity
    down = (BASE - height) / 28
    x = np.abs(canvas.x)
    middle = ellipse(x - 36, canvas.y + 22, 26 - 9 * down, 30 - 9 * down)
    posterior = ellipse(x, canvas.y - 32 - 4 * down, 60 - 10 * down, 52 - 6 * down)
    fossae = np.minimum(middle, posterior)
    if height > 4:
        fossae = np.minimum(fossae, ellipse(x, canvas.y + 38, 30 + (height - 4) * 2.5,
                                            20 + (height - 4) * 2.6))
    return np.maximum(to_cavity, fossae)


def _paint_orbits(canvas: Canvas, height: float, to_cavity: np.ndarray) -> None:
    """Orbits, open in front: fat, lateral walls, optic nerves, globes with their lenses."""
    scale = min(max((BASE + 2 - height) / 10, 0.25), 1.0) ** 0.5
    for side in (-1, 1):
        box = canvas.box(side * 32, -66, 34)
        orbit = canvas.crop(box)
        x, y = orbit.x - side * 32, orbit.y + 66
        outside = 1.0 - to_cavity[box]
        wall = np.maximum(np.maximum(ellipse(x, y, 19 * scale, 24 * scale), -y - 16), outside)
        orbit.paint(orbit.cover(wall), 800.0)
        fat = np.maximum(ellipse(x, y, 17 * scale, 22 * scale), outside + 1)
        orbit.paint(orbit.cover(fat), FAT)
        if height > 11:
            continue
        muscle = np.minimum(np.abs(x - 9 + 0.35 * y), np.abs(x + 9 - 0.35 * y)) - 1.3
        orbit.paint(orbit.cover(np.maximum(np.maximum(muscle, np.abs(y - 3) - 13), fat + 1)), 40.0)
        orbit.paint(orbit.cover(np.maximum(ellipse(x + side * 0.3 * (y - 4), y - 6, 2.0, 15),
                                           fat + 1)), 38.0)
        orbit.paint(orbit.cover(ellipse(x, y + 11, 12, 12)), 45.0)
        orbit.paint(orbit.cover(ellipse(x, y + 11, 10.6, 10.6)), 12.0)
        orbit.paint(orbit.cover(ellipse(x, y + 19, 4.5, 2)), 75.0)


def _paint_mastoids(canvas: Canvas, head: Head, to_bone: np.ndarray,
                    to_cavity: np.ndarray) -> None:
    """Dense temporal bones with air cells."""
    for side in (-1, 1):
        box = canvas.box(side * 56, 16, 22)
        part = canvas.crop(box)
        x, y = part.x - side * 56, part.y - 16
        bone = np.maximum(ellipse(x, y, 15, 13), np.maximum(to_bone, -to_cavity)[box])
        cells = smooth_field(head.knots_cells, len(canvas.hu), box) + 1.2 * head.air_cells - 0.9
        part.paint(part.cover(bone), 800.0)
        part.paint(part.cover(np.maximum(bone + 2, -1.6 * cells)), AIR)


def _paint_nose(canvas: Canvas, head: Head, height: float, to_cavity: np.ndarray) -> None:
    """Ethmoid and sphenoid air cells between the orbits; above them the frontal sinus."""
    box = canvas.box(0, -62, 34)
    part = canvas.crop(box)
    field = smooth_field(head.knots_cells, len(canvas.hu), box)
    if height < 10:
        room = np.maximum(np.abs(part.x) - 11, np.abs(part.y + 60) - 28)
        room = np.maximum(room, 2.5 - to_cavity[box])
        part.paint(part.cover(room), 350.0)
        septa = 1.2 * np.abs(np.sin(0.45 * part.y + 1.3 * field)) + 0.1 * np.abs(part.x) - 0.45
        part.paint(part.cover(np.maximum(room + 1.2, -3 * (septa + head.air_cells - 0.7))), AIR)
    else:
        front = head.half_length * section(height) + 0.5 * head.skull
        sinus = ellipse(part.x, part.y + front, 22 * head.air_cells, 3.2 * head.air_cells)
        part.paint(part.cover(sinus - 0.8 * field), AIR)
