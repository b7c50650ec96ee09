"""From errors on disk to answers: the rule, calibration and threshold chosen on validation."""

import json
from pathlib import Path

import numpy as np

from repdiff.diffusion.schedule import Schedule
from repdiff.eval import metrics, select
from repdiff.eval.answers import Answers
from repdiff.zeroshot import calibrate, rules

TITLES = {
    'rc_ldt': 'RC-LDT, our best recipe',
    'rc_ldt_paper': "RC-LDT, the paper's recipe",
    'unconditional_ldt': 'Unconditional LDT',
    'ldt_from_scratch': 'LDT from scratch',
}


def answer(row: str, workdir: Path, schedule: Schedule, seed: int) -> Answers:
    """The row's answers on the test split, from scores/ROW.npz and scores/ROW.json.

    Everything chosen is chosen on the validation errors; the test errors are only read out.
    """
    with np.load(workdir / 'scores' / f'{row}.npz') as file:
        scores = dict(file)
    facts = json.loads((workdir / 'scores' / f'{row}.json').read_text())
    t, valid, labels = scores['t'], scores['valid_errors'], scores['valid_labels']
    test, test_labels = scores['test_errors'], scores['test_labels']
    rule = rules.choose(rules.candidates(schedule, t, valid), valid, labels)
    calibration = calibrate.fit(rule.scores(valid), labels)
    plain = rule.scores(test)
    probabilities, on_valid = (
        calibration.probabilities(part) for part in (plain, rule.scores(valid))
    )
    classes, cut = probabilities.shape[1], None
    if classes == 2:
        probabilities, on_valid = probabilities[:, 1], on_valid[:, 1]
        cut = select.threshold(labels, on_valid)
    distinct = np.unique(t)
    facts |= {
        'title': TITLES.get(row, row),
        'floor': False,
        'seed': seed,
        'rule': {
            'name': rule.name,
            't': [int(step) for step in np.unique(t[rule.weights > 0])],
            'threshold': cut,
            'valid_auroc': rules.auroc(rule.scores(valid), labels),
        },
        'argmin': metrics.decision_metrics(test_labels, plain.argmax(1), classes),
        'auroc_over_t': {
            't': [int(step) for step in distinct],
            'valid': rules.auroc_over_t(t, valid, labels),
            'test': rules.auroc_over_t(t, test, test_labels),
        },
    }
    return Answers(
        row, scores['test_ids'], scores['test_patients'], test_labels, probabilities,
        select.classify(probabilities, cut), facts,
    )
