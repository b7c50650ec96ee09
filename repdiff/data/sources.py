"""From data settings to a prepared data set, made once and cached."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from repdiff.data import deidentify, jobs, named, phantom, preparation, records, workers
from repdiff.data.settings import FORMAT, TFDS, DataSettings
from repdiff.errors import UserError

__all__ = ['DataSettings', 'cache_key', 'ensure_prepared']


def ensure_prepared(settings: DataSettings, cache_dir: str | os.PathLike) -> Path:
    """The directory of the prepared data set: the source itself, a cached one, or a new one.

    A file that cannot be used is an error here; `python -m repdiff.prepare` may leave it out.

    Raises: UserError on anything wrong with the source, the labels or the splits, and on a prepared
    data set of another image size or other channels than the settings'.
    """
    source = Path(settings.source).expanduser()
    if (source / records.PREPARE).is_file():
        _check_size(records.open(source), settings)
        return source
    cache = Path(cache_dir).expanduser()
    place = hashlib.sha256(str(source.absolute()).encode()).hexdigest()[:8]
    out = cache / f'{settings.name}-{place}-{cache_key(settings)[:16]}'
    records.recover(out)
    if not (out / records.PREPARE).is_file():
        hide = settings.deidentify and jobs.is_files(settings)
        salt = deidentify.read_salt(cache / 'salt', outside=out) if hide else None
        preparation.prepare(
            settings, out, strict=True, processes=workers.cores(), preview=False, salt=salt,
            earlier_at=_latest(cache, f'{settings.name}-{place}'), mapping=None)
    return out


def _check_size(dataset: records.Dataset, settings: DataSettings) -> None:
    """Raises UserError where a prepared data set has other images than the settings ask for."""
    has = {key: dataset.info[key] for key in ('image_size', 'channels')}
    asked = {key: getattr(settings, key) for key in has}
    if has != asked:
        shown = ' and '.join(f'{key} {value}' for key, value in has.items())
        prepare = ' '.join(f'--{key.replace("_", "-")}={value}' for key, value in asked.items())
        run = ' '.join(f'--config.data.{key}={value}' for key, value in has.items())
        raise UserError(f'the prepared data set {settings.source!r} has {shown}, and the config '
                        f'asks for others; run with {run}, or prepare it again with {prepare}.')


def _latest(cache: Path, stem: str) -> Path | None:
    """The newest cached data set of a source: patients whom it knows keep their split."""
    found = [path for path in cache.glob(f'*/{records.PREPARE}')
             if path.parent.name.rpartition('-')[0] == stem]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def cache_key(settings: DataSettings) -> str:
    """sha256 of FORMAT, settings and what the source holds: names, sizes, times, the label file.

    What a simulation holds is its source code.
    """
    facts = [FORMAT, dataclasses.asdict(settings)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    if settings.simulated:
        digest.update(phantom.code_hash().encode())
    elif settings.source.startswith(TFDS):
        digest.update(str(named.builder(settings.source).data_path).encode())
    elif jobs.is_files(settings):
        table = settings.labels_path()
        if table is not None and table.is_file():
            digest.update(table.read_bytes())
        for path in jobs.files_of(settings)[0]:
            status = path.stat()
            digest.update(f'{path}\0{status.st_size}\0{status.st_mtime_ns}\n'.encode())
    return digest.hexdigest()
