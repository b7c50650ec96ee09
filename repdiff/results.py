"""From scores on disk to answers and facts; what was chosen on validation is only applied."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from repdiff.classify import read_decision
from repdiff.eval import intervals, metrics, patients, trust
from repdiff.eval.answers import ANSWERS, Answers, write_answers, write_predictions
from repdiff.files import write_json
from repdiff.zeroshot import rules

TITLES = {
    'rc_ldt': 'RC-LDT, our best recipe',
    'rc_ldt_paper': "RC-LDT, the paper's recipe",
    'unconditional_ldt': 'Unconditional LDT',
    'ldt_from_scratch': 'LDT from scratch',
    'rc_ldt_prototypes': 'RC-LDT, prototypes of r, not tuned',
}


def answer(row: str, workdir: Path, seed: int) -> Answers:
    """The row's answers on the test split, from scores/ROW.npz, ROW.rule.json and ROW.json."""
    with np.load(workdir / 'scores' / f'{row}.npz') as file:
        found = dict(file)
    facts = json.loads((workdir / 'scores' / f'{row}.json').read_text())
    decision = read_decision(workdir, row)
    plain, labels, valid_labels = found['test_scores'], found['test_labels'], found['valid_labels']
    rule, t = decision.rule, found['t']
    facts |= {
        'title': TITLES.get(row, row),
        'floor': False,
        'seed': seed,
        'rule': {
            'name': rule.name,
            't': rule.t.tolist(),
            'weights': rule.weights.tolist(),
            'threshold': decision.cut,
            'valid_auroc': rules.auroc(found['valid_scores'], valid_labels),
        },
        'argmin': metrics.decision_metrics(labels, plain.argmax(1), plain.shape[1]),
        'auroc_over_t': {
            't': np.unique(t).tolist(),
            'valid': rules.auroc_over_t(t, found['sweep_errors'][..., 0], valid_labels),
        },
        'draws': facts['draws'] | {'mean': float(found['test_draws'].mean()),
                                   'images': np.bincount(found['test_draws'].max(1)).tolist()},
    }
    probabilities, predictions = decision.probabilities(plain), decision.classify(plain)
    facts['trust'] = {
        'raw': trust.reliability(labels, decision.raw_probabilities(plain, facts['dimensions'])),
        'calibrated': trust.reliability(labels, probabilities),
        'selective': trust.selective(labels, predictions, decision.confidence(plain)),
    }
    return patients.with_patients(
        Answers(row, found['test_ids'], found['test_patients'], labels, probabilities, predictions,
                facts),
        found['valid_patients'], valid_labels, decision.probabilities(found['valid_scores']),
    )


def write(workdir: Path, config: ConfigDict, dataset: dict[str, Any], rows: Sequence[Answers],
          **more: Any) -> None:
    """predictions.csv, scores/answers.npz and results.json; the first row is compared with the rest.

    dataset: what results.json says of the data. more: further keys of results.json. The verdicts
    are printed.
    """
    write_predictions(workdir / 'predictions.csv', rows)
    write_answers(workdir / ANSWERS, rows)
    bootstrap = {'resamples': config.eval.bootstrap, 'seed': config.seed}
    comparisons = [intervals.compare(rows[0], other, **bootstrap) for other in rows[1:]]
    write_json(workdir / 'results.json', {
        'dataset': dataset, 'models': [intervals.entry(row, **bootstrap) for row in rows],
        'comparisons': comparisons, **more,
    })
    for comparison in comparisons:
        print('\n'.join(comparison['verdicts'].values()))


def dataset(info: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json says of a data set, from its `info`; "arrangement" are sentences."""
    found = {name: info[name] for name in ('name', 'simulated', 'classes', 'splits')}
    return found | {'arrangement': info.get('arrangement', [])}
