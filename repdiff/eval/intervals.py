"""What a test split of this size can decide: intervals, paired differences, McNemar's test.

Slices of one patient resemble each other, so the bootstrap draws patients, never slices.
"""

import numpy as np
from scipy import stats

from repdiff.eval import metrics
from repdiff.eval.answers import Answers

DELTAS = ('accuracy', 'f1', 'auroc')


def entry(answers: Answers, *, resamples: int, seed: int) -> dict:
    """A row's entry of results.json: its name, facts, metrics and "ci95" (percentile bootstrap)."""
    weights = patient_weights(answers.patients, resamples=resamples, seed=seed)
    drawn = metrics.values(answers.labels, answers.scores, answers.predictions, weights)
    point = metrics.metrics(answers.labels, answers.scores, answers.predictions)
    ci95 = {name: interval(drawn[name]) if point[name] is not None else None
            for name in metrics.NAMES}
    return {'name': answers.name, **answers.facts, **point, 'ci95': ci95}


def patient_weights(patients: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """How often each image is in each of R resamples of the patients: (R, B) float64.

    A resample draws as many patients as there are, with replacement, each with all its images.
    """
    _, owner = np.unique(patients, return_inverse=True)  # (B,)
    count = owner.max() + 1
    rng = np.random.default_rng([seed, 95])
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, owner].astype(np.float64)


def interval(drawn: np.ndarray) -> list[float] | None:
    """The 2.5th and 97.5th percentile of (R,) resampled values; undefined ones (NaN) are left out.

    None if more than half of the resamples are undefined.
    """
    defined = drawn[~np.isnan(drawn)]
    if 2 * len(defined) < len(drawn):
        return None
    return [float(edge) for edge in np.percentile(defined, [2.5, 97.5])]


def mcnemar(a_right: np.ndarray, b_right: np.ndarray) -> float:
    """Two-sided exact p that a and b are right equally often; (B,) bool each, paired."""
    only_a = int(np.sum(a_right & ~b_right))
    only_b = int(np.sum(b_right & ~a_right))
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def compare(a: Answers, b: Answers, *, resamples: int, seed: int) -> dict:
    """a minus b on the same images: an entry of results.json's "comparisons".

    {"a", "b", "delta_accuracy", "delta_f1", "delta_auroc", "ci95": {"delta_accuracy": [lo, hi],
    ...}, "mcnemar_p", "verdict"}. Intervals are of paired resamples over patients; McNemar's test
    counts slices. Raises ValueError unless both rows answer the same images in the same order.
    """
    if not (np.array_equal(a.ids, b.ids) and np.array_equal(a.labels, b.labels)):
        raise ValueError(f'{a.name} and {b.name} do not answer the same images')
    weights = patient_weights(a.patients, resamples=resamples, seed=seed)
    points, draws = [], []
    for row in (a, b):
        points.append(metrics.metrics(row.labels, row.scores, row.predictions))
        draws.append(metrics.values(row.labels, row.scores, row.predictions, weights))
    result = {'a': a.name, 'b': b.name}
    ci95 = {}
    for name in DELTAS:
        defined = points[0][name] is not None and points[1][name] is not None
        result[f'delta_{name}'] = points[0][name] - points[1][name] if defined else None
        ci95[f'delta_{name}'] = interval(draws[0][name] - draws[1][name]) if defined else None
    result['ci95'] = ci95
    result['mcnemar_p'] = mcnemar(a.predictions == a.labels, b.predictions == b.labels)
    result['verdict'] = verdict(a.name, b.name, result['delta_f1'], ci95['delta_f1'], len(a.ids))
    return result


def verdict(a: str, b: str, delta: float | None, ci95: list[float] | None, n: int) -> str:
    """What the F1 interval says, in one sentence."""
    if delta is None or ci95 is None:
        return f'{a} − {b}: ΔF1 undefined at n={n}'
    low, high = ci95
    if low > 0:
        outcome = f'{a} is better'
    elif high < 0:
        outcome = f'{b} is better'
    else:
        outcome = 'not decided'
    return (f'{a} − {b}: ΔF1 {_signed(delta)} [{_signed(low)}, {_signed(high)}], '
            f'{outcome} at n={n}')


def _signed(value: float) -> str:
    return f'{value:+.2f}'.replace('-', '−')
