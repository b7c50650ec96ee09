"""What a test split of this size can decide: intervals, paired differences, McNemar's test.

Slices of one patient resemble each other, so the bootstrap draws patients, never slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from repdiff.eval import metrics
from repdiff.eval.answers import Answers

DELTAS = {'f1': 'F1', 'accuracy': 'accuracy', 'auroc': 'AUROC'}  # compared, and its words


@dataclass(frozen=True)
class Measured:
    """A row in one run, or in several of other seeds, with its metrics under resampled patients.

    points: `metrics.metrics` of each run. drawn: of each run, name -> (R,) of the resamples.
    by_patient: the same of the answers a patient, where every run has such.
    """
    runs: tuple[Answers, ...]
    points: list[dict]
    drawn: list[dict[str, np.ndarray]]
    by_patient: 'Measured | None'


def measure(runs: Sequence[Answers], *, resamples: int, seed: int) -> Measured:
    """Metrics and their bootstrap: all that `entry` and every `compare` of the row needs.

    A patient who is tested in several runs is drawn for all of them at once.
    """
    patients = np.concatenate([run.patients for run in runs])
    weights = np.split(patient_weights(patients, resamples=resamples, seed=seed),
                       np.cumsum([len(run.ids) for run in runs])[:-1], axis=1)
    given = [(run.labels, run.scores, run.predictions) for run in runs]
    people = [run.by_patient for run in runs]
    return Measured(
        tuple(runs),
        [metrics.metrics(*each, run.folds) for each, run in zip(given, runs, strict=True)],
        [metrics.values(*each, drawn, run.folds)
         for each, drawn, run in zip(given, weights, runs, strict=True)],
        measure(people, resamples=resamples, seed=seed)
        if all(each is not None for each in people) else None,
    )


def entry(row: Measured) -> dict:
    """A row's entry of results.json, of one run: its name, facts, metrics and "ci95".

    Intervals are of the percentile bootstrap. "patients" is the same of its answers a patient,
    where there are such.
    """
    (answers,), (point,), (drawn,) = row.runs, row.points, row.drawn
    ci95 = {name: interval(drawn[name]) if point[name] is not None else None
            for name in metrics.NAMES}
    result = {'name': answers.name, **answers.facts, **point, 'ci95': ci95}
    if row.by_patient is not None:
        result['patients'] = entry(row.by_patient)
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


def compare(a: Measured, b: Measured) -> dict:
    """a minus b on the same images: an entry of results.json's "comparisons".

    {"a", "b", "delta_accuracy", "delta_f1", "delta_auroc", "ci95": {"delta_accuracy": [lo, hi],
    ...}, "better": {"accuracy": its name, or None where not decided, ...}, "mcnemar_p", "verdicts":
    {"f1", ...}}; "patients" is the same of the answers a patient, where both rows have
    such. Intervals are of paired resamples over patients; McNemar's test counts
    answers. Of several runs, the mean difference: without McNemar's test, and with each run's own
    difference and interval in the verdicts. Both rows must have been measured with one seed. Raises
    ValueError unless they answer the same images in the same order.
    """
    for one, other in zip(a.runs, b.runs, strict=True):
        if not (np.array_equal(one.ids, other.ids) and np.array_equal(one.labels, other.labels)):
            raise ValueError(f'{one.name} and {other.name} do not answer the same images')
    result = {'a': a.runs[0].name, 'b': b.runs[0].name, 'ci95': {}, 'better': {},
              'verdicts': {}}
    for name, words in DELTAS.items():
        each = _column(a.points, name) - _column(b.points, name)  # (runs,)
        drawn = np.stack([x[name] - y[name] for x, y in zip(a.drawn, b.drawn, strict=True)])
        delta = metrics.plain(each.mean())
        ci95 = None if delta is None else interval(drawn.mean(axis=0))
        result[f'delta_{name}'], result['ci95'][f'delta_{name}'] = delta, ci95
        result['better'][name] = better = _better(result['a'], result['b'], each, ci95)
        result['verdicts'][name] = verdict(
            f'{result["a"]} − {result["b"]}: Δ{words}', each, ci95, better, size(a.runs),
            [interval(one) for one in drawn])
    if len(a.runs) == 1:
        (one,), (other,) = a.runs, b.runs
        result['mcnemar_p'] = mcnemar(one.predictions == one.labels,
                                      other.predictions == other.labels)
    if a.by_patient is not None and b.by_patient is not None:
        result['patients'] = compare(a.by_patient, b.by_patient)
    return result


def _column(points: Sequence[dict], name: str) -> np.ndarray:
    """One metric of each run, NaN where it is undefined."""
    return np.array([point[name] for point in points], float)


def size(runs: Sequence[Answers]) -> str:
    """How much was tested, in words: n=151 images of 20 patients, 3 seeds."""
    images, patients = (len(np.unique(np.concatenate([getattr(run, part) for run in runs])))
                        for part in ('ids', 'patients'))
    words = f'n={images:,} patients' if images == patients else (
        f'n={images:,} images of {patients:,} patients')
    return words + (f', {len(runs)} seeds' if len(runs) > 1 else '')


def _better(a: str, b: str, each: np.ndarray, ci95: list[float] | None) -> str | None:
    """The row whose lead leaves 0 out of its interval, and is one in every run.

    Runs of other seeds test the same patients, so the interval over patients cannot tell how much
    the luck of training matters.
    """
    if ci95 and ci95[0] > 0 and (each > 0).all():
        return a
    if ci95 and ci95[1] < 0 and (each < 0).all():
        return b
    return None


def verdict(start: str, each: np.ndarray, ci95: list[float] | None, better: str | None, n: str,
            ci95_each: Sequence[list[float] | None]) -> str:
    """What is decided, in one sentence: the mean of the runs' differences and its interval.

    Of several runs also the sample standard deviation, and each difference with its own interval.
    """
    if ci95 is None:
        return f'{start} undefined at {n}'
    spread, alone = '', ''
    if len(each) > 1:
        spread = f' ± {np.std(each, ddof=1):.2f}'
        alone = ': ' + ', '.join(_signed(delta) + _edges(edges)
                                 for delta, edges in zip(each, ci95_each, strict=True))
    outcome = f'{better} is better' if better else 'not decided'
    return f'{start} {_signed(each.mean())}{spread}{_edges(ci95)}, {outcome} at {n}{alone}'


def _edges(ci95: list[float] | None) -> str:
    return f' [{_signed(ci95[0])}, {_signed(ci95[1])}]' if ci95 else ''


def _signed(value: float) -> str:
    return f'{value:+.2f}'.replace('-', '−')
