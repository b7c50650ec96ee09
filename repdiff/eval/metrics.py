"""Classification metrics as functions of image weights.

One code path gives a figure (every weight 1) and its bootstrap (weights = how often an image was
drawn), for thousands of resamples at once. Letters here: R resamples, B images, K classes.
"""

from collections.abc import Sequence

import numpy as np

DECISION = ('accuracy', 'balanced_accuracy', 'f1', 'recall', 'precision')
RANKING = ('auroc', 'average_precision', 'sensitivity_at_95_specificity')
PROBABILITY = ('brier', 'ece')
NAMES = DECISION + RANKING + PROBABILITY
# arXiv 1706.04599 (Guo et al. 2017) reports calibration error over 15 equal bins.
ECE_BINS = 15
# Resamples are worked off in chunks of about this many weights, to bound memory.
CHUNK_WEIGHTS = 2_000_000


def metrics(labels: np.ndarray, scores: np.ndarray, predictions: np.ndarray) -> dict:
    """All metrics of one set of answers, as plain JSON values; None where one is undefined.

    labels (B,) int, predictions (B,) int, scores (B,) probability of class 1 or (B, K) of each
    class. Two classes: figures of class 1, "confusion" is {"tp", "fp", "tn", "fn"}. More: macro
    averages (ranking metrics one class against the rest), "confusion" is the matrix with true
    classes as rows. Undefined is a division by zero, with one exception, as in scikit-learn:
    precision is 0 where nothing was called positive.
    """
    found = values(labels, scores, predictions, np.ones((1, len(labels))))
    result = {name: plain(value[0]) for name, value in found.items()}
    result['confusion'] = confusion(labels, predictions, _classes(scores))
    return result


def decision_metrics(labels: np.ndarray, predictions: np.ndarray, classes: int) -> dict:
    """The metrics that need predictions only, and "confusion": for a rule without a score."""
    counts = _counts(labels, predictions, np.ones((1, len(labels))), classes)
    result = {name: plain(value[0]) for name, value in _decisions(counts).items()}
    result['confusion'] = confusion(labels, predictions, classes)
    return result


def of_confusions(parts: Sequence[dict | list]) -> dict:
    """`decision_metrics` of the summed counts of several "confusion" entries."""
    tables = [[[part['tn'], part['fp']], [part['fn'], part['tp']]] if isinstance(part, dict)
              else part for part in parts]
    counts = np.sum(tables, axis=0)
    true, called = np.indices(counts.shape).reshape(2, -1)
    repeated = (np.repeat(each, counts.ravel()) for each in (true, called))
    return decision_metrics(*repeated, classes=len(counts))


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> dict | list:
    """{"tp", "fp", "tn", "fn"} for two classes, else the matrix (true rows, predicted columns)."""
    counts = _counts(labels, predictions, np.ones((1, len(labels))), classes)[0].astype(int)
    if classes > 2:
        return counts.tolist()
    (tn, fp), (fn, tp) = counts.tolist()
    return {'tp': tp, 'fp': fp, 'tn': tn, 'fn': fn}


def values(labels: np.ndarray, scores: np.ndarray, predictions: np.ndarray,
           weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric under every row of `weights` (R, B): name -> (R,), NaN where undefined.

    Raises ValueError if scores are not probabilities.
    """
    labels, scores, predictions = map(np.asarray, (labels, scores, predictions))
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise ValueError('scores must be probabilities in [0, 1]')
    step = max(1, CHUNK_WEIGHTS // max(1, len(labels)))
    chunks = [_values(labels, scores, predictions, weights[i:i + step])
              for i in range(0, len(weights), step)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in NAMES}


def calibration_bins(labels: np.ndarray, scores: np.ndarray,
                     weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Summed confidences, summed hits and summed weights in ECE_BINS equal bins, (R, bins) each.

    scores (B,): the probability of class 1, and whether it came true. (B, K): the top class's
    probability, and whether it was right (arXiv 1706.04599, eq. 3). weights: (R, B).
    """
    if scores.ndim == 1:
        confidence, hit = scores, labels == 1
    else:
        confidence, hit = scores.max(axis=1), scores.argmax(axis=1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    member = np.eye(ECE_BINS)[bins]  # (B, bins)
    return tuple(weights @ (member * each[:, None])
                 for each in (confidence, hit, np.ones(len(bins))))


def plain(value: float) -> float | None:
    """A Python float for JSON, None for NaN."""
    return None if np.isnan(value) else float(value)


def _values(labels: np.ndarray, scores: np.ndarray, predictions: np.ndarray,
            weights: np.ndarray) -> dict[str, np.ndarray]:
    classes = _classes(scores)
    found = _decisions(_counts(labels, predictions, weights, classes))
    if scores.ndim == 2 and classes == 2:
        scores = scores[:, 1]
    if scores.ndim == 1:
        ranking = _ranking(labels == 1, scores, weights)
        squared = (scores - labels) ** 2  # (B,)
    else:
        each = [_ranking(labels == k, scores[:, k], weights) for k in range(classes)]
        ranking = {name: _mean_defined(np.stack([one[name] for one in each])) for name in RANKING}
        squared = ((scores - np.eye(classes)[labels]) ** 2).sum(axis=1)
    found |= ranking
    total = weights.sum(axis=1)
    found['brier'] = _ratio(weights @ squared, total)
    stated, hits, _ = calibration_bins(labels, scores, weights)
    found['ece'] = _ratio(np.abs(stated - hits).sum(axis=1), total)
    return found


def _classes(scores: np.ndarray) -> int:
    return 2 if np.ndim(scores) == 1 else np.shape(scores)[1]


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, NaN where bottom is 0."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom != 0)


def _mean_defined(table: np.ndarray) -> np.ndarray:
    """Mean over axis 0 of the entries that are not NaN; NaN where none is."""
    defined = ~np.isnan(table)
    return _ratio(np.where(defined, table, 0).sum(axis=0), defined.sum(axis=0).astype(float))


def _counts(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray,
            classes: int) -> np.ndarray:
    """Weighted confusion matrices (R, K, K): true rows, predicted columns."""
    cell = np.asarray(labels) * classes + np.asarray(predictions)  # (B,)
    counts = weights @ np.eye(classes * classes)[cell]
    return counts.reshape(-1, classes, classes)


def _decisions(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of confusion matrices (R, K, K)."""
    right = np.diagonal(counts, axis1=1, axis2=2)  # (R, K)
    true, called = counts.sum(axis=2), counts.sum(axis=1)  # (R, K)
    recall = _ratio(right, true)
    precision = np.nan_to_num(_ratio(right, called))
    f1 = _ratio(2 * right, true + called)
    binary = counts.shape[1] == 2
    result = {'accuracy': _ratio(right.sum(axis=1), counts.sum(axis=(1, 2)))}
    if binary:
        result['balanced_accuracy'] = recall.mean(axis=1)
        return result | {'f1': f1[:, 1], 'recall': recall[:, 1], 'precision': precision[:, 1]}
    # As scikit-learn: a class that is called but never true counts 0 in the macro averages.
    absent = true + called == 0
    result['balanced_accuracy'] = _mean_defined(recall.T)
    for name, value in (('f1', f1), ('recall', recall), ('precision', precision)):
        result[name] = _mean_defined(np.where(absent, np.nan, np.nan_to_num(value)).T)
    return result


def _ranking(positive: np.ndarray, scores: np.ndarray,
             weights: np.ndarray) -> dict[str, np.ndarray]:
    """Area under the ROC curve, average precision, best sensitivity at specificity >= 95%.

    positive (B,) bool, scores (B,), weights (R, B) -> (R,) each. Equal scores are one threshold.
    """
    order = np.argsort(-scores, kind='stable')
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # (G,)
    weights, positive = weights[:, order], positive[order]
    hits = np.cumsum(weights * positive, axis=1)[:, ends]  # (R, G)
    alarms = np.cumsum(weights * ~positive, axis=1)[:, ends]
    positives, negatives = hits[:, -1], alarms[:, -1]
    gained = np.diff(hits, axis=1, prepend=0)
    area = (np.diff(alarms, axis=1, prepend=0) * (hits - gained / 2)).sum(axis=1)
    precision = np.nan_to_num(_ratio(hits, hits + alarms))
    allowed = alarms <= 0.05 * negatives[:, None] + 1e-9
    auroc = _ratio(area, positives * negatives)
    sensitivity = _ratio(np.where(allowed, hits, 0).max(axis=1), positives)
    return {
        'auroc': auroc,
        'average_precision': _ratio((gained * precision).sum(axis=1), positives),
        'sensitivity_at_95_specificity': np.where(negatives > 0, sensitivity, np.nan),
    }
