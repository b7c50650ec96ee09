"""The head without what lies around it: a mask, a centred crop and an anti-aliased resize.

The paper's pictures have their artifacts removed (arXiv 2505.06890, data); head-rests and tubes
differ by facility, and a classifier would read the facility from them.
"""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage, spatial

AIR = {'hu': -1000.0, 'grey': 0}  # what takes the place of a removed object
_TISSUE = {'hu': -200.0, 'grey': 32}  # above is tissue: fat in HU, and brain in a brain window
_HARD = {'hu': 100.0, 'grey': 240}  # above is bone, plastic or metal, and no soft part of a head
_GRID = 256  # the mask is found on a grid of about this many pixels a side
_THICK = 3  # grid pixels, about 3 mm: what a disk of this radius does not fit in is no core
_GAP = 1  # grid pixels: gaps up to twice this, about 2 mm, count as closed
_FACE_GAP = 4  # so closed, a face's thin bones enclose its sinuses and orbits
_BULK = 15  # grid pixels: a square that fits in the head, and in no finger
_PARTS = 12  # the largest parts looked at
_FILLED = 0.5  # the share of tissue in what a face adds to the outline
_BROW = 0.15  # of the bulk's height: a face lies before this
_CHEEK = 0.15  # of the bulk's width, at either side: bones of a face that lie beside it are in it
_MARGIN = 0.04  # of the head's size: skin and ears outside the hull of its solid parts
_SCALP = 3.0  # grid pixels of skin that stay beneath what touches it
_THICK_BONE = 11  # grid pixels: a square of bone, or of what it encloses, that fits in no finger
_SMALL_BONE = 120  # grid pixels: the area of bone that a finger shows at most
_ENCLOSED = 0.76  # the share of the head's hull that a closed skull encloses: less with a face
_FLESH = 8  # grid pixels around a finger's bone
_INSIDE = 0.5  # the share within the head's outline that makes a part belong to it


def mask(pixels: np.ndarray, unit: str) -> np.ndarray:
    """Where the head is, and no head-rest, tube or other object outside it.

    Hard parts beside a closed skull, such as the bones of fingers that hold it, go first, with what
    is around them: they may touch the skin. The largest solid part of the rest is the head's core.
    Solid parts that lie mostly within the core's convex hull join it, and the hull grows until none
    does; thin parts, such as a head-rest's arcs, are dropped where they lie mostly outside.
    Everything within the hull that is not dropped is kept, so air, gaps in the skull and brain
    outside a skull defect stay.

    Args:
      pixels: (H, W) HU or grey, or (H, W, C) grey in a brain-like window.
      unit: 'hu' or 'grey'.

    Returns:
      (H, W) bool; all True where the picture has no solid part to be sure of.
    """
    height, width = pixels.shape[:2]
    grey = pixels.max(-1) if pixels.ndim == 3 else pixels
    step = max(1, round(max(height, width) / _GRID))
    tissue = _shrink(grey > _TISSUE[unit], step)
    beside = _beside(tissue, _shrink(grey > _HARD[unit], step))
    tissue &= ~beside
    solid = ndimage.binary_opening(_fill(tissue, _GAP), _disk(_THICK))
    if not solid.any():
        return np.ones((height, width), bool)
    core, outline = _grow(solid, _fill(tissue, _FACE_GAP))
    thin, count = ndimage.label(tissue & ~ndimage.binary_dilation(core), np.ones((3, 3)))
    inside = ndimage.mean(outline, thin, np.arange(count + 1)) >= _INSIDE
    inside[0] = True
    dropped = ndimage.binary_dilation(~inside[thin], np.ones((3, 3)))
    kept = outline & (core | ~dropped) & ~beside
    return kept.repeat(step, 0).repeat(step, 1)[:height, :width]


def _shrink(dense: np.ndarray, step: int) -> np.ndarray:
    """True where at least 4 tenths of a `step` by `step` block are."""
    height, width = dense.shape
    padded = np.pad(dense, ((0, -height % step), (0, -width % step)))
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
    return blocks.mean((1, 3)) >= 0.4


def _disk(radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return y * y + x * x <= radius * radius + 1


def _fill(tissue: np.ndarray, gap: int) -> np.ndarray:
    """Closes gaps of up to twice `gap` and fills what they enclose."""
    padded = np.pad(tissue, gap).astype(np.uint8)
    closed = ndimage.grey_closing(padded, size=(2 * gap + 1, 2 * gap + 1))
    return ndimage.binary_fill_holes(closed)[gap:-gap, gap:-gap]


def _beside(tissue: np.ndarray, hard: np.ndarray) -> np.ndarray:
    """Hard parts beside a closed skull and what surrounds them, but for the skin that they touch.

    The largest bulk, thick bones and all bones before its middle that are neither small nor beside
    it are the head; what else is hard outside their hull is beside. Where bone does not enclose
    most of that hull, as in a face or a neck, nothing is known to be beside.
    """
    nothing = np.zeros_like(tissue)
    bulk = ndimage.grey_opening(tissue.astype(np.uint8), size=(_BULK, _BULK)) > 0
    if not bulk.any():
        return nothing
    head = _largest(bulk)
    closed = ndimage.binary_fill_holes(hard)
    thick = ndimage.grey_opening(closed.astype(np.uint8), size=(_THICK_BONE, _THICK_BONE)) > 0
    parts, count = ndimage.label(closed, np.ones((3, 3)))
    if not count:
        return nothing
    numbers = np.arange(1, count + 1)
    down, across = ndimage.find_objects(head.astype(np.uint8))[0]
    y, x = np.transpose(ndimage.center_of_mass(closed, parts, numbers))
    large = np.bincount(parts.ravel())[1:] >= _SMALL_BONE
    within = (across.start <= x) & (x < across.stop)  # a thumb's bone is beside, and may be large
    own = np.isin(numbers, parts[thick]) | large & within & (y < (down.start + down.stop) / 2)
    hull = _hull(head | np.isin(parts, numbers[own]), _SCALP)
    if closed[hull].mean() < _ENCLOSED:
        return nothing
    side = _CHEEK * (across.stop - across.start)
    before = (y < _brow(down)) & (across.start + side <= x) & (x < across.stop - side)
    outside = ndimage.mean(hull, parts, numbers) < _INSIDE
    found = np.isin(parts, numbers[outside & ~own & ~before])
    around = ndimage.maximum_filter(found, size=2 * _FLESH + 1)
    return found | around & ~hull


def _brow(down: slice) -> float:
    """The row that a face lies before, of a head from `down.start` to `down.stop`."""
    return down.start + _BROW * (down.stop - down.start)


def _grow(solid: np.ndarray, filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The solid parts that make up the head, and its outline: their hull with a margin.

    It starts from the largest bulk. Another part joins if it lies mostly inside the outline, as
    muscles do, or if it lies before the bulk and the outline gains mostly filled space, as with a
    face; the fingers that hold a head lie beside it.
    """
    bulk = ndimage.grey_opening(solid.astype(np.uint8), size=(_BULK, _BULK)) > 0
    core = _largest(bulk if bulk.any() else solid)
    outline = _outline(core)
    down, across = ndimage.find_objects(core.astype(np.uint8))[0]
    brow = _brow(down)
    parts, _ = ndimage.label(solid & ~core)
    areas = np.bincount(parts.ravel())[1:]
    waiting = [int(part) + 1 for part in np.argsort(-areas)[:_PARTS]]
    while waiting:
        for part in waiting:
            region = parts == part
            wider = _outline(core | region)
            y, x = (place.mean() for place in np.nonzero(region))
            before = y < brow and across.start <= x < across.stop
            gain = filled[wider & ~outline]
            if outline[region].mean() >= _INSIDE or (
                before and gain.sum() >= _FILLED * gain.size
            ):
                core, outline = core | region, wider
                waiting.remove(part)
                break
        else:
            break
    return core, outline


def _largest(region: np.ndarray) -> np.ndarray:
    parts, _ = ndimage.label(region)
    return parts == np.bincount(parts[region]).argmax()


def _outline(core: np.ndarray) -> np.ndarray:
    """The hull of the core with a margin for skin and ears; (H, W) bool."""
    return _hull(core, 1 + _MARGIN * np.sqrt(core.sum()))


def _hull(region: np.ndarray, margin: float) -> np.ndarray:
    """The convex hull of a region, pushed outward by `margin` grid pixels; (H, W) bool."""
    rows = np.flatnonzero(region.any(1))
    first = region[rows].argmax(1)
    last = region.shape[1] - 1 - region[rows, ::-1].argmax(1)
    ends = np.stack([np.r_[first, last], np.r_[rows, rows]], -1).astype(float)  # (2 rows, 2) x, y
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = margin * np.stack([np.cos(turn), np.sin(turn)], -1)
    points = (ends[:, None] + circle).reshape(-1, 2)
    corners = points[spatial.ConvexHull(points).vertices]
    picture = Image.new('1', region.shape[::-1])
    ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners], fill=1)
    return np.asarray(picture, bool)


def clean(pixels: np.ndarray, kept: np.ndarray, unit: str) -> np.ndarray:
    """The pixels with air wherever the mask `kept` (H, W) is False; same shape and dtype."""
    where = kept[..., None] if pixels.ndim == 3 else kept
    return np.where(where, pixels, np.array(AIR[unit], pixels.dtype))


def crop(pixels: np.ndarray, kept: np.ndarray, unit: str) -> np.ndarray:
    """A square around the mask `kept` (H, W), the head in its centre, air where it overhangs.

    Its side is the longer side of the head, but at least half the picture's: the small slices at
    the vertex are not blown up to the size of a whole head.

    Returns:
      (S, S) or (S, S, C), dtype of `pixels`.
    """
    rows, columns = np.flatnonzero(kept.any(1)), np.flatnonzero(kept.any(0))
    if not rows.size:
        rows, columns = (np.arange(side) for side in kept.shape)
    side = max(np.ptp(rows) + 1, np.ptp(columns) + 1, min(kept.shape) // 2)
    top = (rows[0] + rows[-1] + 1 - side) // 2
    left = (columns[0] + columns[-1] + 1 - side) // 2
    return _window(pixels, top, left, side, unit)


def resize(pixels: np.ndarray, size: int, unit: str) -> np.ndarray:
    """Pads to a square with air, then scales to `size` with a triangle filter.

    The filter widens as the picture shrinks, so fine bone does not alias, and it cannot overshoot:
    no new HU or grey values appear.

    Returns:
      (size, size) or (size, size, C), dtype of `pixels`.
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    if height != width:
        pixels = _window(pixels, (height - side) // 2, (width - side) // 2, side, unit)
    if side == size:
        return pixels
    channels = pixels.reshape(side, side, -1)
    scaled = [
        np.asarray(Image.fromarray(channels[..., channel]).resize((size, size), Image.BILINEAR))
        for channel in range(channels.shape[-1])
    ]
    return np.stack(scaled, -1).reshape(size, size, *pixels.shape[2:])


def _window(pixels: np.ndarray, top: int, left: int, side: int, unit: str) -> np.ndarray:
    """The square of `side` from (top, left), which may lie outside the picture."""
    height, width = pixels.shape[:2]
    square = np.full((side, side, *pixels.shape[2:]), AIR[unit], pixels.dtype)
    from_row, from_column = max(top, 0), max(left, 0)
    part = pixels[from_row : top + side, from_column : left + side]
    row, column = from_row - top, from_column - left
    square[row : row + part.shape[0], column : column + part.shape[1]] = part
    return square
