"""Bootstrap against a brute-force loop, McNemar against scipy, comparisons by hand."""

import itertools
import re
import time

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from repdiff.eval import intervals, metrics
from repdiff.eval.answers import Answers, read_predictions, write_predictions


def random_row(name, seed, rows=300, patients=60, shift=1.0):
    owner = np.arange(rows) % patients
    labels = (np.random.default_rng(9).random(patients) < 0.3)[owner].astype(int)
    logit = np.random.default_rng(seed).normal(size=rows) + shift * (labels - 0.5)
    scores = 1 / (1 + np.exp(-logit))
    return Answers(name, np.array([f's{i}' for i in range(rows)]),
                   np.array([f'p{i}' for i in owner]), labels, scores, (scores > 0.5).astype(int))


def entry(row, resamples):
    return intervals.entry(intervals.measure([row], resamples=resamples, seed=0))


def compare(a, b, resamples, seed=0):
    return intervals.compare(*(intervals.measure(
        runs if isinstance(runs, list) else [runs], resamples=resamples, seed=seed)
        for runs in (a, b)))


def test_bootstrap_equals_a_loop_over_patients():
    row = random_row('a', 0)
    weights = intervals.patient_weights(row.patients, resamples=40, seed=3)
    drawn = []
    for counts in weights.astype(int):
        pick = np.repeat(np.arange(len(row.ids)), counts)
        drawn.append([reference.roc_auc_score(row.labels[pick], row.scores[pick]),
                      reference.f1_score(row.labels[pick], row.predictions[pick]),
                      reference.average_precision_score(row.labels[pick], row.scores[pick])])
    found = intervals.entry(intervals.measure([row], resamples=40, seed=3))
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    for i, name in enumerate(['auroc', 'f1', 'average_precision']):
        assert found['ci95'][name] == pytest.approx([low[i], high[i]], abs=1e-12)


def test_a_resample_draws_whole_patients_as_many_as_there_are():
    patients = np.array(['a', 'a', 'b', 'c', 'c', 'c'])
    weights = intervals.patient_weights(patients, resamples=50, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
    again = intervals.patient_weights(patients, resamples=50, seed=0)
    other = intervals.patient_weights(patients, resamples=50, seed=1)
    assert (weights == again).all() and (weights != other).any()


def test_intervals_of_clustered_slices_are_wider_than_of_independent_ones():
    row = random_row('a', 0, rows=400, patients=20)
    alone = Answers(row.name, row.ids, row.ids, row.labels, row.scores, row.predictions)
    width = [np.diff(entry(each, 400)['ci95']['precision'])
             for each in (row, alone)]
    assert width[0] > 1.3 * width[1]


@pytest.mark.parametrize('only_a, only_b', [(0, 0), (5, 1), (3, 14), (8, 8)])
def test_mcnemar_equals_the_exact_binomial_test(only_a, only_b):
    a = np.repeat([True, True, False, False], [20, only_a, only_b, 4])
    b = np.repeat([True, False, True, False], [20, only_a, only_b, 4])
    n, k = only_a + only_b, min(only_a, only_b)
    expected = min(1.0, 2 * stats.binom.cdf(k, n, 0.5))
    assert intervals.mcnemar(a, b) == pytest.approx(expected)


def test_compare_is_paired_and_says_what_is_decided():
    good, poor = random_row('good', 1, shift=4.0), random_row('poor', 2, shift=0.2)
    result = compare(good, poor, 300)
    point = [metrics.metrics(r.labels, r.scores, r.predictions)['f1'] for r in (good, poor)]
    assert result['delta_f1'] == pytest.approx(point[0] - point[1])
    assert result['ci95']['delta_f1'][0] > 0 and result['mcnemar_p'] < 0.01
    assert result['verdicts']['f1'].startswith('good − poor: ΔF1 +')
    for verdict in result['verdicts'].values():
        assert verdict.endswith('good is better at n=300 images of 60 patients')
    back = compare(poor, good, 300)
    assert back['verdicts']['auroc'].startswith('poor − good: ΔAUROC −')
    assert back['verdicts']['auroc'].endswith('good is better at n=300 images of 60 patients')
    assert back['ci95']['delta_auroc'] == pytest.approx(
        [-edge for edge in result['ci95']['delta_auroc'][::-1]])
    same = compare(good, good, 50)
    assert same['ci95']['delta_f1'] == [0, 0] and same['mcnemar_p'] == 1
    assert same['verdicts']['accuracy'] == (
        'good − good: Δaccuracy +0.00 [+0.00, +0.00], not decided at n=300 images of 60 patients')


def test_paired_differences_equal_a_loop_over_patients():
    a, b = random_row('a', 1), random_row('b', 2)
    weights = intervals.patient_weights(a.patients, resamples=30, seed=5)
    differences = []
    for counts in weights.astype(int):
        pick = np.repeat(np.arange(len(a.ids)), counts)
        differences.append([
            reference.f1_score(a.labels[pick], a.predictions[pick])
            - reference.f1_score(b.labels[pick], b.predictions[pick]),
            reference.roc_auc_score(a.labels[pick], a.scores[pick])
            - reference.roc_auc_score(b.labels[pick], b.scores[pick])])
    found = compare(a, b, 30, seed=5)
    low, high = np.percentile(differences, [2.5, 97.5], axis=0)
    for i, name in enumerate(['f1', 'auroc']):
        assert found['ci95'][f'delta_{name}'] == pytest.approx([low[i], high[i]], abs=1e-12)


def test_runs_of_several_seeds_are_averaged_and_their_patients_drawn_together():
    a, b = ([random_row(name, start + seed, shift=shift) for seed in range(3)]
            for name, start, shift in (('a', 0, 1.0), ('b', 10, 0.5)))
    found, each = compare(a, b, 200), [compare(x, y, 200) for x, y in zip(a, b, strict=True)]
    deltas = [one['delta_f1'] for one in each]
    assert found['delta_f1'] == pytest.approx(np.mean(deltas)) and 'mcnemar_p' not in found
    start, alone = found['verdicts']['f1'].split(' at n=300 images of 60 patients, 3 seeds: ')
    assert f' ± {np.std(deltas, ddof=1):.2f} [' in start
    assert alone == ', '.join(re.search('ΔF1 (.*?]),', one['verdicts']['f1'])[1] for one in each)
    again = compare(a[:1] * 3, b[:1] * 3, 200)
    assert again['ci95'] == each[0]['ci95']  # the same answers thrice know nothing more
    def width(one):
        return np.diff(one['ci95']['delta_auroc'])[0]
    assert width(found) < np.mean([width(one) for one in each])


def test_a_row_is_better_only_if_every_seed_says_so():
    good, poor = random_row('good', 1, shift=4.0), random_row('poor', 2, shift=0.2)
    assert compare([good] * 3, [poor] * 3, 50)['better']['f1'] == 'good'
    found = compare([good, good, poor], [poor, poor, good], 50)
    assert found['ci95']['delta_f1'][0] > 0 and found['better']['f1'] is None
    assert 'not decided at' in found['verdicts']['f1']


def test_compare_refuses_rows_of_other_images():
    a, b = random_row('a', 1), random_row('b', 1, rows=299)
    with pytest.raises(ValueError, match='same images'):
        compare(a, b, 10)


def test_one_class_has_no_interval():
    row = random_row('a', 1)
    row = Answers('a', row.ids, row.patients, np.zeros_like(row.labels), row.scores,
                  row.predictions, {'title': 'A'})
    found = entry(row, 20)
    assert found['auroc'] is found['ci95']['auroc'] is None and found['title'] == 'A'
    assert compare(row, row, 20)['delta_auroc'] is None


def test_five_models_of_a_thousand_images_and_their_pairs_take_seconds():
    rows = [random_row(f'm{i}', i, rows=1000, patients=1000) for i in range(5)]
    began = time.process_time()
    measured = [intervals.measure([row], resamples=2000, seed=0) for row in rows]
    for a, b in itertools.combinations(measured, 2):
        intervals.compare(a, b)
    assert time.process_time() - began < 10


def test_predictions_survive_their_file(tmp_path):
    rows = [random_row('a', 1, rows=20), random_row('b', 2, rows=20)]
    write_predictions(tmp_path / 'predictions.csv', rows)
    back = read_predictions(tmp_path / 'predictions.csv')
    assert list(back) == ['a', 'b']
    for row in rows:
        assert back[row.name].scores == pytest.approx(row.scores, rel=1e-8)
        assert (back[row.name].ids == row.ids).all()
        assert (back[row.name].predictions == row.predictions).all()
