"""Data sets of TFDS by name or directory, `tfds:NAME`, with image and label features."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from repdiff.data.settings import TFDS
from repdiff.data.slices import Slice
from repdiff.errors import UserError

SPLITS = {'train': 'train', 'validation': 'valid', 'valid': 'valid', 'test': 'test'}


def builder(source: str) -> tfds.core.DatasetBuilder:
    """The TFDS data set `tfds:NAME` or `tfds:DIRECTORY`; UserError where it is not on disk."""
    name = source.removeprefix(TFDS)
    try:
        if Path(name).expanduser().is_dir():
            found = tfds.builder_from_directory(str(Path(name).expanduser()))
        else:
            found = tfds.builder(name, file_format='array_record', try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ImportError, ValueError) as error:
        raise UserError(f'source {source!r} is no data set that TFDS knows '
                        f'({type(error).__name__}).') from None
    reason = ''
    for feature in ('image', 'label'):
        if feature not in (found.info.features or {}):
            reason = f'has no feature {feature!r}'
    if not found.info.splits or found.info.file_format.value != 'array_record':
        reason = 'is not on disk as array_record'
    if reason:
        raise UserError(f'source {source!r} {reason}; it needs image and label features, prepared '
                        "by download_and_prepare(file_format='array_record').")
    return found


def sizes(source: str) -> dict[str, int]:
    """Images in each split that stands for one of ours."""
    found = builder(source).info.splits
    return {name: found[name].num_examples for name in found if name in SPLITS}


def read(source: str, split: str, start: int, stop: int) -> Iterator[Slice]:
    """Images start..stop-1 of a split, each a patient of its own."""
    data = builder(source).as_data_source(split=split)
    for index in range(start, stop):
        example = data[index]
        pixels = np.asarray(example['image'])
        name = f'{split}-{index:06d}'
        yield Slice(id=name, patient=name, facility='', unit='grey', label=int(example['label']),
                    pixels=pixels[..., 0] if pixels.shape[-1] == 1 else pixels,
                    split=SPLITS[split], source=source)
