"""What a process does with a job: read, label, look for text, render, hide names."""

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from repdiff.data import (arrays, burned_in, deidentify, dicom, labels, nifti, phantom, pictures,
                          png, splits, windows)
from repdiff.data.jobs import Job, below, root_of
from repdiff.data.refusal import Refused
from repdiff.data.render import render
from repdiff.data.settings import SIMULATED, DataSettings
from repdiff.data.slices import Skipped, Slice
from repdiff.errors import UserError


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


def do(job: Job, context: Context) -> Iterator[Record | Skipped | Note]:
    """Everything that one job gives; names are hidden in records, sources are below the root."""
    notes: list[tuple[str, str]] = []
    slices: Counter[str] = Counter()
    texts: dict[str, list[str]] = defaultdict(list)
    root = root_of(context.settings.source)
    for item in _read(job, context.settings, lambda *note: notes.append(note)):
        item = dataclasses.replace(item, source=below(item.source, root))
        if isinstance(item, Slice):
            whole = item.source if job.kind == 'pictures' else ''  # else a series or a volume
            slices[whole] += 1
            if job.kind != SIMULATED and burned_in.seen(item.pixels, item.unit):
                texts[whole].append(item.source)
            try:
                item = _record(item, context)
            except Refused as refusal:
                item = Skipped(item.source, f'{refusal}.')
        yield item
    for source, remark in notes:
        yield Note(below(source, root), remark)
    for whole, sources in texts.items():
        yield Note(sources[0], _text_remark(len(sources), slices[whole], context.settings))


def _text_remark(count: int, slices: int, settings: DataSettings) -> str:
    where = f' in {count} of {slices} slices' if slices > 1 else ''
    what = ('the head mask removes what lies beside the head, so look for more'
            if settings.head_mask else 'look at it before you share the data set')
    return f'{burned_in.REMARK}{where}: {what}'


def _read(job: Job, settings: DataSettings, note: Callable[[str, str], None]) \
        -> Iterator[Slice | Skipped]:
    if job.kind == SIMULATED:
        yield from phantom.slices(settings.simulated, *job.work)
        return
    if job.kind == 'tfds':
        from repdiff.data import named  # imports TFDS, which takes longer than all the rest

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


def chosen_windows(item: Slice, row: labels.Row | None, context: Context) \
        -> tuple[windows.Window, ...]:
    """Of HU the row's windows, the simulated slice's own, or the settings' for its facility.

    A DICOM header's window is not used: it differs from scan to scan.
    """
    settings = context.settings
    if item.unit == 'grey':
        return ()
    if row is not None and row.window:
        return windows.parse(row.window)
    if settings.source == SIMULATED and settings.channels == 1:
        return (item.window,)
    # Names are hidden first, so that no error shows one.
    def hide(facility: str) -> str:
        return deidentify.hidden('facility', facility, context.hasher)

    try:
        return windows.of_facility(windows.parse_facilities(windows.rename(settings.window, hide)),
                                   hide(item.facility))
    except UserError as error:
        raise deidentify.HiddenError(str(error), {hide(item.facility): item.facility}) from None


def _record(item: Slice, context: Context) -> Record:
    """Labels, renders and hides the names of a slice."""
    item, row = labelled(item, context)
    pixels = render(item, chosen_windows(item, row, context), context.settings)
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


def preview(job: Job, context: Context) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The middle slice that a job reads, as (S, S, C) uint8 without and with the head mask.

    Nothing where that slice is left out. The job is read twice, for a volume is not held whole.
    """
    settings = context.settings
    plain = dataclasses.replace(settings, head_mask=False, crop=False)
    count = sum(1 for _ in _read_slices(job, settings))
    for item in itertools.islice(_read_slices(job, settings), count // 2, count // 2 + 1):
        item = dataclasses.replace(item, source=below(item.source, root_of(settings.source)))
        try:
            item, row = labelled(item, context)
            chosen = chosen_windows(item, row, context)
            pair = render(item, chosen, plain), render(item, chosen, settings)
        except Refused:
            continue
        yield pair


def _read_slices(job: Job, settings: DataSettings) -> Iterator[Slice]:
    return (item for item in _read(job, settings, lambda source, remark: None)
            if isinstance(item, Slice))
