"""Hounsfield units to grey: named or numeric windows, one to three channels, per facility."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from repdiff.errors import UserError

Window = tuple[float, float]  # (centre, width) in HU

# Centre and width in HU, as head CT is usually read (radiopaedia.org/articles/windowing-ct).
PRESETS: dict[str, Window] = {
    'brain': (40, 80),
    'subdural': (75, 215),
    'stroke': (40, 40),
    'bone': (600, 2800),
    'soft_tissue': (40, 375),
}
OTHERS = '*'  # the facility name that stands for all that are not listed


def parse(text: str) -> tuple[Window, ...]:
    """Reads `brain`, `40/80`, or up to three joined by `+` (`brain+subdural+bone`), one a channel.

    Raises:
      UserError: an unknown name, a width that is not positive, or more than three channels.
    """
    parts = [part.strip() for part in text.split('+')]
    if len(parts) > 3:
        raise UserError(
            f'window {text!r} has {len(parts)} channels; an image holds one to three, so name at '
            'most three windows joined by "+".'
        )
    return tuple(_parse_one(part) for part in parts)


def _parse_one(text: str) -> Window:
    if text in PRESETS:
        return PRESETS[text]
    try:
        centre, width = (float(number) for number in text.split('/'))
    except ValueError:
        raise UserError(
            f'window {text!r} is neither a preset ({", ".join(PRESETS)}) nor CENTRE/WIDTH in HU '
            'such as 40/80.'
        ) from None
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        raise UserError(f'window {text!r} needs a finite centre and a width above 0 HU.')
    return centre, width


def parse_facilities(text: str) -> dict[str, tuple[Window, ...]]:
    """Reads `brain` for all, or `A=35/90,B=subdural,*=brain`, one entry a facility.

    Returns:
      facility -> windows, where the facility `*` stands for all that are not listed.

    Raises:
      UserError: a bad window, a facility named twice, or facilities that differ in channels.
    """
    if '=' not in text:
        return {OTHERS: parse(text)}
    mapping: dict[str, tuple[Window, ...]] = {}
    for number, entry in enumerate(text.split(','), 1):
        facility, equals, windows = entry.rpartition('=')
        facility = facility.strip()
        if not equals or not facility or facility in mapping:  # by number: it may be a name
            raise UserError(
                f'entry {number} of the windows should be FACILITY=WINDOW, each facility once.'
            )
        mapping[facility] = parse(windows)
    if len({len(windows) for windows in mapping.values()}) > 1:
        raise UserError(
            'the windows give facilities different numbers of channels; give all the same.'
        )
    return mapping


def rename(text: str, name: Callable[[str], str]) -> str:
    """The windows `text` with each facility, but `*`, named as `name` does."""
    if '=' not in text:
        return text
    entries = []
    for entry in text.split(','):
        facility, _, windows = entry.rpartition('=')
        facility = facility.strip()
        entries.append(f'{facility if facility == OTHERS else name(facility)}={windows.strip()}')
    return ','.join(entries)


def of_facility(
    mapping: Mapping[str, tuple[Window, ...]], facility: str
) -> tuple[Window, ...]:
    """The windows of one facility (arXiv 2505.06890: each facility's contrast by its specialists).

    Raises:
      UserError: the facility is not in the mapping and nothing stands for the others.
    """
    if facility in mapping:
        return mapping[facility]
    if OTHERS in mapping:
        return mapping[OTHERS]
    raise UserError(
        f'facility {facility!r} has no window (there are: {", ".join(map(repr, mapping))}); add '
        f'it, or {OTHERS}=WINDOW for all others.'
    )


def apply(hu: np.ndarray, windows: Sequence[Window]) -> np.ndarray:
    """Maps each window linearly onto 0..255: `round(255 clip((hu - centre) / width + 1/2, 0, 1))`.

    This is LINEAR_EXACT of DICOM PS3.3 C.11.2.1.3.2; halves round up.

    Args:
      hu: (H, W) in HU.
      windows: one (centre, width) a channel.

    Returns:
      (H, W, len(windows)) uint8.
    """
    grey = np.empty((*hu.shape, len(windows)), np.uint8)
    for channel, (centre, width) in enumerate(windows):
        lowest = centre - width / 2
        # Multiply before dividing, in float64, so that integer HU give exact halves.
        scaled = (hu.astype(np.float64) - lowest) * 255 / width
        grey[..., channel] = np.floor(np.clip(scaled, 0, 255) + 0.5)
    return grey
