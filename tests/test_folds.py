"""Folds: what is said of a row that every fold trained anew."""

import json
import re

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from configs import hematoma
from repdiff import folds
from repdiff.eval import intervals
from repdiff.eval.answers import ANSWERS, Answers, write_answers
from repdiff.files import write_json
from repdiff.report import summary


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
