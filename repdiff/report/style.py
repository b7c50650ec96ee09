"""One look for every figure: fonts, greys, and a colour a row that it keeps everywhere."""

import io

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repdiff.report.workdir import Run, is_floor

# Okabe and Ito's palette, which people with the common kinds of colour blindness can tell apart,
# without its yellow (too pale for lines on white) and black (the colour of text); then darker ones,
# so that no two of a comparison's rows look alike.
PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00',
           '#332288', '#882255', '#7A7A1F', '#9A8CFF', '#6B3E26', '#17BEBB')
FLOOR_PALETTE = ('#8a8f98', '#5d636d', '#b3b7be')
INK, MUTED, FAINT = '#1f2430', '#6b7280', '#e3e6ea'
DPI = 160

STYLE = {
    'font.size': 9, 'axes.titlesize': 9.5, 'axes.titleweight': 'bold', 'axes.titlelocation': 'left',
    'axes.titlepad': 8, 'axes.labelsize': 9, 'axes.labelcolor': MUTED, 'axes.edgecolor': '#b8bdc6',
    'axes.linewidth': 0.8, 'axes.spines.top': False, 'axes.spines.right': False,
    'axes.grid': True, 'axes.axisbelow': True, 'grid.color': FAINT, 'grid.linewidth': 0.7,
    'xtick.color': MUTED, 'ytick.color': MUTED, 'xtick.labelsize': 8, 'ytick.labelsize': 8,
    'xtick.major.size': 0, 'ytick.major.size': 0, 'xtick.minor.size': 0, 'ytick.minor.size': 0,
    'text.color': INK, 'axes.titlecolor': INK, 'lines.linewidth': 1.8,
    'lines.solid_capstyle': 'round', 'legend.frameon': False, 'legend.fontsize': 8.5,
    'figure.facecolor': 'white', 'savefig.facecolor': 'white',
    'figure.constrained_layout.use': True,
}


def colours(run: Run) -> dict[str, str]:
    """Row name -> colour: models in their order from the palette, floors in greys.

    Before there are results, the models are those that the log speaks of.
    """
    models = [row['name'] for row in run.rows if not is_floor(row)]
    models = models or list(dict.fromkeys(line['phase'].rsplit('.', 1)[0] for line in run.log))
    floors = [row['name'] for row in run.rows if is_floor(row)]
    chosen = {}
    for names, palette in ((models, PALETTE), (floors, FLOOR_PALETTE)):
        chosen |= {name: palette[i % len(palette)] for i, name in enumerate(names)}
    return chosen


def figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches; draw on it within `context()`."""
    return Figure(figsize=(width, height))


def context():
    """The style, for the time of one drawing."""
    return matplotlib.rc_context(STYLE)


def png(drawing: Figure) -> bytes:
    """The figure as PNG bytes."""
    stream = io.BytesIO()
    drawing.savefig(stream, format='png', dpi=DPI, metadata={'Software': None})
    return stream.getvalue()


def picture(axes: Axes, pixels) -> None:
    """Draws (H, W) uint8 grey or (H, W, 3) colour pixels without axes."""
    axes.imshow(pixels, cmap='gray', vmin=0, vmax=255, interpolation='bilinear')
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
