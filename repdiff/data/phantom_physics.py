"""What the scanner does to a drawn slice: point spread, pixels, cupping, streaks, noise."""

import numpy as np
from scipy import ndimage

from repdiff.data.phantom_facilities import Facility

# HU, standard deviation between examinations of one facility: calibration (IEC 61223-3-5 lets the
# CT number of water be 4 HU off) and the beam hardening of thick and thin skulls. Without it
# brightness alone would tell who bleeds.
DRIFT = 4.0


def scan(hu: np.ndarray, size: int, place: Facility, base: float,
         rng: np.random.Generator) -> np.ndarray:
    """The drawn slice as the facility's scanner and reconstruction show it.

    hu: (H, H) float32 drawn on a finer grid, H a multiple of `size`; base: 0..1, how near the slice
    is to the skull base, where bone scatters most. Returns (size, size) float32 HU. Everything but
    the point spread depends on bone and `rng` alone, so a hematoma changes no pixel away from it.
    """
    factor = len(hu) // size
    image = _spread(hu, place).reshape(size, factor, size, factor).mean((1, 3))
    mm = place.field_of_view / size
    bone = np.clip((image - 200) / 600, 0, 1)
    glow = _blur(bone, 8 / mm)
    head = np.clip((image + 300) / 250, 0, 1)
    # Beam hardening is corrected for water: beside thick bone some brightening is left over.
    image += place.offset + place.cupping * (2.2 * glow - 0.3) * head * (1 - bone)
    image += _streaks(bone, mm, place.cupping, base, rng) * head
    image += _noise(size, mm, place, rng) * (0.7 + 0.9 * glow + 0.35 * base)
    return np.clip(image, -1024, 3071)


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    if sigma < 0.15:
        return image
    return ndimage.gaussian_filter(image, sigma, mode='nearest', truncate=2.5)


def _spread(hu: np.ndarray, place: Facility) -> np.ndarray:
    """Blurs by the kernel's point spread and the native pixel; sharp kernels overshoot at edges."""
    mm = place.field_of_view / len(hu)
    native = place.field_of_view / place.matrix
    sigma = (place.blur ** 2 + native ** 2 / 12) ** 0.5 / mm
    soft = _blur(hu, sigma)
    if place.edge <= 0:
        return soft.copy() if soft is hu else soft
    return soft + place.edge * (soft - _blur(soft, 1.2 / mm))


def _noise(size: int, mm: float, place: Facility, rng: np.random.Generator) -> np.ndarray:
    """(size, size) noise of filtered back-projection: correlated by the kernel, weak at the lowest
    frequencies, and lower in larger pixels (a power of -0.75, between white noise's -1 and 0)."""
    white = rng.standard_normal((size, size), dtype=np.float32)
    grain = _blur(white, 0.95 * place.blur / mm)
    if mm < 2:
        grain = grain - 0.7 * _blur(grain, 1.6 / mm)
    return grain * (place.noise * mm ** -0.75 / grain.std())


def _streaks(bone: np.ndarray, mm: float, strength: float, base: float,
             rng: np.random.Generator) -> np.ndarray:
    """(H, W) streaks along lines through dense bone; more and stronger near the skull base."""
    streaks = np.zeros_like(bone)
    rows, columns = np.nonzero(bone > 0.9)
    count = rng.poisson(0.8 + 5 * base)
    picks, angles = rng.random(count), rng.normal(0, 0.5, count) + np.pi / 2 * (
        rng.random(count) < 0.2)
    gains, widths = rng.normal(0, 1, count), rng.uniform(1.0, 3.5, count)
    if not len(rows):
        return streaks
    y = (np.arange(len(bone), dtype=np.float32) * np.float32(mm))[:, None]
    x = y.T
    for pick, angle, gain, width in zip(picks, angles, gains, widths):
        at = int(pick * len(rows))
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = x - columns[at] * np.float32(mm), y - rows[at] * np.float32(mm)
        across, along = (dy * cos - dx * sin) / np.float32(width), dx * cos + dy * sin
        streaks += np.float32(gain * strength * (0.6 + base)) / (
            (1 + across ** 2) ** 2 * (1 + (along / 60) ** 2))
    return streaks
