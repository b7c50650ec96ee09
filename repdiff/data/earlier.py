"""What an earlier data set still gives: its patients' splits, and the records of unchanged files.

Beside the records lies `sources.json`. It knows files by salted hashes, so it names nobody.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from repdiff.data import labels, records, splits
from repdiff.data.deidentify import Hasher, hidden
from repdiff.data.jobs import below
from repdiff.data.settings import FORMAT, DataSettings
from repdiff.data.work import Record
from repdiff.errors import UserError

MEMORY = 'sources.json'
_FREE = ('name', 'source', 'files', 'labels')  # settings that may change from run to run


def _key(settings: DataSettings, hasher: Hasher | None) -> str:
    """What must agree for patients to keep their splits: settings and salt."""
    facts = {key: value for key, value in dataclasses.asdict(settings).items() if key not in _FREE}
    facts |= {'salt': hidden('salt', 'salt', hasher)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _code() -> str:
    """What must agree besides for records to be used again."""
    return f'{importlib.metadata.version("repdiff")} {FORMAT}'


def _stamp(path: Path, hasher: Hasher | None) -> str:
    """Changes when the file does; hidden, for the time may be that of an examination."""
    status = path.stat()
    return hidden('stamp', f'{status.st_size} {status.st_mtime_ns}', hasher)


def memory(settings: DataSettings, paths: Sequence[Path], root: Path, found: Sequence[Record],
           where: Sequence[str | None], troubled: set[str], windows: Mapping[str, str],
           hasher: Hasher | None) -> str:
    """`sources.json` of a data set about to be written.

    Args:
      paths: all files of the source. Those that are troubled, or gave a record that was left out,
        are not remembered, so they are tried again.
      found, where: the records and their splits.
      troubled: files, below the root, of which something was skipped.
      windows: key of a label row -> its window; keys as in the records.
    """
    files: dict[str, list[dict] | None] = {}
    counts = dict.fromkeys(splits.SPLITS, 0)
    for record, place in zip(found, where, strict=True):
        if place is None:
            files[record.source] = None
            continue
        if files.setdefault(record.source, []) is not None:
            files[record.source].append({
                'split': place, 'index': counts[place], 'row': record.row,
                'window': windows.get(record.row, ''), 'content': record.content})
        counts[place] += 1
    known = {}
    for path in paths:
        name = below(str(path), root)
        if name not in troubled and files.get(name):
            known[hidden('file', name, hasher)] = {
                'stamp': _stamp(path, hasher), 'records': files[name]}
    patients = {record.patient: place for record, place in zip(found, where, strict=True) if place}
    return json.dumps({'key': _key(settings, hasher), 'code': _code(), 'patients': patients,
                       'files': known})


class Earlier:
    """An earlier data set made with the same settings.

    Attributes:
      kept: patient -> split, names as the data set holds them.
    """

    def __init__(self, dataset: records.Dataset, held: dict, hasher: Hasher | None,
                 table: labels.Table, seed: int):
        self.kept: dict[str, str] = held['patients']
        self._dataset, self._files, self._hasher = dataset, held['files'], hasher
        self._seed = seed
        self._splits = {name: dataset.split(name) for name in dataset.splits}
        self._rows = {hidden('row', row.key, hasher): row
                      for row in dict.fromkeys(table.rows.values())}

    def remarks(self, names: set[str]) -> list[dict]:
        """The remarks on the files `names`, below the root, as `prepare.json` held them."""
        hashed = {hidden('file', name, self._hasher) for name in names}
        return [note for note in self._dataset.info['notes'] if note['source'] in hashed]

    def reuse(self, path: Path, root: Path) -> list[Record] | None:
        """The records of a file that is as it was, with today's labels; None if it must be read."""
        name = below(str(path), root)
        known = self._files.get(hidden('file', name, self._hasher))
        if known is None or known['stamp'] != _stamp(path, self._hasher):
            return None
        made = [self._record(each, name) for each in known['records']]
        return None if None in made else made

    def _record(self, held: dict, source: str) -> Record | None:
        row = self._rows.get(held['row'])
        if row is None or row.window != held['window']:
            return None
        old = self._splits[held['split']].stored(held['index'])
        facility = hidden('facility', row.facility, self._hasher) or old['facility']
        if facility != old['facility']:  # it decides on the window
            return None
        return Record(
            id=old['id'], patient=hidden('patient', row.patient, self._hasher) or old['patient'],
            facility=facility, label=-1 if row.label is None else row.label, markers=row.markers,
            split=row.split, image=old['image'], mask=old['mask'], content=held['content'],
            order=splits.draw(row.patient, self._seed), source=source, row=held['row'], raw={})


def load(place: Path | None, settings: DataSettings, hasher: Hasher | None,
         table: labels.Table) -> Earlier | None:
    """The earlier data set at `place`, or None where there is none of the same settings."""
    if place is None or not (place / MEMORY).is_file():
        return None
    try:
        held = json.loads((place / MEMORY).read_text())
        dataset = records.open(place)
    except (OSError, ValueError, UserError):
        return None
    if held.get('key') != _key(settings, hasher):
        return None
    if held['code'] != _code():  # its records may be others, its patients stay
        held['files'] = {}
    return Earlier(dataset, held, hasher, table, settings.seed)
