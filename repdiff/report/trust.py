"""Figures about the decisions: sweep over t and draws, draws used, reliability, abstaining."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from repdiff.report import style
from repdiff.report.workdir import Run, is_floor


def sweep(run: Run) -> bytes | None:
    rows = _rows(run, 'auroc_over_t')
    if not rows:
        return None
    colours = style.colours(run)
    drawing = style.figure(9, 3.6)
    over_t, over_draws = drawing.subplots(1, 2, sharey=True)
    for row in rows:
        curve, colour = row['auroc_over_t'], colours[row['name']]
        rule = row.get('rule', {}).get('name')
        over_t.plot(curve['t'], curve['valid'], color=colour, marker='o', markersize=3,
                    label=f'{run.title(row["name"])}: {rule}' if rule else run.title(row['name']))
        at = [i for i, t in enumerate(curve['t']) if t in _chosen(row)]
        over_t.plot([curve['t'][i] for i in at], [curve['valid'][i] for i in at], 'o',
                    color=colour, markersize=10, markerfacecolor='none', markeredgewidth=1.8)
        draws = row.get('auroc_over_draws')
        if draws:
            for split, line in (('valid', ':'), ('test', '-')):
                over_draws.plot(draws['draws'], draws[split], line, color=colour, marker='o',
                                markersize=2.5)
    for axes in (over_t, over_draws):
        axes.axhline(0.5, color=style.MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
    over_t.set(title='Over t: validation, one step alone', xlabel='diffusion step t',
               ylabel='AUROC')
    over_draws.set(title='Over draws: test (lines), validation (dots)', xscale='log',
                   xlabel='draws an image and class, at most')
    _plain_log(over_draws)
    _legend(drawing, over_t)
    return style.png(drawing)


def draws(run: Run) -> bytes | None:
    rows = [row for row in _rows(run, 'draws') if 'images' in row['draws']]
    if not rows:
        return None
    colours = style.colours(run)
    drawing = style.figure(6.4, 3.8)
    axes = drawing.subplots()
    for row in rows:
        images = np.array(row['draws']['images'])
        at = np.flatnonzero(images)
        still_open = 1 - np.cumsum(images[at]) / images.sum()
        share = row['draws']['mean'] / row['draws']['budget']
        axes.step([at[0] / 1.3, *at], [1, *still_open], where='post', color=colours[row['name']],
                  label=f'{run.title(row["name"])}: mean {row["draws"]["mean"]:.0f} '
                        f'({share:.1%} of the budget)')
    axes.set(xscale='log', xlabel='draws', ylabel='test images still open', ylim=(-0.02, 1.02))
    _plain_log(axes)
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    drawing.legend(*axes.get_legend_handles_labels(), loc='outside lower center', ncols=1)
    return style.png(drawing)


def early_stop(run: Run) -> bytes | None:
    if not run.early_stop:
        return None
    colours = style.colours(run)
    drawing = style.figure(9, 4.2)
    panels = drawing.subplots(1, len(run.early_stop), sharey=True, squeeze=False)[0]
    looks = {'fixed': ('equally many draws', ':', 's'),
             'uncorrected': ('t-tests, looks not corrected for', '--', '^'),
             'sequential': ('early stop', '-', 'o')}
    for axes, (name, found) in zip(panels, run.early_stop.items()):
        least = 0.5 / found['images']  # where none is decided otherwise
        axes.axvspan(1e-4, 1 / 8, color=style.FAINT, alpha=0.5, linewidth=0)
        axes.axhline(0.01, color=style.MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
        for kind, (words, line, marker) in looks.items():
            points = found['curves'][kind]
            colour = colours.get(name, style.INK) if kind == 'sequential' else style.MUTED
            cost = [point['cost'] for point in points]
            other = [max(1 - point['agreement'], least) for point in points]
            axes.plot(cost, other, line, color=colour, marker=marker, markersize=4, label=words)
            if kind == 'sequential':
                for point, x, y in zip(points, cost, other):
                    if point['alpha'] == found['alpha']:
                        axes.annotate(f'alpha {point["alpha"]:g}', (x, y), (4, 5), fontsize=7,
                                      textcoords='offset points', color=colour)
        lowest = min(p['cost'] for points in found['curves'].values() for p in points)
        axes.set(xscale='log', yscale='log', xlim=(0.8 * lowest, 1.05), ylim=(0.7 * least, 1),
                 xlabel='forward passes, of the full budget', title=run.title(name))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(lambda share, _: f'{100 * share:g}%')
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[0].set_ylabel('decided otherwise than by\nthe full budget (lowest: none)')
    _legend(drawing, panels[0], 3)
    return style.png(drawing)


def reliability(run: Run) -> bytes | None:
    rows = _rows(run, 'trust')
    if not rows:
        return None
    colours = style.colours(run)
    drawing = style.figure(9, 4.9)
    panels = drawing.subplots(1, 2, sharex=True, sharey=True)
    titles = {'raw': 'Softmax of the scores as they are', 'calibrated': 'Calibrated on validation'}
    for axes, (kind, words) in zip(panels, titles.items()):
        axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.9, linestyle=(0, (2, 3)))
        for row in rows:
            bins = row['trust'][kind]
            sizes = 12 + 180 * np.array(bins['images']) / np.sum(bins['images'])
            axes.plot(bins['confidence'], bins['frequency'], color=colours[row['name']],
                      linewidth=1.2, alpha=0.6)
            axes.scatter(bins['confidence'], bins['frequency'], sizes, color=colours[row['name']],
                         label=f'{run.title(row["name"])}: ECE '
                               + ' → '.join(f'{row["trust"][k]["ece"]:.3f}' for k in titles))
        axes.set(title=words, xlabel='stated probability', xlim=(-0.03, 1.03), ylim=(-0.03, 1.03),
                 aspect='equal')
    panels[0].set_ylabel('share found')
    handles, labels = panels[1].get_legend_handles_labels()
    legend = drawing.legend(handles, labels, loc='outside lower center', ncols=2)
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    return style.png(drawing)


def abstain(run: Run) -> bytes | None:
    rows = _rows(run, 'trust')
    if not rows:
        return None
    colours = style.colours(run)
    drawing = style.figure(6.4, 3.8)
    axes = drawing.subplots()
    for row in rows:
        curve = row['trust']['selective']
        axes.plot(curve['coverage'], curve['accuracy'], color=colours[row['name']],
                  label=run.title(row['name']))
    axes.set(xlabel='share of the test images answered, the surest first',
             ylabel='accuracy on these', xlim=(1.02, 0))
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    _legend(drawing, axes)
    return style.png(drawing)


def _rows(run: Run, key: str) -> list[dict]:
    return [row for row in run.rows if row.get(key) and not is_floor(row)]


def _chosen(row: dict) -> list[int]:
    """The steps to mark: those the row's rule reads, unless it reads them all."""
    steps = np.atleast_1d(row.get('rule', {}).get('t', [])).tolist()
    return steps if set(steps) < set(row['auroc_over_t']['t']) else []


def _plain_log(axes: Axes) -> None:
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter('{x:g}')
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(drawing: Figure, axes: Axes, columns: int = 2) -> None:
    handles, words = axes.get_legend_handles_labels()
    drawing.legend(handles, words, loc='outside lower center', ncols=min(columns, len(words)))
