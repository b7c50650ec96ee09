"""Choices made on the validation split, for models and floors alike."""

import numpy as np

from repdiff.errors import UserError


def threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of highest F1: predict 1 where score >= threshold.

    labels (B,) 0 or 1; scores (B,) of any scale. Candidates lie midway between neighbouring
    scores; of equally good ones the middle one is taken, so that no choice hangs on one image
    more than it must. Raises UserError without a positive example.
    """
    positives = int(np.sum(labels == 1))
    if not positives:
        raise UserError('the validation split has no positive example, so no threshold can be '
                        'chosen; enlarge it or change the split fractions.')
    order = np.argsort(-scores, kind='stable')
    ranked = np.asarray(scores, np.float64)[order]
    # Index of the last image called positive, a candidate each; equal scores go together.
    called = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    hits = np.cumsum(labels[order] == 1)[called]
    f1 = 2 * hits / (called + 1 + positives)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    last = called[best[(len(best) - 1) // 2]]
    if last == len(ranked) - 1:
        return float(ranked[-1])
    return float((ranked[last] + ranked[last + 1]) / 2)


def classify(scores: np.ndarray, cut: float | None) -> np.ndarray:
    """(B,) scores at or above `cut`, or the top class of (B, K) scores: predictions (B,) int."""
    return (scores >= cut).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
