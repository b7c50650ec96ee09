"""Folds: what is said of a row that every fold trained anew."""

import json
import re

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from configs import hematoma
from repdiff import folds, results, scores
from repdiff.eval import intervals
from repdiff.eval.answers import ANSWERS, Answers, write_answers
from repdiff.files import write_json
from repdiff.report import summary
from repdiff.zeroshot.calibrate import Calibration
from repdiff.zeroshot.decision import Decision
from repdiff.zeroshot.rules import Rule


def entry(seconds, auroc, valid, **confusion):
    return {
        'title': 'A row', 'pretrained': True, 'floor': False, 'seed': 3, 'parameters': 7,
        'train_seconds': seconds, 'eval_seconds': 1.0, 'auroc': auroc, 'f1': 0.5, 'accuracy': 0.5,
        'images_seen': {'tune': 10}, 'train_flops': {'tune': seconds and 2.0 * seconds},
        'neighbours': {'k': 20, 'valid_auroc': valid, 'test_auroc': auroc},
        'rule': {'name': 'of this fold', 'valid_auroc': valid}, 'argmin': {'confusion': confusion},
    }


def test_a_pooled_row_sums_times_and_counts_and_has_the_mean_of_validation():
    found = folds._facts([entry(2.0, 0.5, 0.7, tp=1, fp=2, tn=3, fn=0),
                          entry(3.5, 0.9, 0.8, tp=2, fp=0, tn=1, fn=1)])
    assert (found['train_seconds'], found['eval_seconds']) == (5.5, 2.0)
    assert (found['title'], found['seed'], found['parameters']) == ('A row', 3, 7)
    assert found['argmin']['confusion'] == {'tp': 3, 'fp': 2, 'tn': 4, 'fn': 1}
    assert found['argmin']['accuracy'] == pytest.approx(7 / 10)
    assert found['rule'] == {'name': 'chosen in each fold', 'valid_auroc': pytest.approx(0.75)}
    assert found['folds']['auroc'] == [0.5, 0.9]
    assert (found['images_seen'], found['train_flops']) == ({'tune': 20}, {'tune': 11.0})
    assert found['neighbours'] == pytest.approx({'k': 20, 'valid_auroc': 0.75, 'test_auroc': 0.7})


def answers(name, seed, fold, shift):
    """Of the images of every third patient of thirty, four each; other ones for another seed."""
    owner = np.repeat((np.arange(10) * 3 + fold + seed) % 30, 4)
    labels = (owner // 3 % 2).astype(int)
    rng = np.random.default_rng([seed, fold, len(name)])
    scores = 1 / (1 + np.exp(-rng.normal(shift * (labels - 0.5))))
    ids = np.array([f's{i}-{k % 4}' for k, i in enumerate(owner)])
    return Answers(name, ids, np.array([f'p{i}' for i in owner]), labels, scores,
                   (scores > 0.5).astype(int), {'title': name, 'floor': False, 'seed': seed})


def test_three_seeds_of_three_folds_are_told_of_together(tmp_path, monkeypatch):
    monkeypatch.setattr(folds.report, 'write', lambda workdir: None)
    places, rows = [], {}
    for seed in range(3):
        config = hematoma.get_config('smoke')
        config.seed, config.eval.bootstrap = seed, 20
        places.append(tmp_path / f'seed-{seed}')
        write_json(places[-1] / 'config.json', json.loads(config.to_json()))
        cells = [places[-1] / f'fold-{fold}' for fold in range(3)]
        for fold, cell in enumerate(cells):
            rows[seed, fold] = [answers(name, seed, fold, shift)
                                for name, shift in (('strong', 3.0), ('weak', 1.0))]
            split = {'images': 40, 'patients': 10, 'positives': 20}
            write_answers(cell / ANSWERS, rows[seed, fold])
            write_json(cell / 'card.json', {'data_fingerprint': '', 'phases': {}})
            write_json(cell / 'results.json', {
                'dataset': {'splits': {'train': split, 'test': split}, 'arrangement': []},
                'models': [intervals.entry(intervals.measure([row], resamples=5, seed=0))
                           for row in rows[seed, fold]]})
        folds._pool(config, places[-1], cells)

    # A run's AUROC is the mean of its folds'.
    def auroc(row, weights=None):
        return roc_auc_score(row.labels, row.scores, sample_weight=weights)

    each = np.array([[[auroc(row) for row in rows[seed, fold]] for fold in range(3)]
                     for seed in range(3)]).mean(1)  # (seeds, rows)
    line = summary.table(places).splitlines()[2]
    assert line.startswith(f'| `strong` | {each[:, 0].mean():.3f} ± {each[:, 0].std(ddof=1):.3f} |')

    # Each resample of the patients is of all seeds.
    people = np.unique(np.concatenate([rows[0, fold][0].patients for fold in range(3)]))
    assert len(people) == 30
    drawn = intervals.patient_weights(people, resamples=20, seed=0)
    deltas = [np.mean([auroc(a, draw[np.searchsorted(people, a.patients)])
                       - auroc(b, draw[np.searchsorted(people, b.patients)])
                       for a, b in rows.values()]) for draw in drawn]
    delta = each[:, 0] - each[:, 1]
    text = summary.verdicts(places)
    said = re.search(r'strong − weak: ΔAUROC (.*) ± (.*) \[(.*), (.*)\], strong is better at '
                     'n=120 images of 30 patients, 3 seeds: (.*)', text)
    assert [float(part) for part in said.groups()[:4]] == pytest.approx(
        [delta.mean(), delta.std(ddof=1), *np.percentile(deltas, [2.5, 97.5])], abs=0.0051)
    assert [float(part.split()[0]) for part in said[5].split('], ')] == pytest.approx(
        delta, abs=0.0051)
    assert float(re.search(r'`strong` \| \*\*(.*?)\*\*', text)[1]) == pytest.approx(
        delta.mean(), abs=0.00051)


class Split:
    """What `scores.write` takes of a data set."""

    def __init__(self, labels):
        self.labels = labels

    def load(self, split):
        names = np.arange(self.labels.size).astype(str)
        return {'label': self.labels, 'id': names, 'patient': names}


def test_trust_and_draws_are_of_all_folds_answers_each_by_its_own_decision(tmp_path):
    rng, rule = np.random.default_rng(0), Rule('t', 'l2', False, np.array([5]), *np.ones((2, 1)))
    kept = []
    for fold, (slope, bias, cut) in enumerate(((2.0, -1.0, 0.3), (40.0, 1.0, 0.6))):
        labels, gaps = rng.integers(0, 2, 30 + fold), rng.normal(size=30 + fold) / slope
        drawn = np.full((labels.size, 2), 4 + 4 * fold)
        drawn[0] = 2, 6
        scores.write(tmp_path / str(fold), 'a', Split(labels), {
            'test_scores': np.stack([0 * gaps, gaps], 1), 'test_draws': drawn,
        }, Decision(rule, Calibration(slope, np.array([0, bias])), cut),
            {'dimensions': 3, 'draws': {'budget': 8, 'alpha': 0.1}})
        stated = expit(slope * gaps + bias)
        kept.append((labels, expit(3 * gaps), stated, stated >= cut,
                     np.abs(logit(stated) - logit(cut))))
    labels, raw, stated, called, sure = map(np.concatenate, zip(*kept))
    found = results.of_the_test('a', [tmp_path / '0', tmp_path / '1'])
    for kind, given in (('raw', raw), ('calibrated', stated)):
        bins = np.ceil(given * 15)
        gaps = [abs(np.sum((given - labels)[bins == each])) for each in np.unique(bins)]
        assert found['trust'][kind]['ece'] == pytest.approx(sum(gaps) / 61)
        assert sum(found['trust'][kind]['images']) == 61
    right = (called == labels)[np.argsort(-sure)]
    assert found['trust']['selective']['accuracy'] == pytest.approx(
        np.cumsum(right) / np.arange(1, 62))
    assert found['draws'] == {
        'budget': 8, 'alpha': 0.1, 'mean': pytest.approx((2 * 8 + 29 * 8 + 30 * 16) / 122),
        'images': [0, 0, 0, 0, 29, 0, 2, 0, 30]}
