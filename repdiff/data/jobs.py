"""The source cut into jobs that any process can do, each file by its kind."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from repdiff.data import arrays, dicom, nifti, phantom, pictures
from repdiff.data.settings import SIMULATED, TFDS, DataSettings
from repdiff.data.slices import SPLITS, Skipped
from repdiff.data.workers import Lost, Workers
from repdiff.errors import UserError
from repdiff.progress import Progress

_CHUNK = 32  # slices, pictures or headers of a job: enough to outweigh the call


@dataclasses.dataclass(frozen=True)
class Job:
    """A part of the source that one process reads by itself; `size` counts files or slices."""

    kind: str
    work: Any
    size: int


def is_files(settings: DataSettings) -> bool:
    """Whether the source is files, rather than simulated or of TFDS."""
    return settings.source != SIMULATED and not settings.source.startswith(TFDS)


def root_of(source: str) -> Path:
    """The directory that the names of a source's files are relative to."""
    path = Path(source).expanduser().absolute()
    return path if path.is_dir() else path.parent


def files_of(settings: DataSettings) -> tuple[list[Path], list[Skipped]]:
    """All files of a source on disk, sorted, without the label file; and what is passed over.

    Passed over are hidden files and directories, links to directories, which could lead in circles,
    and what is no file or cannot be listed.

    Raises: UserError where there is no such file or directory, or it holds none.
    """
    source, table = Path(settings.source).expanduser().absolute(), settings.labels_path()
    given = [Path(name).expanduser().absolute() for name in settings.files] or [source]
    found: set[Path] = set()
    passed: list[Skipped] = []
    for path in given:
        if path.is_dir():
            found.update(_walk(path, passed))
        elif path.is_file():
            found.add(path)
        else:
            raise UserError(f'source {str(path)!r} is neither a file nor a directory.')
    hidden = table.resolve() if table else None
    files = sorted(path for path in found if path.resolve() != hidden)
    if not files:
        raise UserError(f'source {settings.source!r} holds no files.')
    return files, passed


def is_hidden(path: str) -> bool:
    """Whether a file or directory is hidden, as those that systems keep for themselves are."""
    return os.path.basename(path).startswith('.')


def _walk(top: Path, passed: list[Skipped]) -> Iterator[Path]:
    """The files below a directory; what else is there is added to `passed`."""
    def refused(error: OSError) -> None:
        passed.append(Skipped(str(error.filename), f'cannot be listed: {error.strerror}.'))

    for place, folders, files in os.walk(top, onerror=refused):
        for path in (os.path.join(place, name) for name in sorted(folders + files)):
            if is_hidden(path):
                passed.append(Skipped(path, 'is hidden: its name begins with a dot.'))
            elif os.path.isfile(path):
                yield Path(path)
            elif not os.path.isdir(path):
                passed.append(Skipped(path, 'is no file that can be read.'))
            elif os.path.islink(path):
                passed.append(Skipped(path, 'is a link to a directory; give that itself.'))
        folders[:] = [name for name in folders if not is_hidden(name)]


def simulated_jobs(settings: phantom.Settings) -> Iterator[Job]:
    for split in SPLITS:
        count = getattr(settings, split)
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            yield Job(SIMULATED, (split, start, stop), stop - start)


def named_jobs(sizes: dict[str, int]) -> Iterator[Job]:
    """Jobs of a TFDS data set whose splits have these sizes."""
    for split, count in sizes.items():
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


def file_jobs(paths: Iterable[Path], root: Path, note: Callable[[str, str], None],
              team: Workers) -> Iterator[Job | Skipped]:
    """One job a chunk of pictures, a volume, an array or a DICOM series; the rest is Skipped."""
    shown: list[Path] = []
    scans: list[Path] = []
    for path in paths:
        kind = kind_of(path)
        if kind == 'pictures':
            shown.append(path)
        elif kind == 'dicom':
            scans.append(path)
        elif kind:
            yield Job(kind, path, 1)
        else:
            yield Skipped(str(path), 'is no DICOM, NIfTI, NumPy, PNG, JPEG or TIFF file.')
    yield from _chunks('pictures', shown)
    if shown:
        note(str(shown[0]), f'no picture says whether text is burned in ({len(shown):,} in all): '
             'look at the contact sheet for burned-in text, for the check of pixels does not see '
             'text over the head')
    for series in dicom.group(_headers(scans, root, team), note=note):
        yield (series if isinstance(series, Skipped)
               else Job('dicom', series, len(series.files)))


def _chunks(kind: str, paths: Sequence[Path]) -> Iterator[Job]:
    for start in range(0, len(paths), _CHUNK):
        part = tuple(paths[start:start + _CHUNK])
        yield Job(kind, part, len(part))


def _headers(scans: Sequence[Path], root: Path, team: Workers) \
        -> Iterator[dicom.Header | Skipped]:
    """The headers of DICOM files, read by the team, in order; few are no progress worth a line."""
    progress = Progress(len(scans), 'reading DICOM headers', 'files')
    do = functools.partial(_read_headers, root=root)
    for job, found in done(do, _chunks('headers', scans), team):
        yield from found
        if len(scans) > _CHUNK:
            progress.update(job.size)


def _read_headers(job: Job, context: Any, root: Path) -> Iterator[dicom.Header | Skipped]:
    del context
    return dicom.headers(job.work, root=root)


def done(do: Callable[[Job, Any], Iterable], todo: Iterable[Job], team: Workers) \
        -> Iterator[tuple[Job, list]]:
    """Each job with its items, in order.

    Of files whose job kills its process or hangs, each is tried by itself, so that only the one
    that does it is left out. Raises UserError where images without a file do.
    """
    for job, items in team.run(do, todo):
        if not isinstance(items, Lost):
            yield job, items
        elif job.kind in (SIMULATED, 'tfds'):
            raise UserError(f'the job of images {job.work} of the source {items.value}')
        elif job.size == 1:
            yield job, [Skipped(str(path), items.value) for path in _files_in(job)]
        else:
            yield job, [item for _, items in done(do, _parts(job), team) for item in items]


def _parts(job: Job) -> Iterator[Job]:
    """The files of a job of several, each as a job."""
    for each in job.work.files if job.kind == 'dicom' else job.work:
        yield Job(job.kind, dicom.Series((each,)) if job.kind == 'dicom' else (each,), 1)


def _files_in(job: Job) -> tuple[Path, ...]:
    if job.kind == 'dicom':
        return tuple(header.path for header in job.work.files)
    return job.work if isinstance(job.work, tuple) else (job.work,)


def below(path: str, root: Path) -> str:
    """A file's name relative to the root; other sources stay as they are."""
    return Path(os.path.relpath(path, root)).as_posix() if Path(path).is_absolute() else path
