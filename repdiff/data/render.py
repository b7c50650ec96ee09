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
    pixels = item.pixels
    if settings.head_mask:
        kept = head.mask(pixels, item.unit)
        pixels = head.clean(pixels, kept, item.unit)
        if settings.crop:
            pixels = head.crop(pixels, kept, item.unit)
    # Windowed first, resized then: bone beyond the window must not spread into the brain beside it.
    if item.unit == 'hu':
        pixels = windows.apply(pixels, _windows(item, settings))    # (H, W, C)
    else:
        pixels = _planes(pixels, settings.channels)
    return head.resize(pixels, settings.image_size, 'grey')         # (S, S, C)


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
