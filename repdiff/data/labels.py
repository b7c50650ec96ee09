"""Label tables: a CSV, or one of three public formats, to one row a slice, file or patient."""

import csv
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from repdiff.data import label_formats, rule, windows
from repdiff.data.slices import Slice
from repdiff.errors import UserError

_BINARY = {
    '0': 0, '0.0': 0, 'false': 0, 'no': 0,
    '1': 1, '1.0': 1, 'true': 1, 'yes': 1,
    '': None,
}  # fmt: skip
_SPLITS = {
    'pretrain': 'pretrain', 'pre-train': 'pretrain',
    'train': 'train', 'training': 'train',
    'valid': 'valid', 'val': 'valid', 'validation': 'valid',
    'test': 'test', '': None,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a plain CSV by what they hold; '' where there is none.

    Attributes:
      key: file name or slice id. Without it the labels are of whole patients.
      patient: patient name, the grouping key of the splits.
      facility: where the image comes from.
      split: pretrain, train, valid or test.
      window: a window as `windows.parse` reads it.
    """

    key: str = ''
    patient: str = ''
    facility: str = ''
    split: str = ''
    window: str = ''


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What the table says of one slice, file or patient; '' and None where it says nothing.

    Attributes:
      key: the name in the table.
      label: class id; None is unlabelled.
      markers: 0, 1, or -1 for an empty cell, in the order of `Table.markers`.
      number: of the row in the file, by which errors name it.
    """

    key: str
    label: int | None
    markers: tuple[int, ...] = ()
    patient: str = ''
    facility: str = ''
    split: str | None = None
    window: str = ''
    number: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass(frozen=True)
class Table:
    """All rows, with what a class id and a marker position mean.

    Attributes:
      classes: names by class id; of a binary label (`no NAME`, `NAME`).
      markers: names of the marker columns.
      of_patients: True where a row speaks of a whole patient.
      rows: by name; a row may be listed under several.
    """

    classes: tuple[str, ...]
    markers: tuple[str, ...]
    of_patients: bool
    rows: Mapping[str, Row]

    def find(self, item: Slice) -> Row | None:
        """The row of a slice as a reader yields it (raw names), or None.

        A table of slices is searched by `item.id`, then by `item.source`, as whole paths and then
        with leading directories dropped, with the extension and without; a row that names a volume
        thus holds for all its slices. A table of patients is searched by `item.patient`, then by
        the directories and the stem of `item.source`, innermost first.
        """
        names = _patient_names(item) if self.of_patients else _slice_names(item)
        return next((self.rows[name] for name in names if name in self.rows), None)


def _slice_names(item: Slice) -> Iterator[str]:
    for path in (item.id, item.source):
        parts = PurePosixPath(path.replace('\\', '/')).parts
        for start in range(len(parts)):
            name = '/'.join(parts[start:]).removeprefix('//')
            yield name
            yield _without_extension(name)


def _patient_names(item: Slice) -> Iterator[str]:
    yield item.patient
    parts = PurePosixPath(item.source.replace('\\', '/')).parts
    for part in reversed(parts):
        yield part
        yield _without_extension(part)
        yield part.split(' ')[0]


def _without_extension(name: str) -> str:
    """`a/b.nii.gz#3` -> `a/b#3`."""
    path, hash_sign, number = name.partition('#')
    stem = PurePosixPath(path.removesuffix('.gz'))
    return str(stem.with_suffix('') if stem.name else stem) + hash_sign + number


def read(
    path: str | os.PathLike,
    *,
    preset: str,
    label: str,
    classes: Sequence[str] | str | None,
    markers: Sequence[str],
    columns: Columns,
) -> Table:
    """Reads a label table.

    Args:
      path: CSV file, UTF-8, comma-separated, with a header.
      preset: 'csv', whose `columns` are given, or 'rsna', 'ct_ich', 'cq500' (`label_formats`).
      label: a column, or a rule such as `hematoma = hypodensities | blend_sign`; '' takes the
        preset's own, and in a plain CSV leaves all unlabelled.
      classes: None for a binary label; class names in the order of their ids; or 'auto' for the
        sorted values of the column.
      markers: columns kept as multi-label; () takes those of a rule with two columns or more.
      columns: where a plain CSV holds what; presets know theirs.

    Raises:
      UserError: a file, column, value or rule that cannot be used. It names rows by number and
        columns, and quotes no cell: any may hold a person's name.
    """
    if preset not in ('csv', *label_formats.FORMATS):
        raise UserError(
            f'label preset {preset!r} is unknown; there are csv, '
            f'{", ".join(label_formats.FORMATS)}.'
        )
    source = str(path)
    lines = _lines(source)
    header = _header(source, lines)
    rows = _rows(source, header, lines)
    if preset != 'csv':
        form = label_formats.FORMATS[preset]
        header, rows = form.convert(source, header, rows)
        label = label or form.label
        columns = Columns(key=form.key, patient=form.patient)
    return _build(source, header, rows, label, classes, tuple(markers), columns)


def _lines(source: str) -> Iterator[tuple[int, list[str]]]:
    """Row numbers, as a spreadsheet shows them, and cells; empty lines are passed over."""
    try:
        with open(source, encoding='utf-8-sig', newline='') as file:
            for number, line in enumerate(csv.reader(file, strict=True), 1):
                if line:
                    yield number, [cell.strip() for cell in line]
    except OSError as error:
        raise UserError(f'cannot read the label file {source!r}: {error.strerror}.') from None
    except UnicodeDecodeError:
        raise UserError(f'label file {source!r} is not UTF-8 text; save it as CSV UTF-8.') from None
    except csv.Error as error:
        raise UserError(f'label file {source!r} is not a readable CSV: {error}.') from None


def _header(source: str, lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    header = next(lines, (0, []))[1]
    if not header:
        raise UserError(f'label file {source!r} is empty; give a CSV with a header and rows.')
    if len(header) == 1 and ';' in header[0]:
        raise UserError(f'label file {source!r} is separated by semicolons; save it with commas.')
    for place, name in enumerate(header, 1):
        if name in header[place:]:
            raise UserError(f'columns {place} and {header.index(name, place) + 1} of label file '
                            f'{source!r} have the same name; rename one.')
    return header


def _rows(
    source: str, header: list[str], lines: Iterator[tuple[int, list[str]]]
) -> label_formats.Rows:
    for number, line in lines:
        if len(line) != len(header):
            raise UserError(
                f'row {number} of {source!r} has {len(line)} cells where the header has '
                f'{len(header)}.'
            )
        yield number, dict(zip(header, line))


def _build(
    source: str,
    header: list[str],
    rows: label_formats.Rows,
    label: str,
    classes: Sequence[str] | str | None,
    markers: tuple[str, ...],
    columns: Columns,
) -> Table:
    parsed = rule.parse(label) if label else None
    inputs = parsed.markers if parsed else ()
    if not (columns.key or columns.patient):
        raise UserError(f'labels of {source!r} need the column of file names, ids or patients.')
    label_formats.require(source, header, inputs + markers + dataclasses.astuple(columns))
    if classes is None:
        names = (f'no {parsed.name}', parsed.name) if parsed else ()
        markers = markers or (inputs if len(inputs) > 1 else ())
    else:
        if len(inputs) != 1 or not isinstance(parsed.tree, str):
            raise UserError(f'classes need one label column, and {label!r} is not one.')
        rows = list(rows)
        values = {cells[inputs[0]] for _, cells in rows} - {''}
        names = tuple(sorted(values)) if classes == 'auto' else tuple(classes)
    table: dict[str, Row] = {}
    first: dict[str, int] = {}
    for number, cells in rows:
        at = f'row {number} of {source!r}'
        label_id = _label(at, cells, parsed, classes, names)
        row = _row(at, number, cells, columns, markers, label_id)
        if not row.key:
            raise UserError(f'{at} has an empty {columns.key or columns.patient!r}; fill it in.')
        for name in (row.key, *cells.get(label_formats.ALIASES, '').split('\t')):
            if name and table.setdefault(name, row) is not row:
                mend = 'keep one row for each' if columns.key else (
                    f'keep one row for each patient, or, as there is {label_formats.NO_FILES}; '
                    f'{label_formats.columns_are(header)}')
                raise UserError(f'{at} repeats the name of row {first[name]}; {mend}.')
            first[name] = number
    if not table:
        raise UserError(f'label file {source!r} has no rows below its header.')
    return Table(names, markers, not columns.key, table)


def _label(
    at: str,
    cells: dict[str, str],
    parsed: rule.Rule | None,
    classes: Sequence[str] | str | None,
    names: tuple[str, ...],
) -> int | None:
    if parsed is None:
        return None
    if classes is None:
        return parsed({name: _binary(at, name, cells[name]) for name in parsed.markers})
    value = cells[parsed.markers[0]]
    if value and value not in names:
        raise UserError(
            f'{at} has none of the classes {", ".join(names)} in {parsed.markers[0]!r}; mend it, '
            'or leave it empty if unknown.'
        )
    return names.index(value) if value else None


def _row(
    at: str,
    number: int,
    cells: dict[str, str],
    columns: Columns,
    markers: tuple[str, ...],
    label: int | None,
) -> Row:
    split = cells[columns.split].lower() if columns.split else ''
    if split not in _SPLITS:
        raise UserError(f'{at} has no split in {columns.split!r}; use pretrain, train, valid or '
                        'test.')
    window = cells[columns.window] if columns.window else ''
    if window:
        try:
            windows.parse(window)
        except UserError:
            raise UserError(f'{at} has no window such as brain or 40/80 in {columns.window!r}; '
                            'mend it, or leave it empty.') from None
    values = [_binary(at, name, cells[name]) for name in markers]
    key = cells[columns.key or columns.patient].replace('\\', '/').removeprefix('./')
    return Row(
        key=key,
        label=label,
        markers=tuple(-1 if value is None else value for value in values),
        patient=cells[columns.patient] if columns.patient else '',
        facility=cells[columns.facility] if columns.facility else '',
        split=_SPLITS[split],
        window=window,
        number=number,
    )


def _binary(at: str, column: str, value: str) -> int | None:
    if value.lower() not in _BINARY:
        raise UserError(
            f'{at} is neither 0 nor 1 in {column!r}; mend it, or leave it empty if unknown.'
        )
    return _BINARY[value.lower()]
