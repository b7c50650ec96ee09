"""Figures with curves: losses, ROC. Each is a function Run -> PNG bytes or None."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from sklearn.metrics import roc_curve

from repdiff.eval.answers import Answers
from repdiff.report import style
from repdiff.report.workdir import Run, is_floor, position

# Name of a logged loss -> (words, line style). `loss` is of training batches, at the drop rate of
# the recipe; the others are of the validation images, at every checkpoint.
LOSSES = {
    'loss': ('training', ':'),
    'loss_kept': ('validation, r kept', '-'),
    'loss_dropped': ('validation, without r', '--'),
}
DISTILLATION = {  # panel -> logged scalars and their line styles
    'Loss': {'dino': '-'},
    "Entropy of a teacher's target": {'teacher_entropy': '-', 'valid_teacher_entropy': '--'},
    'Spread of the features': {'feature_std': '-', 'valid_feature_std': '--'},
}
TUNING = {'loss': 'Training loss', 'valid_auroc': 'Validation AUROC'}


def pretraining(run: Run) -> bytes | None:
    phases = [phase for phase in _phases(run, 'pretrain') if not _is_distilled(run, phase)]
    if not phases:
        return None
    colours = style.colours(run)
    drawing = style.figure(9, 3.1 if len(phases) > 1 else 3.6)
    grid = drawing.subplots(1, len(phases), sharey=True, squeeze=False)[0]
    shown = {}
    for axes, phase in zip(grid, phases):
        row = phase.rsplit('.', 1)[0]
        for name, (words, line) in LOSSES.items():
            points = _series(run, phase, name)
            if points:
                look = {'linestyle': line, 'linewidth': 1.2 if name == 'loss' else 2,
                        'marker': 'o' if len(points) < 12 else None, 'markersize': 3.5}
                axes.plot(*zip(*points), color=colours.get(row, style.MUTED), **look)
                look['marker'] = None
                shown[name] = Line2D([], [], color=style.INK, label=words, **look)
        axes.set_yscale('log')
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter('{x:g}')
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title('\n'.join(textwrap.wrap(run.title(row), 30)))
        axes.set_xlabel('step')
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    grid[0].set_ylabel('loss  ‖ε − ε′‖², mean')
    keys = [shown[name] for name in LOSSES if name in shown]
    drawing.legend(handles=keys, loc='outside lower center', ncols=len(keys))
    return style.png(drawing)


def distillation(run: Run) -> bytes | None:
    phases = [phase for phase in _phases(run, 'pretrain') if _is_distilled(run, phase)]
    if not phases:
        return None
    colours = style.colours(run)
    drawing = style.figure(9, 3.0)
    for axes, (title, lines) in zip(drawing.subplots(1, len(DISTILLATION)), DISTILLATION.items()):
        for phase in phases:
            row = phase.rsplit('.', 1)[0]
            for name, line in lines.items():
                points = _series(run, phase, name)
                if points:
                    words = 'on validation' if name.startswith('valid') else run.title(row)
                    axes.plot(*zip(*points), line, color=colours.get(row, style.MUTED), label=words)
        axes.set_xlabel('step')
        axes.set_title(title)
        axes.ticklabel_format(axis='y', useOffset=False)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    _legend_below(drawing, drawing.axes[-1])
    return style.png(drawing)


def tuning(run: Run) -> bytes | None:
    phases = _phases(run, 'tune')
    panels = [(name, words) for name, words in TUNING.items()
              if any(_series(run, phase, name) for phase in phases)]
    if not panels:
        return None
    colours = style.colours(run)
    drawing = style.figure(9, 3.4)
    for axes, (name, words) in zip(drawing.subplots(1, len(panels), squeeze=False)[0], panels):
        for phase in phases:
            row = phase.rsplit('.', 1)[0]
            points = _series(run, phase, name)
            if points:
                axes.plot(*zip(*points), color=colours.get(row, style.MUTED), label=run.title(row),
                          marker='o' if name != 'loss' or len(points) < 3 else None, markersize=4)
        axes.set_title(words)
        axes.set_xlabel('step')
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _legend_below(drawing, drawing.axes[-1])
    return style.png(drawing)


def roc(run: Run) -> bytes | None:
    rows = [row for row in run.rows if row['name'] in run.predictions
            and row.get('auroc') is not None]
    if not rows:
        return None
    colours = style.colours(run)
    drawing = style.figure(5.4, 5.6)
    axes = drawing.subplots()
    axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    for row in rows:
        answers = run.predictions[row['name']]
        # A constant score, as the majority floor's, has no curve beside the diagonal.
        if np.ptp(answers.scores, axis=0).max() == 0:
            continue
        floor = is_floor(row)
        axes.plot(*_roc_points(answers), color=colours[row['name']], zorder=2 if floor else 3,
                  linewidth=1.3 if floor else 1.9, linestyle='--' if floor else '-',
                  label=f'{run.title(row["name"])}  ({row["auroc"]:.3f})')
        if answers.scores.ndim == 1:
            negative = answers.labels == 0
            axes.plot(answers.predictions[negative].mean(), answers.predictions[~negative].mean(),
                      'o', color=colours[row['name']], markersize=7, markeredgecolor='white',
                      zorder=4)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect='equal',
             xlabel='false alarms: 1 − specificity', ylabel='sensitivity (recall)')
    drawing.legend(*axes.get_legend_handles_labels(), loc='outside lower center', ncols=1)
    return style.png(drawing)


def _phases(run: Run, kind: str) -> list[str]:
    """The logged phases ROW.kind, in the order of the rows."""
    order = [row['name'] for row in run.rows]
    found = {line['phase'] for line in run.log if line['phase'].endswith(f'.{kind}')}
    return sorted(found, key=lambda phase: (position(order, phase.rsplit('.', 1)[0]), phase))


def _is_distilled(run: Run, phase: str) -> bool:
    return bool(_series(run, phase, 'teacher_entropy'))


def _series(run: Run, phase: str, name: str) -> list[tuple[int, float]]:
    return [(line['step'], line[name]) for line in run.log
            if line['phase'] == phase and line.get(name) is not None]


def _roc_points(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """False alarms and sensitivity; of several classes the mean curve, one against the rest."""
    if answers.scores.ndim == 1:
        return roc_curve(answers.labels, answers.scores)[:2]
    grid = np.linspace(0, 1, 201)
    present = [k for k in range(answers.scores.shape[1]) if 0 < np.mean(answers.labels == k) < 1]
    curves = [np.interp(grid, *roc_curve(answers.labels == k, answers.scores[:, k])[:2])
              for k in present]
    return np.append(0, grid), np.append(0, np.mean(curves, axis=0))


def _legend_below(drawing: Figure, axes: Axes) -> None:
    handles, words = axes.get_legend_handles_labels()
    drawing.legend(handles, words, loc='outside lower center', ncols=min(3, len(words)))
