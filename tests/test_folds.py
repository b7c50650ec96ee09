"""Folds: what is said of a row that every fold trained anew."""

import numpy as np
import pytest
from scipy.special import expit, logit

from repdiff import folds, results, scores
from repdiff.zeroshot.calibrate import Calibration
from repdiff.zeroshot.decision import Decision
from repdiff.zeroshot.rules import Rule


def entry(seconds, auroc, valid, **confusion):
    return {
        'title': 'A row', 'pretrained': True, 'floor': False, 'seed': 3, 'parameters': 7,
        'train_seconds': seconds, 'eval_seconds': 1.0, 'auroc': auroc, 'f1': 0.5, 'accuracy': 0.5,
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
