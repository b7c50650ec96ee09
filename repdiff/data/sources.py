"""From data settings to a prepared data set, made once and cached."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from repdiff.data import deidentify, jobs, named, phantom, preparation, records, workers
from repdiff.data.settings import FORMAT, RENDERED, TFDS, DataSettings
from repdiff.errors import UserError

__all__ = ['DataSettings', 'cache_key', 'ensure_prepared']


def ensure_prepared(settings: DataSettings, cache_dir: str | os.PathLike) -> Path:
    """The directory of the prepared data set: the source itself, a cached one, or a new one.

    A file that cannot be used is an error here; `python -m repdiff.prepare` may leave it out.

    Raises: UserError on anything wrong with the source, the labels or the splits, and on a prepared
    data set of other images (size, channels, RENDERED) than the settings'.
    """
    source = Path(settings.source).expanduser()
    if (source / records.PREPARE).is_file():
        _check_images(records.open(source), settings)
        return source
    cache = Path(cache_dir).expanduser()
    # What is no path is the same wherever the command runs.
    origin = source.absolute() if jobs.is_files(settings) else source
    place = hashlib.sha256(str(origin).encode()).hexdigest()[:8]
    out = cache / f'{settings.name}-{place}-{cache_key(settings)[:16]}'
    records.recover(out)
    if not (out / records.PREPARE).is_file():
        hide = settings.deidentify and jobs.is_files(settings)
        salt = deidentify.read_salt(cache / 'salt', outside=out) if hide else None
        preparation.prepare(
            settings, out, strict=True, processes=workers.cores(), preview=False, salt=salt,
            earlier_at=_latest(cache, f'{settings.name}-{place}'), mapping=None)
    return out


def prepared_rendering(source: str) -> dict[str, Any]:
    """The settings RENDERED of a prepared data set; {} where the source is none."""
    place = Path(source).expanduser()
    if not (place / records.PREPARE).is_file():
        return {}
    made = records.open(place).info['settings']
    return {key: made[key] for key in RENDERED}


def _check_images(dataset: records.Dataset, settings: DataSettings) -> None:
    """Raises UserError where a prepared data set has other images than the settings ask for."""
    has = {key: dataset.info[key] for key in ('image_size', 'channels')}
    has |= {key: dataset.info['settings'][key] for key in RENDERED}
    other = {key: getattr(settings, key) for key in has if getattr(settings, key) != has[key]}
    if other:
        there = ' and '.join(f'{key} {has[key]}' for key in other)
        asked = ' and '.join(f'{key} {value}' for key, value in other.items())
        run = ' '.join(f'--config.data.{key}={has[key]}' for key in other)
        prepare = ' '.join(f'--{key.replace("_", "-")}' + ('' if value is True else f'={value}')
                           for key, value in other.items())
        raise UserError(f'the prepared data set {settings.source!r} has {there}, but the config '
                        f'asks for {asked}; run with {run}, or prepare it again with {prepare}.')


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
