"""prepare.html: what went into a data set, what it looks like, what was left out and why."""

import base64
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np

from repdiff.data import head, png
from repdiff.data.slices import SPLITS
from repdiff.data.spool import Spool

_SHOWN = 24  # pictures of a contact sheet
_COUNTED = 200  # pictures that a histogram is taken of
_BIN = 4  # greys of a histogram's bin
_THUMB = 112  # pixels a side

Pair = tuple[np.ndarray, np.ndarray]  # (S, S, C) uint8 before and after


def render(spool: Spool, where: Sequence[str | None], info: Mapping[str, Any],
           pairs: Sequence[Pair]) -> str:
    """The page's HTML, self-contained.

    Args:
      where: split of each record of the spool, None where it is left out.
      info: as `prepare.json` has it.
      pairs: slices before and after the head mask and crop; may be empty.
    """
    names = ('no label', *info['classes'])
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, place in enumerate(where):
        if place is not None:
            groups[place, spool.records[index].label].append(index)
    used = [name for name in SPLITS if name in where]
    labels = sorted({label for _, label in groups})
    sheets = [(f'{split} · {names[label + 1]}', len(groups[split, label]),
               sheet([_picture(spool, index) for index in _spread(groups[split, label], _SHOWN)]))
              for split in used for label in labels if groups[split, label]]
    histograms = [(split, _plot([(names[label + 1], _grey(spool, groups[split, label]))
                                 for label in labels if groups[split, label]])) for split in used]
    patients = _by(spool, where, lambda record: record.patient, used, labels)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('repdiff', 'data'), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template('page.html.j2').render(
        info=info, sheets=sheets, histograms=histograms, counted=_COUNTED,
        classes=[names[label + 1] for label in labels],
        splits=[_row(split, spool, [i for i, place in enumerate(where) if place == split], labels)
                for split in used],
        facilities=_by(spool, where, lambda record: record.facility or 'unknown', used, labels),
        used=used, patient_count=len(patients),
        # One image each, as of a data set without patients: the table would be the images again.
        patients=patients if len(patients) < sum(map(len, groups.values())) else [],
        reasons=Counter(item['reason'] for item in info['skipped']).most_common(),
        before_after=sheet([picture for pair in pairs for picture in pair], 8) if pairs else '',
    )


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """At most `count`, evenly spaced."""
    places = np.linspace(0, len(indices) - 1, min(count, len(indices)))
    return [indices[round(place)] for place in places]


def _picture(spool: Spool, index: int) -> np.ndarray:
    content = spool.stored(index)['image']
    return png.decode_png(content, 3)


def _row(name: str, spool: Spool, members: Sequence[int], labels: Sequence[int]) -> dict[str, Any]:
    found = [spool.records[index] for index in members]
    counts = Counter(record.label for record in found)
    return {'name': name, 'images': len(found),
            'patients': len({record.patient for record in found}),
            'facilities': len({record.facility for record in found} - {''}),
            'per_class': [counts[label] for label in labels],
            'patients_per_class': [len({record.patient for record in found
                                        if record.label == label}) for label in labels]}


def _by(spool: Spool, where: Sequence[str | None], key: Any, used: Sequence[str],
        labels: Sequence[int]) -> list[tuple[str, list[int], list[int]]]:
    """(name, images in each split, images of each class), sorted by name."""
    splits: dict[str, Counter] = defaultdict(Counter)
    classes: dict[str, Counter] = defaultdict(Counter)
    for record, place in zip(spool.records, where, strict=True):
        if place is not None:
            splits[key(record)][place] += 1
            classes[key(record)][record.label] += 1
    return [(name, [splits[name][split] for split in used],
             [classes[name][label] for label in labels]) for name in sorted(splits)]


def sheet(pictures: Sequence[np.ndarray], columns: int = 12) -> str:
    """Pictures (S, S, C) side by side as the base64 of one PNG."""
    rows = -(-len(pictures) // columns)
    shape = (rows * _THUMB, min(columns, len(pictures)) * _THUMB, 3)
    page = np.zeros(shape, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * _THUMB, number % columns * _THUMB
        page[top:top + _THUMB, left:left + _THUMB] = _thumb(picture)
    if (page == page[..., :1]).all():
        page = page[..., :1]
    return base64.b64encode(png.encode_png(page)).decode()


def _thumb(picture: np.ndarray) -> np.ndarray:
    """(S, S, C) to (_THUMB, _THUMB, 3)."""
    planes = np.broadcast_to(picture, (*picture.shape[:2], 3)) if picture.shape[-1] == 1 else (
        np.pad(picture, ((0, 0), (0, 0), (0, 3 - picture.shape[-1]))))
    return head.resize(np.ascontiguousarray(planes), _THUMB, 'grey')


def _grey(spool: Spool, members: Sequence[int]) -> np.ndarray:
    """The share of pixels of each grey, (256,), in some of the members."""
    counts = np.zeros(256)
    for index in _spread(members, _COUNTED):
        counts += np.bincount(_picture(spool, index).reshape(-1), minlength=256)
    return counts / counts.sum()


def _plot(shares: Sequence[tuple[str, np.ndarray]]) -> dict[str, Any]:
    """What the template draws: a curve a class over 0 to 256 across and 0 to 1 up, and the axis."""
    bins = [np.add.reduceat(share, [1, *range(_BIN, 256, _BIN)]) for _, share in shares]
    # The ends hold what lies outside the window: the height is that of the middle.
    top = max(max(grey[2:-2].max() for grey in bins), 1e-6)
    return {'top': top, 'curves': [
        {'name': name, 'black': share[0], 'points': ' '.join(
            f'{_BIN * (place + 0.5):g},{1 - min(value / top, 1):.3f}'
            for place, value in enumerate(grey))}
        for (name, share), grey in zip(shares, bins, strict=True)]}
