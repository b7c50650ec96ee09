"""How far an image is from the training data, by what the networks cannot explain in it.

Readings of an image: the log of what its latent leaves out of it (where the front end is a
projection) and the log error of the denoiser under the null class at each step t. An image is
compared with the validation split: its score is its largest robust deviation in any reading, in
either direction (an empty picture is too easy), and the p-value is the rank of that score among
those of the validation images (conformal anomaly detection, Laxhammar & Falkman 2010).
"""

from dataclasses import dataclass

import numpy as np

FAR = 0.01  # share of images like the training data that may be called far from it
_TIGHT = 0.05  # log units: readings that differ by less are alike


@dataclass(frozen=True)
class Typicality:
    """The readings of the validation images, (B, J)."""

    valid: np.ndarray

    def scores(self, readings: np.ndarray) -> np.ndarray:
        """The largest deviation from the validation median, in robust standard deviations, (B,)."""
        middle = np.median(self.valid, 0)
        spread = 1.4826 * np.median(np.abs(self.valid - middle), 0)
        return (np.abs(readings - middle) / np.maximum(spread, _TIGHT)).max(1)

    def p_values(self, readings: np.ndarray) -> np.ndarray:
        """(1 + validation images at least as odd) / (1 + validation images), (B,)."""
        ranked = np.sort(self.scores(self.valid))
        above = ranked.size - np.searchsorted(ranked, self.scores(readings), side='left')
        return (1 + above) / (1 + ranked.size)

    def far(self, readings: np.ndarray) -> np.ndarray:
        """Whether an image is far from the training data, (B,) bool.

        Of images like the validation ones at most FAR are called far; with fewer than 1 / FAR
        validation images, those that are odder than all of them are.
        """
        return self.p_values(readings) <= max(FAR, 1 / (1 + len(self.valid)))
