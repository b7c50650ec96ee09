"""From scores on disk to answers and facts; what was chosen on validation is only applied."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from repdiff import scores
from repdiff.eval import intervals, metrics, patients, trust
from repdiff.eval.answers import ANSWERS, Answers, write_answers, write_predictions
from repdiff.files import write_json
from repdiff.zeroshot import rules
from repdiff.zeroshot.decision import Decision
from repdiff.zeroshot.rules import Rule

TITLES = {
    'rc_ldt': 'RC-LDT, our best recipe',
    'rc_ldt_paper': "RC-LDT, the paper's recipe",
    'unconditional_ldt': 'Unconditional LDT',
    'ldt_from_scratch': 'LDT from scratch',
    'rc_ldt_prototypes': 'RC-LDT, prototypes of r, not tuned',
    'dinov2': 'DINOv2 on our images, fine-tuned',
    'dinov2_probe': 'DINOv2 on our images, linear probe',
    'vit': 'ViT from scratch',
    'resnet': 'ResNet from scratch',
    'rc_ldt_probe': "Linear probe of RC-LDT's r",
    'ldt_probe': "Linear probe of the unconditional LDT's features",
}


def answer(row: str, workdir: Path, seed: int) -> Answers:
    """The row's answers on the test split, from scores/ROW.npz, ROW.rule.json and ROW.json."""
    found, decision, facts = scores.read(workdir, row)
    plain, labels, valid_labels = found['test_scores'], found['test_labels'], found['valid_labels']
    facts |= {
        'title': TITLES.get(row, row),
        'floor': False,
        'seed': seed,
        'rule': {
            'name': decision.rule.name if decision.rule else facts['scored'],
            'threshold': decision.cut,
            'valid_auroc': rules.auroc(found['valid_scores'], valid_labels),
        },
        'argmin': metrics.decision_metrics(labels, plain.argmax(1), plain.shape[1]),
    }
    if decision.rule:
        facts |= _of_the_sweep(found, decision.rule, facts)
    return patients.with_patients(
        Answers(row, found['test_ids'], found['test_patients'], labels,
                decision.probabilities(plain), decision.classify(plain),
                facts | of_the_test(row, [workdir])),
        found['valid_patients'], valid_labels, decision.probabilities(found['valid_scores']),
    )


def _of_the_sweep(found: dict[str, np.ndarray], rule: Rule, facts: dict) -> dict[str, Any]:
    """What is to be said of a denoiser's rule and of its sweep over t."""
    t = found['t']
    return {
        'rule': facts['rule'] | {'t': rule.t.tolist(), 'weights': rule.weights.tolist()},
        'auroc_over_t': {
            't': np.unique(t).tolist(),
            'valid': rules.auroc_over_t(t, found['sweep_errors'][..., 0], found['valid_labels']),
        },
    }


def of_the_test(row: str, workdirs: Sequence[Path]) -> dict[str, Any]:
    """Facts "trust" and, of a denoiser, "draws" of the row's test images in all these workdirs.

    Each workdir's images are answered by its own decision. What is put together is on one scale:
    probabilities, and log odds beyond the cut.
    """
    runs = [scores.read(workdir, row) for workdir in workdirs]
    labels, raw, calibrated, predictions, confidence = (
        np.concatenate(part) for part in zip(*(_stated(*run) for run in runs), strict=True))
    made = {'trust': {
        'raw': trust.reliability(labels, raw),
        'calibrated': trust.reliability(labels, calibrated),
        'selective': trust.selective(labels, predictions, confidence),
    }}
    _, decision, facts = runs[0]
    if decision.rule:
        drawn = np.concatenate([found['test_draws'] for found, _, _ in runs])
        made['draws'] = facts['draws'] | {'mean': float(drawn.mean()),
                                          'images': np.bincount(drawn.max(1)).tolist()}
    return made


def _stated(found: dict[str, np.ndarray], decision: Decision, facts: dict) -> tuple:
    """Labels, raw and calibrated probabilities, predictions and confidence of the test images."""
    plain = found['test_scores']
    return (found['test_labels'], decision.raw_probabilities(plain, facts['dimensions']),
            decision.probabilities(plain), decision.classify(plain), decision.confidence(plain))


def write(workdir: Path, config: ConfigDict, dataset: dict[str, Any], rows: Sequence[Answers],
          **more: Any) -> None:
    """predictions.csv, scores/answers.npz and results.json, with every pair of rows compared.

    dataset: what results.json says of the data. more: further keys of results.json. The first row's
    verdicts are printed.
    """
    write_predictions(workdir / 'predictions.csv', rows)
    write_answers(workdir / ANSWERS, rows)
    bootstrap = {'resamples': config.eval.bootstrap, 'seed': config.seed}
    measured = [intervals.measure([row], **bootstrap) for row in rows]
    comparisons = [intervals.compare(a, b) for a, b in itertools.combinations(measured, 2)]
    write_json(workdir / 'results.json', {
        'dataset': dataset, 'models': [intervals.entry(row) for row in measured],
        'comparisons': comparisons, **more,
    })
    for comparison in comparisons[:len(rows) - 1]:
        print('\n'.join(comparison['verdicts'].values()))


def dataset(info: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json says of a data set, from its `info`; "arrangement" are sentences."""
    found = {name: info[name] for name in ('name', 'simulated', 'classes', 'splits')}
    return found | {'arrangement': info.get('arrangement', [])}
