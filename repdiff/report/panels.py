"""Figures of panels: slices, intervals, confusion, z0' over t. Run -> PNG bytes or None."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from repdiff.report import style
from repdiff.report.workdir import Run, is_floor, position

INTERVAL_METRICS = {'auroc': 'AUROC', 'f1': 'F1', 'accuracy': 'Accuracy',
                    'balanced_accuracy': 'Balanced accuracy'}


def samples(run: Run) -> bytes | None:
    if not run.samples:
        return None
    images, labels = run.samples['images'][:24], run.samples['labels']
    columns = min(6, len(images))
    rows = -(-len(images) // columns)
    drawing = style.figure(9, 1.95 * rows)
    drawing.get_layout_engine().set(w_pad=0.03, h_pad=0.06)
    for i, (axes, pixels) in enumerate(zip(drawing.subplots(rows, columns, squeeze=False).flat,
                                           images)):
        style.picture(axes, pixels)
        axes.set_title(_class(run, labels[i]), fontsize=8.5, pad=3, color=_class_colour(labels[i]))
        facility, markers = (str(run.samples[key][i]) for key in ('facilities', 'markers'))
        words = [word for word in (facility and f'facility {facility}', markers) if word]
        axes.set_xlabel('\n'.join(textwrap.wrap(' · '.join(words), 26)), fontsize=7, labelpad=3)
    for axes in drawing.axes[len(images):]:
        axes.set_axis_off()
    return style.png(drawing)


def intervals(run: Run) -> bytes | None:
    rows = [row for row in run.rows if row.get('ci95')]
    if not rows:
        return None
    colours = style.colours(run)
    drawing = style.figure(9, 1.0 + 0.36 * len(rows))
    panels = drawing.subplots(1, len(INTERVAL_METRICS), sharey=True)
    for axes, (name, words) in zip(panels, INTERVAL_METRICS.items()):
        for y, row in enumerate(rows):
            value, ci95 = row.get(name), row['ci95'].get(name)
            if value is None:
                continue
            colour = colours[row['name']]
            if ci95:
                axes.plot(ci95, [y, y], color=colour, linewidth=5, alpha=0.3)
            axes.plot(value, y, 'o', color=colour, markersize=7)
        axes.set_title(words)
        axes.grid(False, axis='y')
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.spines['left'].set_visible(False)
    panels[0].set_yticks(range(len(rows)), [
        '\n'.join(textwrap.wrap(run.title(row['name']), 28)) for row in rows], color=style.INK)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return style.png(drawing)


def confusion(run: Run) -> bytes | None:
    rows = [row for row in run.rows if row.get('confusion')]
    if not rows:
        return None
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    drawing = style.figure(9, (2.75 if columns > 2 else 3.6) * lines)
    grid = drawing.subplots(lines, columns, squeeze=False).flat
    for axes, row in zip(grid, rows):
        _matrix(axes, run, row)
    for axes in drawing.axes[len(rows):]:
        axes.set_axis_off()
    return style.png(drawing)


def z0_over_t(run: Run) -> bytes | None:
    data = run.z0_over_t
    names = [key for key in data if key not in ('image', 't')]
    if not names:
        return None
    order = [row['name'] for row in run.rows]
    names.sort(key=lambda key: (position(order, key.removesuffix('_dropped')), key))
    steps = data['t']
    colours = style.colours(run)
    drawing = style.figure(10, 1.12 * len(names) + 0.35)
    drawing.get_layout_engine().set(w_pad=0.01, h_pad=0.02, wspace=0.01, hspace=0.02)
    grid = drawing.subplots(len(names), len(steps) + 1, squeeze=False)
    for line, name in zip(grid, names):
        row = name.removesuffix('_dropped')
        words = run.title(row)
        if f'{row}_dropped' in names:
            words += ', r dropped' if name != row else ', r kept'
        style.picture(line[0], data['image'])
        line[0].set_ylabel('\n'.join(textwrap.wrap(words, 20)), rotation=0, ha='right', va='center',
                           labelpad=10, color=colours.get(row, style.INK), fontsize=8.5)
        for axes, pixels in zip(line[1:], data[name]):
            style.picture(axes, pixels)
    for axes, words in zip(grid[0], ['the slice', *(f't = {t}' for t in steps)]):
        axes.set_title(words, fontsize=8.5, loc='center', pad=4)
    return style.png(drawing)


def _class(run: Run, label: int) -> str:
    if label < 0:
        return 'unlabelled'
    return run.classes[label] if label < len(run.classes) else f'class {label}'


def _class_colour(label: int) -> str:
    return style.MUTED if label <= 0 else style.PALETTE[label % len(style.PALETTE)]


def _matrix(axes: Axes, run: Run, row: dict) -> None:
    counts = row['confusion']
    if isinstance(counts, dict):
        counts = [[counts['tn'], counts['fp']], [counts['fn'], counts['tp']]]
    counts = np.array(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap='Greys' if is_floor(row) else 'Blues', vmin=0, vmax=1.25)
    if len(counts) <= 12:
        for (i, j), count in np.ndenumerate(counts):
            axes.text(j, i, f'{count}', ha='center', va='center',
                      fontsize=10 if len(counts) < 5 else 6.5,
                      color='white' if shares[i, j] > 0.6 else style.INK)
    names = [textwrap.shorten(_class(run, k), 14, placeholder='…') for k in range(len(counts))]
    axes.set_xticks(range(len(counts)), names, rotation=0 if len(counts) < 4 else 90)
    axes.set_yticks(range(len(counts)), names, rotation=90 if len(counts) < 4 else 0, va='center')
    axes.set(xlabel='called', ylabel='true')
    axes.set_title('\n'.join(textwrap.wrap(run.title(row['name']), 26)), fontsize=8.5)
    axes.grid(False)
    axes.spines[:].set_visible(False)
