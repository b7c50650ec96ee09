"""Pictures of what was generated, each beside the images that could have been copied."""

import numpy as np

from repdiff.eval.copies import Copies
from repdiff.report import style


def grid(images: np.ndarray, sources: np.ndarray | None, training: np.ndarray, copies: Copies,
         title: str) -> bytes:
    """PNG of samples (B, H, W, C), the images that gave their r above, their nearest below.

    Under each picture stands its distance from the sample, in grey levels.
    """
    lines = [('generated', images, None), ('nearest, training image', training, copies.nearest)]
    if sources is not None:
        lines.insert(0, ('gave r', sources, copies.source))
    verdict = '' if copies.verdict == 'neither' else f' — {copies.verdict}'
    note = (f'{title}{verdict}\nnumbers: distance from the sample in grey levels; real images lie '
            f'{copies.yardstick:.1f} from their nearest training image')
    return pictures([(words, pixels, None if values is None else [f'{v:.1f}' for v in values])
                     for words, pixels, values in lines], note)


def pictures(lines: list[tuple[str, np.ndarray, list[str] | None]], title: str,
             heads: list[str] | None = None) -> bytes:
    """PNG of lines of pictures: (words at its left, images (B, H, W, C), words under each or None).

    `heads` stand above the columns.
    """
    columns = max(len(images) for _, images, _ in lines)
    with style.context():
        drawing = style.figure(1.3 + 1.05 * columns, 0.7 + sum(
            1.05 if words is None else 1.22 for _, _, words in lines))
        drawing.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.02)
        drawing.suptitle(title, fontsize=8.5, ha='left', x=0.01, color=style.INK)
        cells = drawing.subplots(len(lines), columns, squeeze=False)
        for axes_line, (name, images, words) in zip(cells, lines):
            for i, axes in enumerate(axes_line):
                if i >= len(images):
                    axes.set_axis_off()
                    continue
                style.picture(axes, images[i] if images.shape[-1] == 3 else images[i, ..., 0])
                if words is not None:
                    axes.set_xlabel(words[i], fontsize=7, labelpad=2)
            axes_line[0].set_ylabel(name.replace(', ', '\n'), rotation=0, ha='right', va='center',
                                    labelpad=8, fontsize=8)
        for axes, words in zip(cells[0], heads or ()):
            axes.set_title(words, fontsize=8, loc='center', pad=3)
        return style.png(drawing)
