"""From a source to a data set on disk: read in parallel, split, check, write."""

import contextlib
import dataclasses
import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from repdiff.data import (deidentify, dicom, earlier, jobs, labels, named, page, phantom, placing,
                          records, splits, tables, windows, work)
from repdiff.data.jobs import Job
from repdiff.data.settings import SIMULATED, DataSettings
from repdiff.data.slices import SPLITS, Skipped
from repdiff.data.spool import Spool
from repdiff.data.work import Context, Note, Record
from repdiff.data.workers import Workers
from repdiff.errors import UserError, check_writable
from repdiff.progress import Progress

_OF_DICOM = ('.dcm', '.ima')  # a file of these names that is no DICOM is damaged
_HIDDEN = re.compile(r"'(?:file|patient|facility)-[0-9a-f]{16}'")  # as `Hasher.name` makes them
_FEW = 4  # jobs that are sooner done than a process is started
_PREVIEWS = 48  # slices shown before and after


def prepare(settings: DataSettings, out: Path, *, strict: bool, processes: int, preview: bool,
            salt: bytes | None, earlier_at: Path | None, mapping: Path | None) -> records.Dataset:
    """Prepares a data set at `out`, whole or not at all, with its page unless it is simulated.

    Args:
      strict: makes the first file or slice that cannot be used an error; files of another kind,
        such as a README, are left out all the same.
      processes: how many read the source; with 1, a file whose reading hangs is waited for.
      preview: shows slices before and after on the page.
      salt: of the hashes that hide names; None where `settings.deidentify` is False.
      earlier_at: a data set of the same settings: its patients keep their splits, and files that
        have not changed are not read again. None where there is none.
      mapping: file of the private table hidden name -> raw name, added to where it exists; None
        keeps no table.

    Raises: UserError on anything wrong with the source, the labels or the splits; it names files
      by their hashes where names are hidden, and `mapping` then tells which they are.
    """
    check_writable(out, 'data set')
    if mapping is not None:
        deidentify.read_mapping(mapping)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile(dir=out.parent))
        made = _Preparation(settings, salt, Spool(file), strict)
        made.team = stack.enter_context(Workers(made.context, processes))
        try:
            made.begin(earlier_at)
            made.read()
            dataset = made.write(out, preview)
        except UserError as error:
            told = made.told(error)
            if mapping is not None and told is not error:
                made.write_mapping(mapping, out)
            raise told from None
        if mapping is not None:
            made.write_mapping(mapping, out)
        return dataset


class _Preparation:
    """One preparation under way: what was read, what was left out, what was remarked."""

    def __init__(self, settings: DataSettings, salt: bytes | None, spool: Spool, strict: bool):
        self.settings, self.spool, self.strict = settings, spool, strict
        self.of_files = jobs.is_files(settings)
        self.hasher = deidentify.Hasher(salt) if self.of_files and settings.deidentify else None
        self.root = jobs.root_of(settings.source)
        self.paths, self._passed = jobs.files_of(settings) if self.of_files else ([], [])
        self.table = tables.read(settings) if self.of_files else None
        self.context = Context(settings, self.table, self.hasher)
        self.team: Workers | None = None
        self.earlier: earlier.Earlier | None = None
        self.jobs: list[Job] = []
        self.skipped: list[Skipped] = []
        self.notes: list[Note] = []
        self.reused: set[str] = set()
        self._names: dict[str, str] = {}
        self._repeated: set[str] = set()
        self._told: dict[str, str] = {}

    def begin(self, earlier_at: Path | None) -> None:
        """Takes over what an earlier data set has, and plans the jobs for the rest."""
        if self.settings.source == SIMULATED:
            self.jobs = list(jobs.simulated_jobs(self.settings.simulated))
            return
        if not self.of_files:
            self.jobs = list(jobs.named_jobs(named.sizes(self.settings.source)))
            return
        tables.check(self.settings, self.table, self.paths)
        for item in self._passed:
            self._leave_out(item, not jobs.is_hidden(item.source))
        self.earlier = earlier.load(earlier_at, self.settings, self.hasher, self.table)
        unread = [path for path in self.paths if not self._reuse(path)]
        for each in jobs.file_jobs(unread, self.root, self._note, self.team):
            if isinstance(each, Job):
                self.jobs.append(each)
                continue
            # A file of another kind, such as a README, is no trouble.
            path = Path(each.source)
            self._leave_out(each, path.suffix.lower() in _OF_DICOM or bool(jobs.kind_of(path)))

    def _shown(self, source: str) -> str:
        return deidentify.hidden('file', source, self.hasher)

    def _reuse(self, path: Path) -> bool:
        known = self.earlier.reuse(path, self.root) if self.earlier else None
        for record in known or ():
            self.reused.add(record.source)
            self._add(record)
        return known is not None

    def _note(self, source: str, remark: str) -> None:
        self.notes.append(Note(jobs.below(source, self.root), remark))

    def _leave_out(self, item: Skipped, trouble: bool = True) -> None:
        """Lists a file, or a slice of one, that is not used; where strict, trouble is an error."""
        item = dataclasses.replace(item, source=jobs.below(item.source, self.root))
        self.skipped.append(item)
        if self.strict and trouble:
            raise UserError(f'file {self._shown(item.source)!r} {deidentify.scrub(item.reason)}')

    def _add(self, record: Record) -> None:
        other = self._names.setdefault(record.id, record.source)
        if other != record.source:
            kinds = {jobs.kind_of(self.root / source) for source in (other, record.source)}
            if other in self.reused and kinds == {'dicom'}:
                # The scan for repeated images does not see the files that are not read again.
                if record.source not in self._repeated:
                    self._repeated.add(record.source)
                    self._leave_out(Skipped(record.source, dicom.REPEATED))
                return
            raise UserError(f'files {self._shown(other)!r} and {self._shown(record.source)!r} give '
                            f'the same image name {record.id!r}; rename or remove one.')
        self.spool.add(record)

    def read(self) -> None:
        """Does all jobs: records to the spool, what is left out and remarks to their lists."""
        progress = Progress(sum(job.size for job in self.jobs), f'preparing {self.settings.name}',
                            'files' if self.of_files else 'images')
        # No file can hang the few made-up images, which are done before a process has started.
        here = not self.of_files and len(self.jobs) <= _FEW
        team = Workers(self.context, 1) if here else self.team
        for job, results in jobs.done(work.do, self.jobs, team):
            for item in results:
                if isinstance(item, Record):
                    self._add(item)
                elif isinstance(item, Note):
                    self.notes.append(item)
                else:
                    self._leave_out(item)
            progress.update(job.size)
        if not self.spool.records:
            first = self.skipped[0] if self.skipped else None
            why = (f'; file {self._shown(first.source)!r} {deidentify.scrub(first.reason)}'
                   if first else '.')
            raise UserError(f'source {self.settings.source!r} gives no image at all{why}')

    def write(self, out: Path, preview: bool) -> records.Dataset:
        """Splits, checks and writes what was read."""
        found = self.spool.records
        self._note_lost_rows()
        classes, markers = _meaning(self.settings, self.table)
        kept = self.earlier.kept if self.earlier else {}
        where, left_out = placing.place(found, self.settings, self.hasher, kept)
        for item in left_out:
            self._leave_out(item)
        self._check(where, classes)
        info = _info(self.settings, self.spool, where, classes, markers, self.hasher)
        info['skipped'] = [_hidden(item.source, 'reason', item.reason, self.hasher)
                           for item in self.skipped]
        info['notes'] = [_hidden(item.source, 'remark', item.remark, self.hasher)
                         for item in self.notes]
        beside: dict[str, str] = {}
        if self.of_files:
            info['notes'] += self.earlier.remarks(self.reused) if self.earlier else []
            of_rows = {deidentify.hidden('row', row.key, self.hasher): row.window
                       for row in dict.fromkeys(self.table.rows.values()) if row.window}
            beside[earlier.MEMORY] = earlier.memory(
                self.settings, self.paths, self.root, found, where,
                {item.source for item in self.skipped}, of_rows, self.hasher)
        if self.settings.source != SIMULATED:
            pairs = list(self._previews()) if preview else []
            beside['prepare.html'] = page.render(self.spool, where, info, pairs)
        chosen = {name: _stored(self.spool, where, name) for name in SPLITS if name in where}
        return records.write(chosen, out, info, beside)

    def _previews(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Slices of jobs, evenly spaced, before and after; none of a file with a part left out."""
        troubled = {item.source for item in self.skipped}
        if self.of_files:
            kept = [path for path in self.paths if jobs.below(str(path), self.root) not in troubled]
        else:
            kept = list(jobs.named_jobs(named.sizes(self.settings.source)))
        shown = [kept[round(place)]
                 for place in np.linspace(0, len(kept) - 1, min(_PREVIEWS, len(kept)))]
        if self.of_files:
            shown = [job for path in shown for job in jobs.file_jobs(
                [path], self.root, lambda *remark: None, self.team) if isinstance(job, Job)]
        for _, pairs in jobs.done(work.preview, shown, self.team):
            yield from (pair for pair in pairs if not isinstance(pair, Skipped))

    def told(self, error: UserError) -> UserError:
        """The error as it is printed: where it has hidden names, it says what tells whose."""
        if self.hasher is None or not _HIDDEN.search(str(error)):
            return error
        self._told |= getattr(error, 'raw', {})
        return UserError(f'{str(error).removesuffix(".")} (repdiff.prepare --mapping tells which).')

    def write_mapping(self, path: Path, out: Path) -> None:
        """Adds what the hidden names stand for to the owner's private table."""
        names = deidentify.read_mapping(path)
        names |= self._told
        names |= {deidentify.hidden('facility', facility, self.hasher): facility
                  for facility in (*self.settings.pretrain_facilities,
                                   *self.settings.downstream_facilities,
                                   *windows.parse_facilities(self.settings.window))
                  if facility != windows.OTHERS}
        for record in self.spool.records:
            names |= record.raw
        for source in {*(jobs.below(str(path), self.root) for path in self.paths),
                       *(item.source for item in (*self.skipped, *self.notes))}:
            names[deidentify.hidden('file', source, self.hasher)] = source
        deidentify.write_mapping(path, names, outside=out)

    def _check(self, where: Sequence[str | None], classes: Sequence[str]) -> None:
        """No patient, no content in two splits, and examples of each class in the labelled ones."""
        kept = [(record, self._shown(record.source), place)
                for record, place in zip(self.spool.records, where, strict=True) if place]
        splits.check_patients((record.patient, place, name) for record, name, place in kept)
        splits.check_pixels((name, record.content, place) for record, name, place in kept)
        splits.check_classes(((record.label, place) for record, _, place in kept), classes)

    def _note_lost_rows(self) -> None:
        rows = {row.key for row in self.table.rows.values()} if self.table else set()
        lost = len({deidentify.hidden('row', key, self.hasher) for key in rows}
                   - {record.row for record in self.spool.records})
        if lost:
            self.notes.append(Note('', f'of {len(rows)} rows of the label file, {lost} have no '
                                   'image here.'))


def _stored(spool: Spool, where: Sequence[str | None], name: str) -> Iterator[dict]:
    return (spool.stored(index) for index, place in enumerate(where) if place == name)


def _meaning(settings: DataSettings, table: labels.Table | None) \
        -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the classes and of the markers."""
    if table is not None:
        return table.classes, table.markers
    if settings.source == SIMULATED:
        return ('no hematoma', 'hematoma'), phantom.MARKERS
    feature = named.builder(settings.source).info.features['label']
    return tuple(feature.names), ()


def _info(settings: DataSettings, spool: Spool, where: Sequence[str | None],
          classes: Sequence[str], markers: Sequence[str],
          hasher: deidentify.Hasher | None) -> dict:
    """What `prepare.json` says, but for the splits and what was skipped or remarked."""
    made = dataclasses.asdict(settings)
    content = hashlib.sha256()
    for record, place in zip(spool.records, where, strict=True):
        content.update(repr((record.id, record.patient, record.facility, record.label,
                             record.markers, record.content, place)).encode())
    shown = {key: made[key] for key in ('label_format', 'label', 'window', 'head_mask', 'crop',
                                        'fractions', 'seed', 'deidentify', 'simulated')}
    shown['window'] = windows.rename(
        settings.window, lambda facility: deidentify.hidden('facility', facility, hasher))
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
