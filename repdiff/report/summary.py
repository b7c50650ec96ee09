"""Several runs of one config with other seeds: means with spreads, and what they decide together."""

import os
from collections.abc import Sequence
from pathlib import Path

from repdiff.errors import UserError
from repdiff.eval import intervals
from repdiff.eval.answers import ANSWERS, read_answers
from repdiff.report.page import COLUMNS, spread
from repdiff.report.workdir import Run, load

METRICS = ('auroc', 'f1', 'accuracy')


def table(workdirs: Sequence[str | os.PathLike]) -> str:
    """A Markdown table of mean ± sample standard deviation over the runs, rows in their order.

    A second one is of the answers a patient, where there are such. Raises UserError where a workdir
    has no results or other rows than the first.
    """
    runs = _load(workdirs)
    lines = [
        f'| row ({len(runs)} seeds) | AUROC | F1 | accuracy | F1 of the plain argmin |',
        '|---|---|---|---|---|',
    ]
    for index, name in enumerate(row['name'] for row in runs[0].rows):
        rows = [run.rows[index] for run in runs]
        cells = [spread([row[metric] for row in rows]) for metric in METRICS]
        cells.append(spread([row.get('argmin', {}).get('f1') for row in rows]))
        lines.append(f'| `{name}` | {" | ".join(cells)} |')
    by_patient = [[run.rows[index].get('patients') for run in runs]
                  for index in range(len(runs[0].rows))]
    if any(None not in rows for rows in by_patient):
        words = ' | '.join(COLUMNS[metric][0] for metric in METRICS)
        lines += ['', f'| by patient | {words} |', '|---|---|---|---|']
    for rows in by_patient:
        if None not in rows:
            cells = [spread([row[metric] for row in rows]) for metric in METRICS]
            lines.append(f'| `{rows[0]["name"]}` | {" | ".join(cells)} |')
    return '\n'.join(lines)


def verdicts(workdirs: Sequence[str | os.PathLike]) -> str:
    """A sentence a metric and comparison: the first row's mean difference from each other row.

    The intervals are of resamples of patients, each drawn for all runs that test it. Raises
    UserError as `table`, and where a run's answers are missing.
    """
    runs = _load(workdirs)
    answers = [read_answers(Path(path) / ANSWERS) for path in workdirs]
    bootstrap = {'resamples': runs[0].config['eval']['bootstrap'], 'seed': runs[0].config['seed']}
    lines = []
    for index in range(1, len(answers[0])):
        pairs = [(run[0], run[index]) for run in answers]
        lines += intervals.compare_runs(pairs, **bootstrap)['verdicts'].values()
    return '\n'.join(lines)


def _load(workdirs: Sequence[str | os.PathLike]) -> list[Run]:
    runs = [load(path) for path in workdirs]
    names = [row['name'] for row in runs[0].rows]
    for path, run in zip(workdirs, runs, strict=True):
        if not run.rows:
            raise UserError(f'{path}: has no results.json yet; finish the run first.')
        if [row['name'] for row in run.rows] != names:
            raise UserError(f'{path}: has other rows than {workdirs[0]}; compare equal configs.')
    return runs
