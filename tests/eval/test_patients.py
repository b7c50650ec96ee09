"""Answers a patient: aggregates by hand, chosen on validation alone."""

import numpy as np
import pytest
from sklearn import metrics as reference

from repdiff.eval import intervals, patients
from repdiff.eval.answers import Answers, pooled, read_answers, write_answers

NAMES = np.array(['b', 'a', 'a', 'b', 'b', 'b', 'c'])
LABELS = np.array([0, 0, 1, 0, 0, 0, 0])
SCORES = np.array([0.1, 0.2, 0.6, 0.5, 0.3, 0.4, 0.9])


@pytest.mark.parametrize('how, expected', [
    ('max', [0.6, 0.5, 0.9]),
    ('mean of the top 3', [0.4, 0.4, 0.9]),
    ('mean', [0.4, 0.325, 0.9]),
])
def test_aggregates_by_hand(how, expected):
    names, labels, scores = patients.aggregate(NAMES, LABELS, SCORES, how)
    assert names.tolist() == ['a', 'b', 'c'] and labels.tolist() == [1, 0, 0]
    assert scores == pytest.approx(expected)


def row(seed, people=40, slices=10, noise=1.0):
    """Positive patients have two positive slices; noisy scores."""
    rng = np.random.default_rng(seed)
    owner = np.repeat([f'p{i:02d}' for i in range(people)], slices)
    labels = ((np.arange(people * slices) % slices < 2)
              & (np.arange(people * slices) // slices % 3 == 0)).astype(int)
    scores = 1 / (1 + np.exp(-(3 * labels - 2 + noise * rng.normal(size=labels.size))))
    ids = np.array([f's{i}' for i in range(labels.size)])
    return Answers('a', ids, owner, labels, scores, (scores > 0.5).astype(int))


def test_the_aggregate_is_the_best_on_validation_and_test_is_not_looked_at():
    test, valid = row(0), row(1)
    found = patients.with_patients(test, valid.patients, valid.labels, valid.scores).by_patient
    aurocs = {}
    for how in patients.AGGREGATES:
        _, labels, scores = patients.aggregate(valid.patients, valid.labels, valid.scores, how)
        aurocs[how] = reference.roc_auc_score(labels, scores)
    assert found.facts['aggregate'] == max(aurocs, key=aurocs.get)
    assert found.facts['valid_auroc'] == pytest.approx(max(aurocs.values()))
    assert found.predictions.tolist() == (found.scores >= found.facts['threshold']).tolist()
    other = test.replace(labels=1 - test.labels)
    again = patients.with_patients(other, valid.patients, valid.labels, valid.scores).by_patient
    assert again.facts == found.facts and (again.predictions == found.predictions).all()
    measured = intervals.measure([test.replace(by_patient=found)], resamples=50, seed=0)
    entry = intervals.entry(measured)['patients']
    assert sum(entry['confusion'].values()) == 40 and entry['ci95']['auroc'] is not None


def test_a_patient_an_image_or_one_kind_of_patients_has_no_answers_a_patient():
    test, valid = row(0), row(1)
    alone = test.replace(patients=test.ids)
    negative = np.zeros_like(valid.labels)
    for answers, labels in ((alone, valid.labels), (test, negative)):
        assert patients.with_patients(
            answers, valid.patients, labels, valid.scores).by_patient is None


def test_answers_survive_their_file_and_are_pooled(tmp_path):
    valid = row(2)
    rows = [patients.with_patients(row(seed), valid.patients, valid.labels, valid.scores)
            for seed in (0, 1)]
    write_answers(tmp_path / 'answers.npz', [rows[0], row(1).replace(name='floor')])
    back, floor = read_answers(tmp_path / 'answers.npz')
    assert (back.scores == rows[0].scores).all() and back.ids.tolist() == rows[0].ids.tolist()
    assert (back.by_patient.scores == rows[0].by_patient.scores).all()
    assert floor.name == 'floor' and floor.by_patient is None
    both = pooled(rows, {'title': 'A'})
    assert len(both.ids) == 800 and len(both.by_patient.ids) == 80 and both.facts['title'] == 'A'
    assert pooled([rows[0], row(1)], {}).by_patient is None


def test_ranking_is_within_folds_and_counts_are_of_all_together():
    runs = [row(0), row(1).replace(scores=row(1).scores * 0.3)]  # on a scale of its own
    both = pooled(runs, {})
    entry = intervals.entry(intervals.measure([both], resamples=20, seed=0))
    each = [reference.roc_auc_score(run.labels, run.scores) for run in runs]
    assert entry['auroc'] == pytest.approx(np.mean(each))
    labels, called = both.labels, both.predictions
    assert entry['f1'] == pytest.approx(reference.f1_score(labels, called))
    constant = pooled([run.replace(scores=np.full(len(run.ids), run.labels[:99].mean() / 2 + i))
                       for i, run in ((0, row(0)), (0.3, row(1)))], {})
    assert intervals.entry(intervals.measure([constant], resamples=20, seed=0))['auroc'] == 0.5
