"""The page: one HTML file that needs nothing else, and the figures beside it as PNG files."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from repdiff.files import write_atomic
from repdiff.progress import duration
from repdiff.report import figures, generated, style
from repdiff.report.workdir import Run, is_floor, load

# Key of results.json -> (words, whether more is better); the headline table's columns.
COLUMNS = {
    'auroc': ('AUROC', True),
    'f1': ('F1', True),
    'accuracy': ('Accuracy', True),
    'balanced_accuracy': ('Balanced accuracy', True),
    'recall': ('Recall', True),
    'precision': ('Precision', True),
    'average_precision': ('Average precision', True),
    'sensitivity_at_95_specificity': ('Sens. at 95% spec.', True),
    'brier': ('Brier', False),
    'ece': ('ECE', False),
}
PATIENT_COLUMNS = ('auroc', 'f1', 'accuracy', 'balanced_accuracy', 'recall', 'precision')
MATRIX = {'auroc': 'AUROC', 'f1': 'F1'}  # the figures of every row against every other
PHASES = {'pretrain': 'pre-training', 'tune': 'tuning'}
ARGMIN_COLUMNS = ('f1', 'accuracy', 'balanced_accuracy', 'recall', 'precision')


def write(workdir: str | os.PathLike) -> Path:
    """Draws report/figures/*.png and report/index.html from the workdir's files; returns the page.

    A section whose file is missing is left out with a sentence. Raises UserError if `workdir` is
    none or a file in it is damaged.
    """
    run = load(workdir)
    drawn = figures.draw(run)
    folder = run.path / 'report'
    for figure in drawn:
        if figure.png:
            write_atomic(folder / 'figures' / f'{figure.name}.png', figure.png)
    page = folder / 'index.html'
    write_atomic(page, render(run, drawn))
    return page


def render(run: Run, drawn: list[figures.Drawn]) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('repdiff', 'report'), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {'number': number, 'signed': signed, 'p_value': p_value, 'words': words,
                            'decided': decided, 'spread': spread,
                            'amount': amount, 'duration': duration}
    data = run.results.get('dataset', {})
    sheets = generated.pictures(run)
    shown = [*drawn, *sheets]
    return environment.get_template('page.html.j2').render(
        name=data.get('name', run.config.get('name', run.path.name)),
        data=data,
        models=[row for row in run.rows if not is_floor(row)],
        floors=[row for row in run.rows if is_floor(row)],
        colours=style.colours(run),
        titles={row['name']: run.title(row['name']) for row in run.rows},
        summary=summary(run),
        columns=COLUMNS,
        argmin_columns=ARGMIN_COLUMNS,
        patient_columns=PATIENT_COLUMNS,
        best={key: best(run.rows, key) for key in COLUMNS},
        warnings={row['name']: warnings(row, run.rows) for row in run.rows},
        comparisons=of_first(run),
        versus=versus(run.results.get('comparisons', [])),
        matrix=MATRIX,
        phases=PHASES,
        figures={figure.name: figure for figure in shown},
        images={figure.name: base64.b64encode(figure.png).decode() for figure in shown
                if figure.png},
        table=run.generated,
        generated=generated,
        sheets=sheets,
        evidence=run.results.get('evidence', {}),
        card=run.card,
        config=json.dumps(run.config, indent=2, ensure_ascii=False) if run.config else '',
    )


def summary(run: Run) -> str:
    """The best model, the best floor, how much of the comparison is decided; '' without rows."""
    parts = []
    for floor, start in ((False, 'Best AUROC'), (True, 'best floor')):
        rows = [row for row in run.rows if is_floor(row) == floor and row.get('auroc') is not None]
        if rows:
            row = max(rows, key=lambda row: row['auroc'])
            interval = row.get('ci95', {}).get('auroc')
            edges = f' [{number(interval[0])}, {number(interval[1])}]' if interval else ''
            parts.append(f'{start}: {run.title(row["name"])}, {number(row["auroc"])}{edges}')
    pairs = of_first(run)
    settled = sum(decided(pair.get('ci95', {}).get('delta_f1')) for pair in pairs)
    if pairs:
        parts.append(f'by F1, {settled} of {len(pairs)} other rows are told apart from '
                     f'{run.title(pairs[0]["a"])}')
    return '; '.join(parts) + '.' if parts else ''


def of_first(run: Run) -> list[dict[str, Any]]:
    """The comparisons of the run's first row with the others."""
    pairs = run.results.get('comparisons', [])
    return [pair for pair in pairs if pair['a'] == pairs[0]['a']]


def versus(comparisons: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Row -> other row -> metric -> (difference, interval or None), of every pair both ways."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for pair in comparisons:
        for a, b, sign in ((pair['a'], pair['b'], 1), (pair['b'], pair['a'], -1)):
            cell = found.setdefault(a, {})[b] = {}
            for metric in MATRIX:
                delta = pair.get(f'delta_{metric}')
                edges = pair.get('ci95', {}).get(f'delta_{metric}')
                cell[metric] = (None if delta is None else sign * delta,
                                edges and sorted(sign * edge for edge in edges))
    return found


def decided(interval: list[float] | None) -> bool:
    """Whether an interval of a difference leaves zero out."""
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def best(rows: list[dict[str, Any]], key: str) -> set[str]:
    """Names of the models (not floors) with the best figure in this column."""
    found = {row['name']: row[key] for row in rows
             if not is_floor(row) and row.get(key) is not None}
    if not found:
        return set()
    top = (max if COLUMNS[key][1] else min)(found.values())
    return {name for name, value in found.items() if value == top}


def warnings(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """What must be said loudly about a model: that a floor does better."""
    if is_floor(row):
        return []
    said = []
    share = majority_share(row.get('confusion'))
    if share is not None and row.get('accuracy') is not None and row['accuracy'] < share:
        said.append(f'accuracy below majority class ({number(share)})')
    regressions = [floor['auroc'] for floor in rows if is_floor(floor)
                   and floor['name'].startswith('logistic') and floor.get('auroc') is not None]
    if regressions and row.get('auroc') is not None and row['auroc'] < max(regressions):
        said.append(f'AUROC worse than logistic regression ({number(max(regressions))})')
    return said


def majority_share(confusion: dict[str, int] | list[list[int]] | None) -> float | None:
    """The accuracy of always calling the commonest true class."""
    if not confusion:
        return None
    if isinstance(confusion, dict):
        confusion = [[confusion['tn'], confusion['fp']], [confusion['fn'], confusion['tp']]]
    sizes = [sum(line) for line in confusion]
    return max(sizes) / sum(sizes)


def number(value: Any) -> str:
    """A value for reading: three decimals for fractions, separated thousands, a dash for None."""
    if value is None:
        return '–'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int):
        return f'{value:,}'
    if isinstance(value, float):
        if value and abs(value) < 5e-4:
            return f'{value:.1e}'
        return f'{value:.3f}' if abs(value) < 10 else f'{value:,.1f}'
    if isinstance(value, list):
        return ', '.join(number(each) for each in value)
    return str(value)


def amount(value: float | None) -> str:
    """A count in three digits: 330 k, 6.91 T; a dash for None."""
    if value is None:
        return '–'
    for prefix, size in (('E', 1e18), ('P', 1e15), ('T', 1e12), ('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if value >= 0.9995 * size:
            return f'{value / size:.3g} {prefix}'
    return f'{value:.3g}'


def spread(values: list[float | None]) -> str:
    """Mean ± sample standard deviation of runs or folds; a dash where one has no value."""
    if None in values:
        return '–'
    deviation = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
    return f'{np.mean(values):.3f}{deviation}'


def signed(value: float | None, digits: int = 3) -> str:
    return '–' if value is None else f'{value:+.{digits}f}'.replace('-', '−')


def p_value(value: float | None) -> str:
    if value is None:
        return '–'
    return '< 0.001' if value < 0.001 else f'{value:.3f}'


def words(key: str) -> str:
    """A JSON key for reading: code_version -> code version."""
    return str(key).replace('_', ' ')
