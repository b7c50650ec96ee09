"""Probabilities that mean something: temperature and prior fitted on the validation split."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax


@dataclass(frozen=True)
class Calibration:
    """probabilities = softmax(slope · scores + bias), slope > 0.

    Images keep their order by the odds of any two classes. So the AUROC of two classes stays; of
    more, that of one class against the rest need not, because the bias weighs the rest anew.
    """

    slope: float
    bias: np.ndarray

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """(B, K) probabilities of rule scores (B, K)."""
        return softmax(self.slope * scores + self.bias, axis=1)


def fit(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    """Maximum likelihood of `labels` (B,) under `Calibration`, with a weak pull to slope 1/sd."""
    classes = scores.shape[1]
    spread = max((scores - scores.mean(1, keepdims=True)).std(), 1e-12)
    scaled = scores / spread

    def loss(x):
        bias = np.concatenate([[0.0], x[1:]])
        log_p = log_softmax(np.exp(x[0]) * scaled + bias, axis=1)
        # The pull is worth one image; it keeps the fit finite when classes separate perfectly.
        return -log_p[np.arange(labels.size), labels].sum() + 0.5 * np.sum(x**2) / 9

    x = minimize(loss, np.zeros(classes), method='L-BFGS-B').x
    return Calibration(float(np.exp(x[0]) / spread), np.concatenate([[0.0], x[1:]]))
