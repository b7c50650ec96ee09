"""Prepared data sets on disk: TFDS ArrayRecord splits beside a `prepare.json`, without TensorFlow.

A data set is a directory that TFDS itself reads (`tfds.builder_from_directory`). It is written
under a temporary name beside its place and renamed when whole, so there is never half a data set.
"""

import abc
import contextlib
import io
import json
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from repdiff.data.builder import Builder
from repdiff.data.png import decode_png
from repdiff.errors import UserError

PREPARE = 'prepare.json'


def write(records: Mapping[str, Iterable[dict]], out: str | os.PathLike, info: Mapping[str, Any],
          beside: Mapping[str, str] | None = None) -> 'Dataset':
    """Writes a data set, whole or not at all, in the place of any older one.

    Args:
      records: for each split an iterable, consumed once, of dict(image, label, id, patient,
        facility, markers, mask); image is uint8 (H, W, C) or its PNG bytes, label -1 is unlabelled.
      out: the directory to make.
      info: `name`, `simulated`, `classes`, `markers` (names), `masks` (whether records have
        them), `image_size`, `channels`, `fingerprint`, `skipped` and anything else for
        `prepare.json`; the counts of the splits are added.
      beside: name -> content of further text files of the data set.

    Returns: the data set, opened.
    """
    out = Path(out)
    recover(out)
    check_place(out)
    partial = out.parent / f'.{out.name}.partial-{socket.gethostname()}-{os.getpid()}'
    try:
        partial.mkdir(parents=True)
        builder = Builder(records, info, partial)
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=str(partial / 'downloads'))
        whole = Path(builder.data_dir)
        about = json.dumps({**info, 'splits': builder.counts}, indent=2, allow_nan=False) + '\n'
        for name, content in {PREPARE: about, **(beside or {})}.items():
            (whole / name).write_text(content, encoding='utf-8')
        if out.exists():
            out.rename(_older(out))
        whole.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(_older(out), ignore_errors=True)
    return Dataset(out)


def check_place(out: Path) -> None:
    """Raises UserError where `out` is anything but a data set, for writing would remove it."""
    if out.exists() and not (out / PREPARE).is_file() and (
            not out.is_dir() or any(out.iterdir())):
        raise UserError(f'{str(out)!r} exists and is no prepared data set; choose another '
                        'directory for the output, or remove it.')


def _older(out: Path) -> Path:
    return out.parent / f'.{out.name}.older'


def recover(out: Path) -> None:
    """Cleans up after a writer that was killed: its temporary directory, or a swap half done."""
    host = socket.gethostname()
    for partial in out.parent.glob(f'.{out.name}.partial-{host}-*'):
        if not Path(f'/proc/{partial.name.rpartition("-")[2]}').exists():
            shutil.rmtree(partial, ignore_errors=True)
    if _older(out).exists():
        if out.exists():
            shutil.rmtree(_older(out), ignore_errors=True)
        else:
            _older(out).rename(out)


class Dataset:
    """A prepared data set. `info` is its `prepare.json`.

    Raises: UserError where the directory holds no whole data set.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        try:
            self.info: dict[str, Any] = json.loads((self.path / PREPARE).read_text())
            self._builder = tfds.builder_from_directory(str(self.path))
        except (OSError, ValueError, tfds.core.DatasetNotFoundError) as error:
            raise UserError(f'{self.path} holds no prepared data set ({type(error).__name__}); '
                            'make one with python -m repdiff.prepare.') from None

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have images."""
        return tuple(name for name, counts in self.info['splits'].items() if counts['images'])

    def split(self, name: str) -> 'Split':
        """Random access to the decoded records of one split."""
        if name not in self.splits:
            raise UserError(f'{self.path} has no split {name!r}; it has {", ".join(self.splits)}.')
        return Split(self._builder, name, self.info)

    def load(self, name: str) -> dict[str, np.ndarray]:
        """A whole split, stacked: image (n, H, W, C) uint8, label (n,) int32, id, patient, ..."""
        return self.split(name).load()


def open(path: str | os.PathLike) -> Dataset:
    """Opens a prepared data set; UserError where there is none."""
    return Dataset(path)


class Records(abc.ABC):
    """Records by index, and everything about them that `stored`, `__len__` and `info` give."""

    info: Mapping[str, Any]

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def stored(self, index: int) -> dict[str, Any]:
        """The record with its image and mask still PNG bytes."""

    def column(self, key: str) -> np.ndarray:
        """One value of every record, such as `patient` (n,) str, without decoding an image."""
        return np.array([self.stored(index)[key] for index in range(len(self))])

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.stored(index)
        record['image'] = decode_png(record['image'], self.info['channels'])
        if record['mask'] is not None:
            record['mask'] = decode_png(record['mask'], 1)[..., 0]  # (H, W)
        return record

    @property
    def nbytes(self) -> int:
        """Memory that the decoded images of this split take."""
        return len(self) * self.info['image_size'] ** 2 * self.info['channels']

    def load(self) -> dict[str, np.ndarray]:
        """Everything stacked; `mask` (n, H, W) only where the data set has masks."""
        columns: dict[str, list] = {}
        for index in range(len(self)):
            for key, value in self[index].items():
                if value is not None:
                    columns.setdefault(key, []).append(value)
        return {key: np.stack(values) if key in ('image', 'mask', 'markers') else np.array(values)
                for key, values in columns.items()}


class Split(Records):
    """Random access to one split: dict(image uint8 (H, W, C), label int32, id str, ...)."""

    def __init__(self, builder: tfds.core.DatasetBuilder, name: str, info: Mapping[str, Any]):
        self.name, self.info = name, info
        skip = {key: tfds.decode.SkipDecoding() for key in ('image', 'mask')
                if key in builder.info.features}
        self._source = builder.as_data_source(split=name, decoders=skip)

    def __len__(self) -> int:
        return len(self._source)

    def stored(self, index: int) -> dict[str, Any]:
        """The record with its image and mask still PNG bytes."""
        if not 0 <= index < len(self):
            raise IndexError(f'{self.name} has {len(self)} images, none at {index}')
        record = self._source[index]
        return {
            'image': record['image'],
            'label': np.int32(record['label']),
            **{key: record[key].decode() for key in ('id', 'patient', 'facility')},
            'markers': record.get('markers', np.zeros(0, np.int8)),
            'mask': record.get('mask'),
        }
