"""Figures of the evidence: maps, counterfactuals, how well maps find lesions. Run -> PNG or None."""

import numpy as np
from matplotlib.axes import Axes

from repdiff.report import style
from repdiff.report.workdir import Run

MEASURES = {
    'pointing': 'Highest pixel in the lesion', 'dice': 'Dice of what is shown',
    'dice_at_lesion_size': 'Dice at the lesion\'s size',
}
ARMS = {'evidence': 'evidence map', 'brightness': 'brightness in the brain', 'random': 'random'}


def maps(run: Run) -> bytes | None:
    """Each slice with its true lesion's outline, what stands out of the noise, and the noise."""
    data = run.evidence
    if not data:
        return None
    count = len(data['images'])
    lines = 3 if 'errors' in data else 2  # runs of earlier code kept none
    drawing = style.figure(9, 9 / max(count, 4) * lines + 0.65)
    drawing.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.02)
    grid = drawing.subplots(lines, count, squeeze=False)
    for i, (top, middle, *bottom) in enumerate(grid.T):
        style.picture(top, data['images'][i])
        top.set_title(str(data['outcomes'][i]).replace(' ', '\n'), fontsize=7.5, pad=3)
        style.picture(middle, data['images'][i])
        shown = data['means'][i] * data['shown'][i]
        strength = np.abs(shown) / max(np.abs(shown).max(), 1e-30)
        middle.imshow(np.sign(shown), cmap='coolwarm', vmin=-1, vmax=1, interpolation='nearest',
                      alpha=np.where(data['shown'][i], 0.15 + 0.7 * strength, 0))
        if not data['shown'][i].any():
            middle.set_xlabel('nothing', fontsize=7.5, labelpad=2)
        for axes in bottom:
            error = data['errors'][i] / max(np.abs(data['means'][i]).max(), 1e-30)
            axes.imshow(error, cmap='gray_r', vmin=0, interpolation='nearest')
            axes.set_xlabel(f'± {error.max():.0%}', fontsize=7.5, labelpad=2)
            _bare(axes)
        for axes in (top, middle, *bottom):
            _outline(axes, data['masks'][i])
    return style.png(drawing)


def counterfactuals(run: Run) -> bytes | None:
    """One slice of each outcome, re-denoised under each label, and the difference of the first two."""
    data = run.evidence
    if not data:
        return None
    outcomes = [str(words) for words in data['outcomes']]
    chosen = [outcomes.index(words) for words in dict.fromkeys(outcomes)]
    classes = range(min(data['counterfactuals'].shape[1], 5))
    drawing = style.figure(9, 1.75 * len(chosen) + 0.4)
    drawing.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.02)
    grid = drawing.subplots(len(chosen), len(classes) + 2, squeeze=False)
    for line, i in zip(grid, chosen):
        style.picture(line[0], data['images'][i])
        _outline(line[0], data['masks'][i])
        line[0].set_ylabel(outcomes[i], fontsize=8.5, color=style.INK)
        rebuilt = data['counterfactuals'][i].astype(float)
        for k in classes:
            style.picture(line[1 + k], rebuilt[k])
        a, b = data['pairs'][i]
        change = rebuilt[a] - rebuilt[b]
        largest = max(16, np.abs(change).max())
        line[-1].imshow(change, cmap='coolwarm', vmin=-largest, vmax=largest, interpolation='nearest')
        _bare(line[-1])
        line[-1].set_xlabel(f'largest {np.abs(change).max():.0f} of 255', fontsize=7, labelpad=2)
    words = [run.classes[k] if k < len(run.classes) else f'class {k}' for k in classes]
    titles = ['the slice', *(f'as “{word}”' for word in words), 'difference']
    for axes, title in zip(grid[0], titles):
        axes.set_title(title, fontsize=8.5, loc='center', pad=4)
    return style.png(drawing)


def localisation(run: Run) -> bytes | None:
    found = run.results.get('evidence', {}).get('localisation')
    if not found:
        return None
    drawing = style.figure(9, 2.5)
    colours = (style.PALETTE[0], style.PALETTE[5], style.FLOOR_PALETTE[0])
    for axes, (measure, words) in zip(drawing.subplots(1, len(MEASURES), sharey=True),
                                      MEASURES.items()):
        for y, (arm, colour) in enumerate(zip(ARMS, colours)):
            value = found[measure][arm]
            if value['ci95']:
                axes.plot(value['ci95'], [y, y], color=colour, linewidth=5, alpha=0.3)
            axes.plot(value['mean'], y, 'o', color=colour, markersize=7)
        axes.set_title(words)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(False, axis='y')
        axes.spines['left'].set_visible(False)
    drawing.axes[0].set_yticks(range(len(ARMS)), ARMS.values(), color=style.INK)
    drawing.axes[0].set_ylim(len(ARMS) - 0.5, -0.5)
    return style.png(drawing)


def _outline(axes: Axes, mask: np.ndarray) -> None:
    if mask.any():
        axes.contour(mask, [0.5], colors=[style.PALETTE[5]], linewidths=0.8)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
