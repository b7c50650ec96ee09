"""Whether stated probabilities can be trusted: reliability, calibration error, abstaining."""

import numpy as np

from repdiff.eval import metrics

POINTS = 101  # of the curve over coverage


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> dict:
    """Stated against found in ECE_BINS equal bins, as JSON values; empty bins are left out.

    labels (B,) int; probabilities (B,) of class 1, or (B, K), of which the top one counts and is
    right or not (arXiv 1706.04599). {"ece", "confidence", "frequency", "images"}, the last three a
    value a bin.
    """
    stated, hits, images = (each[0] for each in metrics.calibration_bins(
        labels, probabilities, np.ones((1, labels.size))))
    full = images > 0
    return {
        'ece': float(np.abs(stated - hits).sum() / labels.size),
        'confidence': (stated[full] / images[full]).tolist(),
        'frequency': (hits[full] / images[full]).tolist(),
        'images': images[full].astype(int).tolist(),
    }


def selective(labels: np.ndarray, predictions: np.ndarray, confidence: np.ndarray) -> dict:
    """Accuracy on the most confident share of the images: {"coverage", "accuracy"} (POINTS,).

    The rest is what an evaluator that may abstain hands on to a person. `confidence` (B,) is of any
    scale; equal confidences are kept in order.
    """
    right = (predictions == labels)[np.argsort(-confidence, kind='stable')]
    kept = np.unique(np.linspace(1, labels.size, POINTS).round().astype(int))
    return {'coverage': (kept / labels.size).tolist(),
            'accuracy': (np.cumsum(right)[kept - 1] / kept).tolist()}
