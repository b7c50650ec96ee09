"""Several runs of one config with other seeds, as one table: mean ± standard deviation a row."""

import os
from collections.abc import Sequence

import numpy as np

from repdiff.errors import UserError
from repdiff.report.workdir import load

METRICS = ('auroc', 'f1', 'accuracy')


def table(workdirs: Sequence[str | os.PathLike]) -> str:
    """A Markdown table of mean ± sample standard deviation over the runs, rows in their order.

    Raises UserError where a workdir has no results or other rows than the first.
    """
    runs = [load(path) for path in workdirs]
    names = [row['name'] for row in runs[0].rows]
    for path, run in zip(workdirs, runs, strict=True):
        if not run.rows:
            raise UserError(f'{path}: has no results.json yet; finish the run first.')
        if [row['name'] for row in run.rows] != names:
            raise UserError(f'{path}: has other rows than {workdirs[0]}; compare equal configs.')
    lines = [
        f'| row ({len(runs)} seeds) | AUROC | F1 | accuracy | F1 of the plain argmin |',
        '|---|---|---|---|---|',
    ]
    for index, name in enumerate(names):
        rows = [run.rows[index] for run in runs]
        cells = [_cell([row[metric] for row in rows]) for metric in METRICS]
        cells.append(_cell([row.get('argmin', {}).get('f1') for row in rows]))
        lines.append(f'| `{name}` | {" | ".join(cells)} |')
    return '\n'.join(lines)


def _cell(values: Sequence[float | None]) -> str:
    if any(value is None for value in values):
        return '–'
    spread = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
    return f'{np.mean(values):.3f}{spread}'
