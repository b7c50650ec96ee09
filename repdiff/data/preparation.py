"""From a source to a data set on disk: read in parallel, split, check, write."""

import csv
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from repdiff.data import deidentify, jobs, labels, phantom, placing, records, splits, workers
from repdiff.data.jobs import Context, Job, Note, Record
from repdiff.data.pictures import is_picture
from repdiff.data.settings import LABEL_COLUMNS, SIMULATED, TFDS, DataSettings
from repdiff.data.slices import SPLITS, Skipped
from repdiff.errors import UserError
from repdiff.progress import Progress


class Spool:
    """Records with their pictures in an unnamed temporary file, which no kill leaves behind."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.records: list[Record] = []
        self._places: list[tuple[int, int, int]] = []  # offset, bytes of image and of mask

    def add(self, record: Record) -> None:
        """Takes a record; its `image` and `mask` live in the file from now on."""
        mask = record.mask or b''
        self._places.append((self._file.seek(0, os.SEEK_END), len(record.image), len(mask)))
        self._file.write(record.image)
        self._file.write(mask)
        self.records.append(dataclasses.replace(record, image=b'', mask=None))

    @property
    def has_masks(self) -> bool:
        """Whether the records come with masks."""
        return any(mask for _, _, mask in self._places)

    def stored(self, index: int) -> dict:
        """A record as `records.write` takes it."""
        offset, image, mask = self._places[index]
        self._file.seek(offset)
        record = self.records[index]
        return {'image': self._file.read(image), 'mask': self._file.read(mask) or None,
                **{key: getattr(record, key)
                   for key in ('label', 'id', 'patient', 'facility', 'markers')}}


def prepare(settings: DataSettings, out: Path, *, strict: bool, processes: int,
            salt: bytes | None) -> records.Dataset:
    """Prepares a data set at `out`, whole or not at all.

    Args:
      strict: makes the first file that cannot be used an error.
      processes: how many read the source.
      salt: of the hashes that hide names; None where `settings.deidentify` is False.

    Raises: UserError on anything wrong with the source, the labels or the splits.
    """
    hasher = deidentify.Hasher(salt) if settings.deidentify and jobs.is_files(settings) else None
    paths = jobs.files_of(settings) if jobs.is_files(settings) else []
    table = read_table(settings) if paths else None
    context = Context(settings, table, hasher)
    notes: list[Note] = []
    todo, skipped = _plan(context, paths, notes)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent) as file:
        spool = Spool(file)
        _read_all(todo, context, processes, strict, spool, skipped, notes)
        classes, markers = _meaning(settings, table)
        where, left_out = placing.place(spool.records, settings, hasher, {})
        skipped += left_out
        _check(spool.records, where, classes)
        info = _info(settings, spool, where, classes, markers)
        info['skipped'] = [_hidden(item.source, 'reason', item.reason, hasher) for item in skipped]
        info['notes'] = [_hidden(item.source, 'remark', item.remark, hasher) for item in notes]
        chosen = {name: _stored(spool, where, name) for name in SPLITS if name in where}
        return records.write(chosen, out, info)


def _stored(spool: Spool, where: Sequence[str | None], name: str) -> Iterator[dict]:
    return (spool.stored(index) for index, place in enumerate(where) if place == name)


def read_table(settings: DataSettings) -> labels.Table:
    """The label table, its 'auto' columns found; UserError where there is none or it is not right."""
    path = settings.labels_path()
    if path is None:
        raise UserError(f'source {settings.source!r} has no labels.csv beside its files; name the '
                        'CSV of labels.')
    label = settings.label
    if settings.label_format != 'csv':
        label, columns = '' if label == 'auto' else label, labels.Columns()
    else:
        header = _header(path)
        found = {key: _column(key, getattr(settings, f'{key}_column'), header)
                 for key in ('key', 'patient', 'facility', 'window')}
        columns = labels.Columns(**found, split=settings.split_column)
        if label == 'auto':
            label = next((name for name in LABEL_COLUMNS if name in header), None)
            if label is None:
                raise UserError(f'{str(path)!r} has no label column {", ".join(LABEL_COLUMNS)}; '
                                f'name one of its columns {", ".join(header)}.')
    classes = settings.classes or None
    return labels.read(
        path, preset=settings.label_format, label=label,
        classes='auto' if classes == ('auto',) else classes, markers=settings.markers,
        columns=columns)


def _header(path: Path) -> list[str]:
    try:
        with path.open(encoding='utf-8-sig', newline='') as file:
            return [cell.strip() for cell in next(csv.reader(file), [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'cannot read the label file {str(path)!r}: '
                        f'{getattr(error, "strerror", None) or error}.') from None


def _column(key: str, name: str, header: Sequence[str]) -> str:
    """The column of a key; 'auto' finds those of the usual names."""
    if name != 'auto':
        return name
    usual = ('file', 'id') if key == 'key' else (key,)
    return next((each for each in usual if each in header), '')


def _plan(context: Context, paths: Sequence[Path], notes: list[Note]) \
        -> tuple[list[Job], list[Skipped]]:
    """The jobs of the source, and the files that are none."""
    settings = context.settings
    if settings.source == SIMULATED:
        return list(jobs.simulated_jobs(settings.simulated)), []
    if settings.source.startswith(TFDS):
        return list(jobs.tfds_jobs(jobs.tfds_builder(settings.source))), []
    _check_table(settings, context.table, paths)

    root = jobs.root_of(settings.source)

    def note(source: str, remark: str) -> None:
        notes.append(Note(jobs.below(source, root), remark))

    planned = list(jobs.file_jobs(paths, root, note))
    todo = [each for each in planned if isinstance(each, Job)]
    foreign = [Skipped(jobs.below(each.source, root), each.reason) for each in planned
               if isinstance(each, Skipped)]
    if not todo:
        raise UserError(f'source {settings.source!r} holds no DICOM, NIfTI, NumPy or picture file.')
    return todo, foreign


def _check_table(settings: DataSettings, table: labels.Table, paths: Sequence[Path]) -> None:
    """What a plain CSV must keep to, before any work: its files are there, each patient once.

    Rows are named by number, for the names in them may be a person's.
    """
    if settings.label_format != 'csv':
        return
    label_file = str(settings.labels_path())
    rows = dict.fromkeys(table.rows.values())
    if all(map(is_picture, paths)):
        _check_files(label_file, settings, rows, paths)
    first: dict[str, tuple[int, str]] = {}
    for number, row in enumerate(rows, 2):
        if row.patient and row.split:
            other, place = first.setdefault(row.patient, (number, row.split))
            if place != row.split:
                raise UserError(f'rows {other} and {number} of {label_file!r} put one patient into '
                                f'two splits, {place} and {row.split}; keep a patient in one.')


def _check_files(label_file: str, settings: DataSettings, rows: dict[labels.Row, None],
                 paths: Sequence[Path]) -> None:
    if settings.patient_column == 'auto' and not any(row.patient for row in rows):
        raise UserError(f"{label_file!r} has no column 'patient', so images of a person could end "
                        'up in two splits; its columns are '
                        f'{", ".join(map(repr, _header(Path(label_file))))}.')
    root = jobs.root_of(settings.source)
    known = set()
    for path in paths:
        parts = Path(os.path.relpath(path, root)).parts
        for start in range(len(parts)):
            name = '/'.join(parts[start:])
            known |= {name, str(Path(name).with_suffix(''))}
    for number, row in enumerate(rows, 2):
        name = row.key
        parts = name.split('/')
        if not settings.files and known.isdisjoint(
                '/'.join(parts[start:]) for start in range(len(parts))):
            raise UserError(f'row {number} of {label_file!r} names the file {name!r}, which is not '
                            f'in {str(root)!r}; remove the row or add the file.')


def _read_all(todo: Sequence[Job], context: Context, processes: int, strict: bool, spool: Spool,
              skipped: list[Skipped], notes: list[Note]) -> None:
    """Does all jobs: records to the spool, what is left out and remarks to their lists."""
    progress = Progress(sum(job.size for job in todo), f'preparing {context.settings.name}',
                        'files' if jobs.is_files(context.settings) else 'images')
    names: dict[str, str] = {}
    for job, results in workers.run(jobs.do, todo, context, processes):
        for item in results:
            if isinstance(item, Record):
                if names.setdefault(item.id, item.source) != item.source:
                    raise UserError(f'files {names[item.id]!r} and {item.source!r} give the same '
                                    f'image name {item.id!r}; rename one.')
                spool.add(item)
            elif isinstance(item, Note):
                notes.append(item)
            else:
                if strict:
                    raise UserError(f'file {item.source!r} {deidentify.scrub(item.reason)}')
                skipped.append(item)
        progress.update(job.size)
    if not spool.records:
        first = skipped[0] if skipped else None
        first = f'; file {first.source!r} {deidentify.scrub(first.reason)}' if first else '.'
        raise UserError(f'source {context.settings.source!r} gives no image at all{first}')


def _meaning(settings: DataSettings, table: labels.Table | None) \
        -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes and of the markers."""
    if table is not None:
        return table.classes, table.markers
    if settings.source == SIMULATED:
        return ('no hematoma', 'hematoma'), phantom.MARKERS
    feature = jobs.tfds_builder(settings.source).info.features['label']
    return tuple(feature.names), ()


def _check(found: Sequence[Record], where: Sequence[str | None], classes: Sequence[str]) -> None:
    """No patient and no content in two splits, and examples of each class in the labelled ones."""
    kept = [(record, place) for record, place in zip(found, where, strict=True) if place]
    splits.check_patients((record.patient, place, record.source) for record, place in kept)
    splits.check_pixels((record.source, record.content, place) for record, place in kept)
    splits.check_classes(((record.label, place) for record, place in kept), classes)


def _info(settings: DataSettings, spool: Spool, where: Sequence[str | None],
          classes: Sequence[str], markers: Sequence[str]) -> dict:
    """What `prepare.json` says, but for the splits and what was skipped or remarked."""
    made = dataclasses.asdict(settings)
    content = hashlib.sha256()
    for record, place in zip(spool.records, where, strict=True):
        content.update(repr((record.id, record.patient, record.facility, record.label,
                             record.markers, record.content, place)).encode())
    shown = {key: made[key] for key in ('label_format', 'label', 'window', 'head_mask', 'crop',
                                        'fractions', 'seed', 'deidentify', 'simulated')}
    return {
        'name': settings.name,
        'simulated': settings.source == SIMULATED,
        'classes': list(classes),
        'markers': list(markers),
        'masks': spool.has_masks,
        'image_size': settings.image_size,
        'channels': settings.channels,
        'settings': shown,
        'fingerprint': content.hexdigest(),
    }


def _hidden(source: str, key: str, text: str, hasher: deidentify.Hasher | None) -> dict[str, str]:
    """A skip or a remark as `prepare.json` has it: without names, where names are to be hidden."""
    if hasher is None:
        return {'source': source, key: text}
    item = deidentify.anonymise(Skipped(source, text), hasher)
    return {'source': item.source, key: item.reason}
