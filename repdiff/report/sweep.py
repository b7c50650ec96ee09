"""The figure of a sweep: each model's mean over the points, its spread over seeds, and every run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from repdiff.report import style

PANELS = {'auroc': 'AUROC', 'f1': 'F1', 'accuracy': 'Accuracy'}


def draw(study: Mapping[str, Any], rows: Sequence[Mapping[str, Any]],
         chosen: Mapping[str, str]) -> bytes:
    """PNG bytes of a sweep. rows: point, seed, model, floor and the metrics of one model of a run.

    chosen: model -> the point that validation prefers, which gets a ring.
    """
    points = list(study['points'])
    models = list(dict.fromkeys(row['model'] for row in rows if not row['floor']))
    floors = list(dict.fromkeys(row['model'] for row in rows if row['floor']))
    drawing = style.figure(10, 4.0)
    drawing.suptitle(study['title'], fontsize=11, fontweight='bold', color=style.INK)
    panels = drawing.subplots(1, len(PANELS))
    for axes, (metric, words) in zip(panels, PANELS.items()):
        for names, palette, width in ((models, style.PALETTE, 1.8),
                                      (floors, style.FLOOR_PALETTE, 1.0)):
            for index, name in enumerate(names):
                values = [[row[metric] for row in rows if row['model'] == name
                           and row['point'] == point and row[metric] is not None]
                          for point in points]
                colour = palette[index % len(palette)]
                _curve(axes, values, colour, width, name)
                at = points.index(chosen[name]) if name in chosen else None
                if at is not None and values[at]:
                    axes.plot(at, np.mean(values[at]), 'o', color=colour, markersize=11,
                              fillstyle='none')
        axes.set_title(words)
        axes.set_xticks(range(len(points)), points)
        axes.set_xlim(-0.3, len(points) - 0.7)
    panels[len(panels) // 2].set_xlabel(study['axis'])
    handles, labels = panels[0].get_legend_handles_labels()
    if chosen:
        handles.append(Line2D([], [], color=style.MUTED, linestyle='', marker='o', markersize=9,
                              fillstyle='none'))
        labels.append('best mean AUROC on validation')
    drawing.legend(handles, labels, loc='outside lower center', ncols=4)
    return style.png(drawing)


def _curve(axes: Axes, values: list[list[float]], colour: str, width: float, name: str) -> None:
    """Mean over the points' runs as a line, ± sample standard deviation as bars, runs as dots."""
    at = [x for x, found in enumerate(values) if found]
    mean = [np.mean(values[x]) for x in at]
    spread = [np.std(values[x], ddof=1) if len(values[x]) > 1 else 0 for x in at]
    axes.errorbar(at, mean, spread, color=colour, linewidth=width, marker='o', markersize=4,
                  capsize=2, elinewidth=1, label=name)
    for x in at:
        axes.plot([x] * len(values[x]), values[x], '.', color=colour, alpha=0.35, markersize=4)
