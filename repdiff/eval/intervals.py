"""What a test split of this size can decide: intervals, paired differences, McNemar's test.

Slices of one patient resemble each other, so the bootstrap draws patients, never slices.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from repdiff.eval import metrics
from repdiff.eval.answers import Answers

DELTAS = {'f1': 'F1', 'accuracy': 'accuracy', 'auroc': 'AUROC'}  # compared, and its words


def entry(answers: Answers, *, resamples: int, seed: int) -> dict:
    """A row's entry of results.json: its name, facts, metrics and "ci95" (percentile bootstrap).

    "patients" is the same of its answers a patient, where there are such.
    """
    weights = patient_weights(answers.patients, resamples=resamples, seed=seed)
    drawn = metrics.values(answers.labels, answers.scores, answers.predictions, weights)
    point = metrics.metrics(answers.labels, answers.scores, answers.predictions)
    ci95 = {name: interval(drawn[name]) if point[name] is not None else None
            for name in metrics.NAMES}
    result = {'name': answers.name, **answers.facts, **point, 'ci95': ci95}
    if answers.by_patient is not None:
        result['patients'] = entry(answers.by_patient, resamples=resamples, seed=seed)
    return result


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
    ...}, "mcnemar_p", "verdicts": {"f1", ...}}; "patients" is the same of the answers a patient,
    where both rows have such. Intervals are of paired resamples over patients; McNemar's test counts
    answers. Raises ValueError unless both rows answer the same images in the same order.
    """
    result = compare_runs([(a, b)], resamples=resamples, seed=seed)
    result['mcnemar_p'] = mcnemar(a.predictions == a.labels, b.predictions == b.labels)
    if a.by_patient is not None and b.by_patient is not None:
        result['patients'] = compare(a.by_patient, b.by_patient, resamples=resamples, seed=seed)
    return result


def compare_runs(runs: Sequence[tuple[Answers, Answers]], *, resamples: int, seed: int) -> dict:
    """As `compare`, without McNemar's test, of the mean difference over runs of several seeds.

    A patient who is tested in several runs is drawn for all of them at once.
    """
    for a, b in runs:
        if not (np.array_equal(a.ids, b.ids) and np.array_equal(a.labels, b.labels)):
            raise ValueError(f'{a.name} and {b.name} do not answer the same images')
    patients = np.concatenate([a.patients for a, _ in runs])
    weights = np.split(patient_weights(patients, resamples=resamples, seed=seed),
                       np.cumsum([len(a.ids) for a, _ in runs])[:-1], axis=1)
    points, draws = [], []
    for pair, drawn in zip(runs, weights, strict=True):
        (point_a, draws_a), (point_b, draws_b) = (
            (metrics.metrics(row.labels, row.scores, row.predictions),
             metrics.values(row.labels, row.scores, row.predictions, drawn)) for row in pair)
        defined = {name: None not in (point_a[name], point_b[name]) for name in DELTAS}
        points.append({name: point_a[name] - point_b[name] if defined[name] else np.nan
                       for name in DELTAS})
        draws.append({name: draws_a[name] - draws_b[name] for name in DELTAS})
    first, second = (row.name for row in runs[0])
    n = size(len({*np.concatenate([a.ids for a, _ in runs])}), len({*patients}), len(runs))
    result = {'a': first, 'b': second, 'ci95': {}, 'verdicts': {}}
    for name, words in DELTAS.items():
        delta = metrics.plain(np.mean([point[name] for point in points]))
        ci95 = None if delta is None else interval(np.mean([each[name] for each in draws], axis=0))
        result[f'delta_{name}'], result['ci95'][f'delta_{name}'] = delta, ci95
        result['verdicts'][name] = verdict(first, second, words, delta, ci95, n)
    return result


def size(images: int, patients: int, runs: int) -> str:
    """How much was tested, in words: n=151 images of 20 patients, 3 seeds."""
    words = f'n={images:,} patients' if images == patients else (
        f'n={images:,} images of {patients:,} patients')
    return words + (f', {runs} seeds' if runs > 1 else '')


def verdict(a: str, b: str, metric: str, delta: float | None, ci95: list[float] | None,
            n: str) -> str:
    """What the interval of a difference says, in one sentence."""
    if delta is None or ci95 is None:
        return f'{a} − {b}: Δ{metric} undefined at {n}'
    low, high = ci95
    if low > 0:
        outcome = f'{a} is better'
    elif high < 0:
        outcome = f'{b} is better'
    else:
        outcome = 'not decided'
    return (f'{a} − {b}: Δ{metric} {_signed(delta)} [{_signed(low)}, {_signed(high)}], '
            f'{outcome} at {n}')


def _signed(value: float) -> str:
    return f'{value:+.2f}'.replace('-', '−')
