"""Several runs of one config with other seeds: means with spreads, and what they decide together."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from repdiff.errors import UserError
from repdiff.eval import intervals
from repdiff.eval.answers import ANSWERS, read_answers
from repdiff.report.page import COLUMNS, signed, spread
from repdiff.report.workdir import Run, load

METRICS = ('auroc', 'f1', 'accuracy')
FURTHER = tuple(metric for metric in COLUMNS if metric not in METRICS)


def table(workdirs: Sequence[str | os.PathLike]) -> str:
    """A Markdown table of mean ± sample standard deviation over the runs, rows in their order.

    A second one is of the other metrics, a third of the answers a patient, where there are such.
    Raises UserError where a workdir has no results or other rows than the first.
    """
    runs = _load(workdirs)
    number = f'{len(runs)} runs' if len(runs) > 1 else '1 run'
    lines = [
        f'| row ({number}) | AUROC | F1 | accuracy | F1 of the plain argmin |',
        '|---|---|---|---|---|',
    ]
    further = ['', f'| row | {" | ".join(COLUMNS[metric][0] for metric in FURTHER)} |',
               '|---' * (1 + len(FURTHER)) + '|']
    for index, name in enumerate(row['name'] for row in runs[0].rows):
        rows = [run.rows[index] for run in runs]
        cells = {metric: spread([row.get(metric) for row in rows]) for metric in COLUMNS}
        plain = spread([row.get('argmin', {}).get('f1') for row in rows])
        lines.append(f'| `{name}` | {" | ".join(cells[metric] for metric in METRICS)} | {plain} |')
        further.append(f'| `{name}` | {" | ".join(cells[metric] for metric in FURTHER)} |')
    lines += further
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
    """Every row against every other, as Markdown tables, and the first one's verdicts as sentences.

    Intervals are of resamples of patients, each drawn for all runs that test it. Raises UserError
    as `table`, and where a run's answers are missing.
    """
    runs = _load(workdirs)
    answers = [read_answers(Path(path) / ANSWERS) for path in workdirs]
    bootstrap = {'resamples': runs[0].config['eval']['bootstrap'], 'seed': runs[0].config['seed']}
    rows = [intervals.measure(row, **bootstrap) for row in zip(*answers, strict=True)]
    pairs = [intervals.compare(a, b) for a, b in itertools.combinations(rows, 2)]
    lines = []
    for metric in METRICS[:2]:
        lines += [*_matrix(pairs, metric), '']
    lines += [f'Mean difference ± standard deviation over {len(runs)} seeds [95 % interval over '
              'the patients, with the models as they were trained]: each seed alone. A row is '
              'better where the interval leaves 0 out and no seed says otherwise.', '']
    for pair in pairs[:len(rows) - 1]:
        lines += pair['verdicts'].values()
    return '\n'.join(lines)


def _matrix(pairs: Sequence[dict], metric: str) -> list[str]:
    """Row minus column, bold where one of them is better."""
    names = list(dict.fromkeys([pairs[0]['a'], *(pair['b'] for pair in pairs)]))
    cells = {}
    for pair in pairs:
        delta = signed(pair[f'delta_{metric}'])
        cells[pair['a'], pair['b']] = f'**{delta}**' if pair['better'][metric] else delta
    head = [f'Δ{COLUMNS[metric][0]}, row − column', *(f'`{name}`' for name in names[1:])]
    lines = [[f'`{a}`', *(cells.get((a, b), '') for b in names[1:])] for a in names[:-1]]
    return [f'| {" | ".join(line)} |' for line in (head, ['---'] * len(names), *lines)]


def _load(workdirs: Sequence[str | os.PathLike]) -> list[Run]:
    runs = [load(path) for path in workdirs]
    names = [row['name'] for row in runs[0].rows]
    for path, run in zip(workdirs, runs, strict=True):
        for name, found in (('results.json', run.rows), ('config.json', run.config)):
            if not found:
                raise UserError(f'{path}: has no {name} yet; finish the run first.')
        if [row['name'] for row in run.rows] != names:
            raise UserError(f'{path}: has other rows than {workdirs[0]}; compare equal configs.')
    seeds = [run.config['seed'] for run in runs]
    for number, seed in enumerate(seeds):
        if seed in seeds[:number]:
            raise UserError(f'{workdirs[number]}: has seed {seed}, as '
                            f'{workdirs[seeds.index(seed)]} has; give one workdir a seed (of '
                            'folds, the one above their fold-I).')
    return runs
