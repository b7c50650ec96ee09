"""A slice as the picture a record holds: windowed, cleaned, squared and resized."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from repdiff.data import head, windows
from repdiff.data.refusal import Refused
from repdiff.data.settings import DataSettings
from repdiff.data.slices import Slice
from repdiff.errors import UserError


def render(item: Slice, chosen: Sequence[windows.Window], settings: DataSettings) -> np.ndarray:
    """(S, S, channels) uint8 of a slice; HU go through the windows `chosen`, one a channel.

    Raises:
      UserError: there are not as many windows as channels.
      Refused: grey cannot give the channels.
    """
    pixels = item.pixels
    if settings.head_mask:
        kept = head.mask(pixels, item.unit)
        pixels = head.clean(pixels, kept, item.unit)
        if settings.crop:
            pixels = head.crop(pixels, kept, item.unit)
    # Windowed first, resized then: bone beyond the window must not spread into the brain beside it.
    if item.unit == 'hu':
        if len(chosen) != settings.channels:
            raise UserError(f'HU go through {len(chosen)} windows where channels is '
                            f'{settings.channels}; make them agree.')
        pixels = windows.apply(pixels, chosen)                      # (H, W, C)
    else:
        pixels = _planes(pixels, settings.channels)
    return head.resize(pixels, settings.image_size, 'grey')         # (S, S, C)


def _planes(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Grey or colour (H, W[, 3]) as (H, W, channels)."""
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], channels, -1)
    if channels == 3:
        return pixels
    if channels == 1:
        return np.asarray(Image.fromarray(pixels).convert('L'))[..., None]
    raise Refused('is in colour, which does not fit in two channels')
