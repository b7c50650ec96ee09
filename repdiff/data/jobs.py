"""The work of preparing, cut into jobs that any process can do: read, label, hide names, render."""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repdiff.data import (arrays, deidentify, dicom, labels, named, nifti, phantom, pictures,
                          png, splits, windows)
from repdiff.data.refusal import Refused
from repdiff.data.render import render
from repdiff.data.settings import SIMULATED, TFDS, DataSettings
from repdiff.data.slices import SPLITS, Skipped, Slice
from repdiff.errors import UserError
from repdiff.progress import Progress

_PREVIEWS = 48  # slices shown before and after
_CHUNK = 32  # slices or pictures of a job: enough to outweigh the call


@dataclasses.dataclass(frozen=True)
class Job:
    """A part of the source that one process reads by itself; `size` counts files or slices."""

    kind: str
    work: Any
    size: int


@dataclasses.dataclass(frozen=True)
class Record:
    """A slice, ready to be stored, with what deciding on its split needs.

    `image` and `mask` are PNG bytes; `content` is the pixel hash; `order` is the patient's place in
    the hash order of the splits; `row` is the (hashed) key of its row of the label table.
    """

    id: str
    patient: str
    facility: str
    label: int
    markers: tuple[int, ...]
    split: str | None
    image: bytes
    mask: bytes | None
    content: str | None
    order: float
    source: str
    row: str
    raw: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Note:
    """A remark on a file that was kept."""

    source: str
    remark: str


@dataclasses.dataclass(frozen=True)
class Context:
    """What every job needs. `table` is None where the source labels itself."""

    settings: DataSettings
    table: labels.Table | None
    hasher: deidentify.Hasher | None


def is_files(settings: DataSettings) -> bool:
    """Whether the source is files, rather than simulated or of TFDS."""
    return settings.source != SIMULATED and not settings.source.startswith(TFDS)


def root_of(source: str) -> Path:
    """The directory that the names of a source's files are relative to."""
    path = Path(source).expanduser().absolute()
    return path if path.is_dir() else path.parent


def files_of(settings: DataSettings) -> list[Path]:
    """All files of a source on disk, sorted, without hidden ones and the label file.

    Raises: UserError where there is no such file or directory, or it holds none.
    """
    source, table = Path(settings.source).expanduser().absolute(), settings.labels_path()
    given = [Path(name).expanduser().absolute() for name in settings.files] or [source]
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += [each for each in path.rglob('*') if each.is_file() and not any(
                part.startswith('.') for part in each.relative_to(path).parts)]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f'source {str(path)!r} is neither a file nor a directory.')
    hidden = table.resolve() if table else None
    found = sorted({path for path in found if path.resolve() != hidden})
    if not found:
        raise UserError(f'source {settings.source!r} holds no files.')
    return found


def simulated_jobs(settings: phantom.Settings) -> Iterator[Job]:
    for split in SPLITS:
        count = getattr(settings, split)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            yield Job(SIMULATED, (split, start, stop), stop - start)


def named_jobs(source: str) -> Iterator[Job]:
    """Jobs of a TFDS data set."""
    for split, count in named.sizes(source).items():
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            yield Job('tfds', (split, start, stop), stop - start)


def kind_of(path: Path) -> str:
    """'pictures', 'nifti', 'arrays' or 'dicom'; '' is none of these."""
    if pictures.is_picture(path):
        return 'pictures'
    if nifti.is_nifti(path):
        return 'nifti'
    if arrays.is_array(path):
        return 'arrays'
    return 'dicom' if os.access(path, os.R_OK) and dicom.is_dicom(path) else ''


def file_jobs(paths: Iterable[Path], root: Path, note: Callable[[str, str], None]) \
        -> Iterator[Job | Skipped]:
    """One job a chunk of pictures, a volume, an array or a DICOM series; the rest is Skipped."""
    chunk: list[Path] = []
    seen: list[Path] = []
    scans: list[Path] = []
    for path in paths:
        kind = kind_of(path)
        if kind == 'pictures':
            chunk.append(path)
            seen.append(path)
            if len(chunk) == _CHUNK:
                yield Job(kind, tuple(chunk), len(chunk))
                chunk = []
        elif kind == 'dicom':
            scans.append(path)
        elif kind:
            yield Job(kind, path, 1)
        else:
            yield Skipped(str(path), 'is no DICOM, NIfTI, NumPy, PNG, JPEG or TIFF file.')
    if chunk:
        yield Job('pictures', tuple(chunk), len(chunk))
    if seen:
        note(str(seen[0]), f'no picture says whether text is burned in ({len(seen):,} in all): '
             'look at the contact sheet for burned-in text')
    for series in dicom.scan(_watched(scans), root=root, note=note) if scans else ():
        yield (series if isinstance(series, Skipped)
               else Job('dicom', series, len(series.entries)))


def _watched(scans: Sequence[Path]) -> Iterator[Path]:
    """The files, with the progress of whoever takes them; few are no wait worth a line."""
    progress = Progress(len(scans), 'reading DICOM headers', 'files')
    for path in scans:
        yield path
        if len(scans) > _CHUNK:
            progress.update()


def files_in(job: Job) -> tuple[Path, ...]:
    """The files of a job."""
    if job.kind == 'dicom':
        return tuple(entry.path for entry in job.work.entries)
    return job.work if job.kind == 'pictures' else (Path(str(job.work)),)


def do(job: Job, context: Context) -> list[Record | Skipped | Note]:
    """Everything that one job gives; names are hidden in records, sources are below the root."""
    notes: list[tuple[str, str]] = []
    done: list[Record | Skipped | Note] = []
    root = root_of(context.settings.source)
    for item in _read(job, context.settings, lambda *note: notes.append(note)):
        item = dataclasses.replace(item, source=below(item.source, root))
        if isinstance(item, Slice):
            try:
                item = _record(item, context)
            except Refused as refusal:
                item = Skipped(item.source, f'{refusal}.')
        done.append(item)
    return done + [Note(below(source, root), remark) for source, remark in notes]


def below(path: str, root: Path) -> str:
    """A file's name relative to the root; other sources stay as they are."""
    return Path(os.path.relpath(path, root)).as_posix() if Path(path).is_absolute() else path


def _read(job: Job, settings: DataSettings, note: Callable[[str, str], None]) \
        -> Iterator[Slice | Skipped]:
    if job.kind == SIMULATED:
        yield from phantom.slices(settings.simulated, *job.work)
        return
    if job.kind == 'tfds':
        yield from named.read(settings.source, *job.work)
        return
    root = root_of(settings.source)
    if job.kind == 'pictures':
        yield from pictures.read(job.work, root=root)
    elif job.kind == 'nifti':
        yield from nifti.read([job.work], root=root, note=note)
    elif job.kind == 'arrays':
        yield from arrays.read([job.work], root=root)
    else:
        yield from dicom.read_series(job.work, note=note)


def labelled(item: Slice, context: Context) -> tuple[Slice, labels.Row | None]:
    """The slice with what its row of the label table says, and the row.

    Raises: Refused for a picture that a plain CSV does not list.
    """
    if context.table is None:
        return item, None
    row = context.table.find(item)
    if row is None:
        if context.settings.label_format == 'csv' and item.unit == 'grey':
            raise Refused('has no row in the label file')
        return dataclasses.replace(item, markers=(-1,) * len(context.table.markers)), None
    return dataclasses.replace(
        item, label=row.label, markers=row.markers, split=row.split,
        patient=row.patient or item.patient, facility=row.facility or item.facility), row


def chosen_windows(item: Slice, row: labels.Row | None, settings: DataSettings) \
        -> tuple[windows.Window, ...]:
    """Of HU the row's windows, the simulated slice's own, or the settings' for its facility.

    A DICOM header's window is not used: it differs from scan to scan.
    """
    if item.unit == 'grey':
        return ()
    if row is not None and row.window:
        return windows.parse(row.window)
    if settings.source == SIMULATED and settings.channels == 1:
        return (item.window,)
    return windows.of_facility(windows.parse_facilities(settings.window), item.facility)


def _record(item: Slice, context: Context) -> Record:
    """Labels, renders and hides the names of a slice."""
    item, row = labelled(item, context)
    pixels = render(item, chosen_windows(item, row, context.settings), context.settings)
    item = dataclasses.replace(item, patient=item.patient or item.id)
    order = splits.draw(item.patient, context.settings.seed)
    source, key, raw = item.source, row.key if row else '', item
    if context.hasher is not None:
        item, key = deidentify.anonymise(item, context.hasher), context.hasher.name('row', key)
    return Record(
        id=item.id, patient=item.patient, facility=item.facility,
        label=-1 if item.label is None else item.label, markers=item.markers, split=item.split,
        image=png.encode_png(pixels),
        mask=None if item.mask is None else png.encode_png(item.mask),
        content=png.pixel_hash(pixels), order=order, source=source, row=key,
        raw={item.id: raw.id, item.patient: raw.patient, item.facility: raw.facility})


def previews(paths: Sequence[Path], context: Context, skipped: Collection[str]) \
        -> Iterator[tuple[np.ndarray, ...]]:
    """The middle slices of up to _PREVIEWS files, evenly spaced: without and with the head mask.

    Args:
      skipped: files, below the root, of which something was left out: none of these is shown.
    """
    settings, root = context.settings, root_of(context.settings.source)
    plain = dataclasses.replace(settings, head_mask=False, crop=False)
    kept = [path for path in paths if below(str(path), root) not in skipped]
    for place in np.linspace(0, len(kept) - 1, min(_PREVIEWS, len(kept))):
        for job in file_jobs([kept[round(place)]], root, lambda source, remark: None):
            items = [item for item in _read(job, settings, lambda source, remark: None)
                     if isinstance(item, Slice)] if isinstance(job, Job) else []
            for item in items[len(items) // 2:][:1]:
                item = dataclasses.replace(item, source=below(item.source, root))
                try:
                    item, row = labelled(item, context)
                    chosen = chosen_windows(item, row, settings)
                    pair = render(item, chosen, plain), render(item, chosen, settings)
                except Refused:
                    continue
                yield pair
