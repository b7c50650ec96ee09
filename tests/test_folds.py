"""Folds: what is said of a row that every fold trained anew."""

import pytest

from repdiff import folds


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
