"""python -m repdiff.predict --workdir=DIR FILES...: classes, probabilities and evidence of images.

FILES are DICOM, NIfTI, NumPy, PNG, JPEG or TIFF files, or folders of them. They are prepared as the
run's own images were. A rerun classifies only what is missing. The exit code is 1 where a file could
not be read, and 2 where nothing could be done.
"""

import argparse
import collections
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from repdiff import config as configs
from repdiff import finished, sharding
from repdiff.data import deidentify, incoming
from repdiff.data.png import decode_png
from repdiff.data.settings import DataSettings
from repdiff.data.slices import Skipped
from repdiff.data.work import Record
from repdiff.errors import Parser, check_writable, exit_on_user_error
from repdiff.explain import Explainer, pair_of
from repdiff.files import write_atomic
from repdiff.finished import Desk, FinishedRow
from repdiff.predictions import FAR, NOTICE, Ledger, content_of, picture, write_tables

_AT_ONCE = 64  # images classified, and written down, together


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = Parser(prog='python -m repdiff.predict', description=__doc__, allow_abbrev=False,
                  epilog=f'repdiff is {NOTICE}.')
    add = made.add_argument
    add('files', nargs='+', metavar='FILES', help='files or folders')
    add('--workdir', required=True, type=Path, help='of a finished run of repdiff.main')
    add('--row', default='', help='row of the results to predict with; the first')
    add('--out', type=Path, help='directory of the predictions; WORKDIR/predictions/ROW')
    add('--window', default='', help="of HU, as in repdiff.prepare; the run's own")
    add('--no-overlays', action='store_true', help='draw no evidence maps, which take longest')
    add('--keep-names', action='store_true',
        help='write the names of files as they are, although they may name a person')
    add('--salt-file', type=Path, default=Path(configs.base().cache).expanduser() / 'salt',
        help='secret of the hashes that hide names (%(default)s)')
    add('--mapping', type=Path, metavar='FILE',
        help='write a private table of what the hidden names stand for; keep it to yourself')
    return made


def main(argv: Sequence[str]) -> int:
    """Predicts what the command line asks for; returns the exit code."""
    given = parser().parse_args(argv)
    row = finished.load(given.workdir, given.row, sharding.make_mesh(-1, 1, 1))
    # What the run compiled, or an earlier prediction, is read back.
    jax.config.update('jax_compilation_cache_dir', str(Path(row.config.cache).expanduser() / 'xla'))
    out = given.out or given.workdir / 'predictions' / row.name
    check_writable(out / 'predictions.csv', 'predictions')
    hasher = None if given.keep_names else deidentify.Hasher(
        deidentify.read_salt(given.salt_file, outside=out))
    mapping = deidentify.read_mapping(given.mapping) if given.mapping else {}
    like = finished.data_settings(row.preparation, row.config.seed, given.window)
    settings = incoming.settings_of(given.files, like)
    ledger = Ledger(out, row.identity() | {'window': settings.window})
    tray = _Tray(row, ledger, out, overlays=not given.no_overlays)
    entries = _read(settings, hasher, tray, mapping)
    if given.mapping and hasher:
        deidentify.write_mapping(given.mapping, mapping, outside=out)
    images = [entry | ledger.get(entry['content']) for entry in entries['images']]
    write_tables(out, images, entries['refused'], entries['remarks'], row.about())
    _tell(images, entries['refused'], row, out)
    return 1 if entries['refused'] else 0


def _read(settings: DataSettings, hasher: deidentify.Hasher | None, tray: '_Tray',
          mapping: dict[str, str]) -> dict[str, list[dict]]:
    """Reads the files and has their images answered: {'images', 'refused', 'remarks'}.

    Names are hidden in what is returned and printed, and `mapping` gets what they stand for.
    """
    entries: dict[str, list[dict]] = {'images': [], 'refused': [], 'remarks': []}
    for item, about in incoming.told(settings, hasher, 'predicting'):
        if hasher:
            mapping[about['file']] = item.source
        if isinstance(item, Record):
            mapping |= item.raw if hasher else {}
            pixels = decode_png(item.image, settings.channels)
            entries['images'].append(about | {'content': content_of(pixels)})
            tray.take(entries['images'][-1]['content'], pixels)
        elif isinstance(item, Skipped):
            entries['refused'].append(about | {'reason': item.reason})
            print(f'repdiff: file {about["file"]!r} (argument {about["argument"]}) {item.reason}',
                  file=sys.stderr)
        else:
            entries['remarks'].append(about | {'remark': item.remark})
    tray.clear()
    entries['images'].sort(key=lambda entry: entry.pop('place'))
    return entries


class _Tray:
    """Images wait here until enough are there to be answered together, and written down."""

    def __init__(self, row: FinishedRow, ledger: Ledger, out: Path, *, overlays: bool):
        self._row, self._ledger, self._out = row, ledger, out
        self._desk = Desk(row)
        self._explainer = Explainer(row) if overlays else None
        self._waiting: dict[str, np.ndarray] = {}

    def take(self, content: str, pixels: np.ndarray) -> None:
        """Takes an image (S, S, C) uint8, unless its answer is known."""
        known = self._ledger.get(content)
        drawn = known and known['overlay'] and (self._out / known['overlay']).exists()
        if known is None or (self._explainer and not drawn):
            self._waiting[content] = pixels
        if len(self._waiting) == _AT_ONCE:
            self.clear()

    def clear(self) -> None:
        """Answers whatever waits."""
        if not self._waiting:
            return
        found = [{'image': pixels, 'id': content, 'label': -1}
                 for content, pixels in self._waiting.items()]
        answers = self._desk.answer(found)
        if self._explainer:
            self._draw(found, answers)
        self._ledger.add(answers)
        self._waiting = {}

    def _draw(self, found: Sequence[dict], answers: Sequence[dict]) -> None:
        """Adds overlays to answers: the picture first, so that no line names a missing one."""
        began = time.monotonic()
        pairs = np.array([pair_of(answer['probabilities']) for answer in answers])
        names = self._row.setting.classes
        maps = self._explainer.maps(found, pairs)
        for record, answer, pair, each in zip(found, answers, pairs, maps, strict=True):
            answer['overlay'] = f'overlays/{answer["content"][:16]}.png'
            answer['evidence_pixels'] = int(each.shown.sum())
            write_atomic(self._out / answer['overlay'], picture(
                record['image'], each, _words(answer, names), tuple(names[k] for k in pair)))
        share = (time.monotonic() - began) / len(found)
        for answer in answers:
            answer['seconds'] = round(answer['seconds'] + share, 4)


def _words(answer: dict[str, Any], names: Sequence[str]) -> str:
    """The answer as a caption has it."""
    of = 1 if len(names) == 2 else answer['prediction']
    words = f'called {answer["class"]}, p({names[of]}) = {answer["probabilities"][of]:.3f}'
    return f'{words}; {FAR}' if answer['far'] else words


def _tell(images: Sequence[dict], refused: Sequence[dict], row: FinishedRow, out: Path) -> None:
    """The summary on the terminal."""
    counts = collections.Counter(image['class'] for image in images)
    called = ', '.join(f'{counts[name]} {name}' for name in row.setting.classes)
    print(f'{len(images)} images: {called}; {sum(image["far"] for image in images)} far from the '
          f'training data; {len(refused)} refused.')
    print(f'{out / "predictions.csv"} is ready. repdiff is {NOTICE}.')


if __name__ == '__main__':
    with exit_on_user_error():
        raise SystemExit(main(sys.argv[1:]))
