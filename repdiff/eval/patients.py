"""From slices to people: one answer a patient, by an aggregate and a threshold of validation."""

from collections.abc import Callable

import numpy as np

from repdiff.eval import metrics, select
from repdiff.eval.answers import Answers

# Of equally good ones on validation the first is taken. A finding in one slice is one in the
# patient; the mean of three forgives a single slice that errs.
AGGREGATES: dict[str, Callable[[np.ndarray], float]] = {
    'max': np.max,
    'mean of the top 3': lambda scores: np.sort(scores)[-3:].mean(),
    'mean': np.mean,
}


def aggregate(patients: np.ndarray, labels: np.ndarray, scores: np.ndarray,
              how: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names (P,), labels (P,) and scores (P,) of patients; one with a positive slice is positive.

    patients (B,) str, labels (B,) 0 or 1, scores (B,) probability of class 1.
    """
    names, owner = np.unique(patients, return_inverse=True)
    members = [np.flatnonzero(owner == i) for i in range(len(names))]
    return (names, np.array([labels[each].max() for each in members]),
            np.array([AGGREGATES[how](scores[each]) for each in members]))


def with_patients(test: Answers, patients: np.ndarray, labels: np.ndarray,
                  scores: np.ndarray) -> Answers:
    """`test` with `by_patient`, its answers a patient; the arrays are those of validation.

    The aggregate of highest validation AUROC and its threshold of highest F1 are applied to test.
    As it is where there is nothing to choose by or to answer: more than two classes, a patient for
    each image, or no two kinds of patients on validation.
    """
    alone = len(np.unique(test.patients)) == len(test.patients)
    if test.scores.ndim > 1 or alone:
        return test
    best = None
    for how in AGGREGATES:
        _, found, summed = aggregate(patients, labels, scores, how)
        auroc = metrics.metrics(found, summed, found)['auroc']
        if auroc is None:
            return test
        if best is None or auroc > best[0]:
            best = auroc, how, select.threshold(found, summed)
    auroc, how, cut = best
    names, found, summed = aggregate(test.patients, test.labels, test.scores, how)
    facts = {'aggregate': how, 'threshold': cut, 'valid_auroc': auroc}
    return test.replace(by_patient=Answers(
        test.name, names, names, found, summed, select.classify(summed, cut), facts))
