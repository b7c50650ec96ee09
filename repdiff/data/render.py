"""A slice as the picture a record holds: windowed, cleaned, squared and resized."""

import numpy as np
from PIL import Image

from repdiff.data import head, windows
from repdiff.data.refusal import Refused
from repdiff.data.settings import DataSettings
from repdiff.data.slices import Slice


def render(item: Slice, settings: DataSettings) -> np.ndarray:
    """(S, S, channels) uint8 of a slice.

    HU go through the slice's own window where it has one and one channel is asked for, else through
    the facility's of the settings. Raises Refused where grey cannot give the channels.
    """
    kept = head.mask(item.pixels, item.unit) if settings.head_mask else None
    pixels = item.pixels if kept is None else head.clean(item.pixels, kept, item.unit)
    if item.unit == 'hu':
        pixels = windows.apply(pixels, _windows(item, settings))    # (H, W, C)
    else:
        pixels = _planes(pixels, settings.channels)
    if settings.crop:
        rows, columns = (np.flatnonzero(kept.any(axis)) for axis in (1, 0))
        pixels = pixels[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    return resize(square(pixels), settings.image_size)


def _windows(item: Slice, settings: DataSettings) -> tuple[windows.Window, ...]:
    if item.window is not None and settings.channels == 1:
        return (item.window,)
    return windows.of_facility(windows.parse_facilities(settings.window), item.facility)


def _planes(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Grey or colour (H, W[, 3]) as (H, W, channels)."""
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], channels, -1)
    if channels == 3:
        return pixels
    if channels == 1:
        return np.asarray(Image.fromarray(pixels).convert('L'))[..., None]
    raise Refused('is in colour, which does not fit in two channels')


def square(pixels: np.ndarray) -> np.ndarray:
    """Pads (H, W, C) with black to a square, the picture in its middle."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return np.pad(pixels, ((top, side - height - top), (left, side - width - left), (0, 0)))


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Square (H, H, C) uint8 to (size, size, C), with anti-aliasing."""
    if pixels.shape[0] == size:
        return pixels
    planes = [Image.fromarray(np.ascontiguousarray(plane)).resize((size, size), Image.LANCZOS)
              for plane in np.moveaxis(pixels, -1, 0)]
    return np.stack([np.asarray(plane) for plane in planes], -1)
