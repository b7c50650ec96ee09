"""Files that a user brings to a finished run, read and prepared as its own images were."""

import collections
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from repdiff.data import deidentify, jobs, pictures, windows, work, workers
from repdiff.data.deidentify import Hasher
from repdiff.data.jobs import Job
from repdiff.data.settings import DataSettings
from repdiff.data.slices import Skipped
from repdiff.data.work import Context, Note, Record
from repdiff.data.workers import Workers
from repdiff.errors import UserError
from repdiff.progress import Progress


def settings_of(given: Sequence[str], like: DataSettings) -> DataSettings:
    """The settings `like`, for the files and folders `given`; names are relative to their root.

    Raises: UserError where the windows are of facilities, with none for others: a new file's
      facility is not known.
    """
    mapping = windows.parse_facilities(like.window)
    if windows.OTHERS not in mapping:
        raise UserError('the run has a window for each facility and none for others, so new files '
                        'have none; python -m repdiff.predict takes one as --window=WINDOW.')
    window = '+'.join(f'{centre:g}/{width:g}' for centre, width in mapping[windows.OTHERS])
    paths = tuple(os.path.abspath(os.path.expanduser(name)) for name in given)
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return dataclasses.replace(like, source=root, files=paths, labels='', window=window)


def find(settings: DataSettings) -> tuple[list[Path], list[Skipped]]:
    """The files, in the order given and sorted within a folder, and what is none."""
    paths, missing = [], []
    for name in settings.files:
        try:
            files, passed = jobs.files_of(dataclasses.replace(settings, files=(name,)))
        except UserError:
            why = 'holds no files.' if os.path.isdir(name) else 'is neither a file nor a folder.'
            files, passed = [], [Skipped(name, why)]
        paths += files
        missing += [dataclasses.replace(item, source=jobs.below(
            item.source, jobs.root_of(settings.source))) for item in passed]
    return list(dict.fromkeys(paths)), missing


def read(paths: Sequence[Path], settings: DataSettings, hasher: Hasher | None, processes: int) \
        -> Iterator[Record | Skipped | Note]:
    """Every slice of the files as a Record, or why there is none; sources are below the root."""
    root, notes = jobs.root_of(settings.source), []
    planned: list[Job] = []

    def note(source: str, remark: str) -> None:
        if not pictures.is_picture(source):  # what it says of them is for a data set's owner
            notes.append((source, remark))

    with Workers(Context(settings, None, hasher), processes) as team:
        for each in jobs.file_jobs(paths, root, note, team):
            if isinstance(each, Job):
                planned.append(each)
            else:
                yield dataclasses.replace(each, source=jobs.below(each.source, root))
        yield from (Note(jobs.below(source, root), remark) for source, remark in notes)
        for _, items in jobs.done(work.do, planned, team):
            for item in items:
                if isinstance(item, Skipped):
                    item = dataclasses.replace(item, source=jobs.below(item.source, root))
                yield item


def told(settings: DataSettings, hasher: Hasher | None, what: str) \
        -> Iterator[tuple[Record | Skipped | Note, dict[str, Any]]]:
    """What `find` and `read` have of the settings' files, each with what may be told of it.

    That is `argument` (the place, from 1, among the files and folders given), `file` and, of a
    slice, its id as `slice`, `number` in its file, from 1, and `place`, which sorts slices as the
    files were given. With a hasher, `file` and `slice` are hidden names, and reasons and remarks
    are scrubbed; the items' own sources are not. `what` is the progress line's.
    """
    paths, missing = find(settings)
    root = jobs.root_of(settings.source)
    order = {jobs.below(str(path), root): place for place, path in enumerate(paths)}
    numbers: collections.Counter[str] = collections.Counter()
    progress = Progress(len(paths), what, 'files')
    for item in itertools.chain(missing, read(paths, settings, hasher, workers.cores())):
        source = item.source
        about = {'argument': _argument(source, settings),
                 'file': deidentify.hidden('file', source, hasher)}
        if isinstance(item, Record):
            numbers[source] += 1
            progress.update(numbers[source] == 1)
            about |= {'slice': item.id, 'number': numbers[source],
                      'place': (order[source], numbers[source])}
        elif hasher:
            field = 'reason' if isinstance(item, Skipped) else 'remark'
            words = deidentify.scrub(getattr(item, field), secret=(source,))
            item = dataclasses.replace(item, **{field: words})
        yield item, about


def _argument(source: str, settings: DataSettings) -> int:
    path = os.path.join(settings.source, source)
    for place, name in enumerate(settings.files, 1):
        if path.startswith((name + os.sep, name + '#')) or path == name:
            return place
    raise ValueError(f'{source} is none of the files given')
