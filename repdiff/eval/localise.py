"""Does a heat map find the lesion? Pointing game and Dice, beside random and brightness.

Pointing game (Zhang et al. 2016, arXiv 1608.00507), without their tolerance: whether the highest
pixel lies in the true mask. Dice of a region and the true mask.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from repdiff.eval import intervals

ARMS = ('evidence', 'brightness', 'random')
FIGURES = ('pointing', 'dice', 'dice_at_lesion_size')
_AIR, _BONE = 8, 250  # grey levels of a brain window: up to air, from bone on


def head(image: np.ndarray) -> np.ndarray:
    """Where an image (H, W) uint8 is not air around the head, (H, W) bool."""
    return ndimage.binary_fill_holes(ndimage.binary_opening(image > _AIR)) | (image > _AIR)


def brightness(image: np.ndarray, smooth: float) -> np.ndarray:
    """The image (H, W) as a heat map of the brain alone: bone and what touches it is left out.

    Without this the skull, white in a brain window, would be the brightest of every slice. Smoothed
    as the evidence is, by `smooth` pixels.
    """
    inside = head(image) & ~ndimage.binary_dilation(image >= _BONE)
    parts, count = ndimage.label(inside)
    if count > 1:  # the scalp lies on the other side of the skull
        inside = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    weight = ndimage.gaussian_filter(inside.astype(float), smooth)
    smoothed = ndimage.gaussian_filter(np.where(inside, image, 0.0), smooth) / np.maximum(
        weight, 1e-9)
    return np.where(inside, smoothed, -np.inf)


def dice(found: np.ndarray, mask: np.ndarray) -> float:
    """2 |found ∩ mask| / (|found| + |mask|) of bool arrays; the mask is not empty."""
    return float(2 * np.sum(found & mask) / (found.sum() + mask.sum()))


def highest(heat: np.ndarray, count: int) -> np.ndarray:
    """The `count` highest pixels of a heat map, (H, W) bool; of equals the first."""
    found = np.zeros(heat.size, bool)
    found[np.argsort(-heat.ravel(), kind='stable')[:count]] = True
    return found.reshape(heat.shape)


def one(heat: np.ndarray, shown: np.ndarray, image: np.ndarray, mask: np.ndarray,
        smooth: float) -> dict[str, dict[str, float]]:
    """Figure -> arm -> value, of one image with a lesion.

    `dice` is of the region `shown` (H, W) bool and, for brightness, as many of the brightest
    pixels; `dice_at_lesion_size` is of as many of the highest pixels as the lesion has. For random
    it is the expectation over pixels drawn from the head.
    """
    space, lesion, region = head(image), int(mask.sum()), int(shown.sum())
    chance = float(np.sum(mask & space) / max(1, space.sum()))
    bright = brightness(image, smooth)

    def by_chance(count: int) -> float:
        return 2 * count * chance / (count + lesion)

    return {
        'pointing': {
            'evidence': float(mask.flat[heat.argmax()]),
            'brightness': float(mask.flat[bright.argmax()]),
            'random': chance,
        },
        'dice': {
            'evidence': dice(shown, mask),
            'brightness': dice(highest(bright, region), mask),
            'random': by_chance(region),
        },
        'dice_at_lesion_size': {
            'evidence': dice(highest(heat, lesion), mask),
            'brightness': dice(highest(bright, lesion), mask),
            'random': by_chance(lesion),
        },
    }


def summarise(each: Sequence[dict], patients: np.ndarray, *, resamples: int, seed: int) -> dict:
    """Figure -> arm -> {"mean", "ci95"} over images (B,), resampled by patient (B,)."""
    weights = intervals.patient_weights(patients, resamples=resamples, seed=seed)
    found: dict[str, dict] = {}
    for figure in FIGURES:
        found[figure] = {}
        for arm in ARMS:
            values = np.array([item[figure][arm] for item in each])
            drawn = weights @ values / weights.sum(1)
            found[figure][arm] = {
                'mean': float(values.mean()), 'ci95': intervals.interval(drawn)
            }
    return found
