"""The label table that the settings ask for, its usual columns found, checked against the files."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from repdiff.data import jobs, label_formats, labels
from repdiff.data.settings import LABEL_COLUMNS, DataSettings
from repdiff.errors import UserError


def read(settings: DataSettings) -> labels.Table:
    """The label table, its 'auto' columns found; UserError where there is none or it is bad."""
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
                                f'name one: {label_formats.columns_are(header)}.')
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


def check(settings: DataSettings, table: labels.Table, paths: Sequence[Path]) -> None:
    """What a plain CSV must keep to, before any work: its files are there, each patient once."""
    if settings.label_format != 'csv':
        return
    label_file = str(settings.labels_path())
    rows = dict.fromkeys(table.rows.values())
    if {jobs.kind_of(path) for path in paths} <= {'pictures', ''}:
        _check_files(label_file, settings, table, paths)
    first: dict[str, labels.Row] = {}
    for row in rows:
        if row.patient and row.split:
            other = first.setdefault(row.patient, row)
            if other.split != row.split:
                raise UserError(
                    f'rows {other.number} and {row.number} of {label_file!r} put one patient into '
                    f'two splits, {other.split} and {row.split}; keep a patient in one.')


def _check_files(label_file: str, settings: DataSettings, table: labels.Table,
                 paths: Sequence[Path]) -> None:
    rows = dict.fromkeys(table.rows.values())
    if settings.patient_column == 'auto' and not any(row.patient for row in rows):
        raise UserError(f"{label_file!r} has no column 'patient', so images of a person could end "
                        'up in two splits; name another with --config.data.patient_column '
                        '(prepare: --patient-column); '
                        f'{label_formats.columns_are(_header(Path(label_file)))}.')
    root = jobs.root_of(settings.source)
    known = set()
    for path in paths:
        parts = Path(os.path.relpath(path, root)).parts
        for start in range(len(parts)):
            name = '/'.join(parts[start:])
            known |= {name, str(Path(name).with_suffix(''))}
    for row in rows:
        parts = row.key.split('/')
        if not settings.files and known.isdisjoint(
                '/'.join(parts[start:]) for start in range(len(parts))):
            if table.of_patients:
                raise UserError(f'as {label_file!r} has {label_formats.NO_FILES}; '
                                f'{label_formats.columns_are(_header(Path(label_file)))}.')
            raise UserError(f'row {row.number} of {label_file!r} names a file that is not in '
                            f'{str(root)!r}; remove the row or add the file.')
