"""One run as the config asks: a single experiment, or every fold of it and then their pooled answers.

A fold is an experiment of its own in WORKDIR/fold-I. Where hosts share WORKDIR, each may run other
folds (`--config.eval.fold=I --workdir=WORKDIR/fold-I`), and the command without `fold` pools them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from repdiff import cluster, experiment, report, results
from repdiff.card import Card
from repdiff.errors import UserError
from repdiff.eval import metrics
from repdiff.eval.answers import ANSWERS, Answers, pooled, read_answers
from repdiff.progress import note

PAGE = 'report/index.html'
SPREAD = ('auroc', 'f1', 'accuracy')  # what is shown fold by fold
KEPT = ('title', 'pretrained', 'floor', 'seed', 'parameters')  # facts of a row in every fold


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs or resumes what the config asks for in `workdir`; what is finished is not run again.

    Raises UserError as `experiment.run`.
    """
    if not config.eval.folds or config.eval.fold >= 0:
        experiment.run(config, workdir)
        return
    cells = [_fold(config, number) for number in range(config.eval.folds)]
    experiment.claim(workdir, config)
    places = [workdir / f'fold-{number}' for number in range(len(cells))]
    for cell, place in zip(cells, places, strict=True):
        note(f'fold {cell.eval.fold + 1} of {len(cells)}')
        finish(cell, place)
    if cluster.is_first():
        _pool(config, workdir, places)
    cluster.wait_for_all('folds')


def finish(config: ConfigDict, workdir: Path) -> None:
    """As `run`, for one of several runs: passes by a workdir that has everything already."""
    experiment.claim(workdir, config)
    done = (workdir / 'results.json').exists() and (workdir / PAGE).exists()
    if not cluster.of_first(np.int32(done)):
        run(config, workdir)
        jax.clear_caches()  # the next run's programs are others


def _fold(config: ConfigDict, number: int) -> ConfigDict:
    cell = config.copy_and_resolve_references().unlock()
    cell.eval.fold = number
    return cell.lock()


def _pool(config: ConfigDict, workdir: Path, places: Sequence[Path]) -> None:
    """Writes the workdir of all folds from theirs."""
    found = [json.loads((place / 'results.json').read_text()) for place in places]
    answers = [read_answers(place / ANSWERS) for place in places]
    rows = []
    for number, row in enumerate(answers[0]):
        runs = [of_fold[number] for of_fold in answers]
        entries = [each['models'][number] for each in found]
        facts = _facts(entries)
        if 'trust' in entries[0]:
            facts |= results.of_the_test(row.name, places)
        rows.append(pooled(runs, facts))
    _check(rows[0], workdir)
    results.write(workdir, config, _dataset(found, rows[0]), rows)
    _card(config, workdir, places)
    report.write(workdir)
    print(f'report: {workdir / PAGE}')


def _facts(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A pooled row's facts: what all folds have, summed budgets, and metrics fold by fold."""
    facts = {key: entries[0][key] for key in KEPT if key in entries[0]}
    for key in entries[0]:
        if key.endswith('_seconds'):
            facts[key] = sum(entry[key] for entry in entries)
    for key in ('images_seen', 'train_flops'):
        if all(key in entry for entry in entries):
            facts[key] = {phase: _sum([entry[key][phase] for entry in entries])
                          for phase in entries[0][key]}
    if all('neighbours' in entry for entry in entries):
        near = [entry['neighbours'] for entry in entries]
        facts['neighbours'] = near[0] | {key: sum(each[key] for each in near) / len(near)
                                         for key in ('valid_auroc', 'test_auroc')}
    if all('argmin' in entry for entry in entries):
        facts['argmin'] = metrics.of_confusions([entry['argmin']['confusion'] for entry in entries])
    if all('valid_auroc' in entry.get('rule', {}) for entry in entries):
        found = [entry['rule']['valid_auroc'] for entry in entries]
        facts['rule'] = {'name': 'chosen in each fold', 'valid_auroc': sum(found) / len(found)}
    return facts | {'folds': {name: [entry[name] for entry in entries] for name in SPREAD}}


def _sum(values: Sequence[float | None]) -> float | None:
    """None where a fold of an earlier version of repdiff left it out."""
    return None if None in values else sum(values)


def _check(row: Answers, workdir: Path) -> None:
    if len(set(row.ids.tolist())) != len(row.ids):
        raise UserError(f'{workdir}: the folds test an image twice, so they were made of different '
                        'data; remove the fold directories and run again.')


def _dataset(found: Sequence[dict[str, Any]], row: Answers) -> dict[str, Any]:
    """The data set of all folds: what they test together, and their mean training splits."""
    first = found[0]['dataset']
    parts = {name: [each['dataset']['splits'][name] for each in found] for name in first['splits']}
    splits = {
        name: {key: round(sum(part[key] for part in of_split) / len(of_split))
               for key in ('images', 'patients', 'positives')}
        for name, of_split in parts.items()
    }
    splits['test'] = {'images': len(row.ids), 'patients': len(set(row.patients.tolist())),
                      'positives': int((row.labels > 0).sum())}
    said = [f'{len(found)} folds, dealt by patient within classes: every patient is tested once, by '
            'a model that saw none of its images. Other splits: the mean of the folds. '
            'Reliability, abstaining and draws are of all answers together, each calibrated in '
            'its own fold.']
    return first | {'splits': splits, 'arrangement': said + first['arrangement'][1:]}


def _card(config: ConfigDict, workdir: Path, places: Sequence[Path]) -> None:
    """card.json, with the seconds of all phases of each fold."""
    cards = [json.loads((place / 'card.json').read_text()) for place in places]
    card = Card(workdir, config, ' '.join(each['data_fingerprint'] for each in cards))
    for place, each in zip(places, cards, strict=True):
        wall = sum(phase['wall_seconds'] for phase in each['phases'].values())
        device = sum(phase['device_seconds'] for phase in each['phases'].values())
        card.phase(place.name, wall, device / wall if wall else 1)
