"""The TFDS builder that writes records as they come, as ArrayRecord files, without TensorFlow."""

import collections
import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from repdiff.data.png import encode_png
from repdiff.data.slices import SPLITS
from repdiff.errors import writable

_SHARD_BYTES = 256 << 20  # a split of more is cut into several files


class _Shard:
    """One ArrayRecord file being written; groups of one, for random access."""

    def __init__(self, path: Path):
        self.path, self.count, self.size = path, 0, 0
        with self._writable():
            self._writer = ArrayRecordWriter(str(path), 'group_size:1')

    def add(self, content: bytes) -> None:
        """Appends a record."""
        with self._writable():
            self._writer.write(content)
        self.count += 1
        self.size += len(content)

    def close(self) -> None:
        """Finishes the file."""
        with self._writable():
            self._writer.close()

    def _writable(self) -> contextlib.AbstractContextManager:
        return writable('records', self.path.parent, 'choose another directory')


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes splits of records that are already in hand; images are PNG bytes."""

    name = 'records'
    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, records: Mapping[str, Iterable[dict]], info: Mapping[str, Any], root: Path):
        self._records, self._about = records, info
        self.counts: dict[str, dict] = {}
        super().__init__(data_dir=str(root), file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        size, channels = self._about['image_size'], self._about['channels']
        features = {
            # A PNG has 1 or 3 planes; two channels travel in three planes.
            'image': tfds.features.Image(
                shape=(size, size, 1 if channels == 1 else 3), encoding_format='png'),
            'label': tfds.features.ClassLabel(names=self._about['classes']),
            'id': tfds.features.Text(),
            'patient': tfds.features.Text(),
            'facility': tfds.features.Text(),
        }
        if self._about['markers']:
            features['markers'] = tfds.features.Tensor(
                shape=(len(self._about['markers']),), dtype=np.int8)
        if self._about['masks']:
            features['mask'] = tfds.features.Image(shape=(size, size, 1), encoding_format='png')
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _download_and_prepare(self, dl_manager: tfds.download.DownloadManager,
                              download_config: tfds.download.DownloadConfig) -> None:
        """Writes the records as they come.

        TFDS's own writer, made for shuffling, gathers a split first: in memory up to 1 GB, and with
        TensorFlow beyond.
        """
        del dl_manager, download_config
        self.info.set_splits(tfds.core.SplitDict(
            [self._write_split(name) for name in SPLITS if name in self._records]))

    def _write_split(self, name: str) -> tfds.core.SplitInfo:
        serialise = ExampleSerializer(self.info.features.get_serialized_info()).serialize_example
        template = self._get_filename_template(name)
        shards = [_Shard(self.data_path / f'{name}-0')]
        for example in self._generate_examples(name):
            if shards[-1].size >= _SHARD_BYTES:
                shards[-1].close()
                shards.append(_Shard(self.data_path / f'{name}-{len(shards)}'))
            shards[-1].add(serialise(self.info.features.encode_example(example)))
        shards[-1].close()
        for index, shard in enumerate(shards):
            shard.path.rename(template.sharded_filepath(
                shard_index=index, num_shards=len(shards)))
        return tfds.core.SplitInfo(
            name=name, shard_lengths=[shard.count for shard in shards],
            num_bytes=sum(shard.size for shard in shards), filename_template=template)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {name: self._generate_examples(name) for name in SPLITS if name in self._records}

    def _generate_examples(self, split: str) -> Iterator[dict]:
        labels = np.zeros(len(self._about['classes']), int)
        patients: set[str] = set()
        facilities: collections.Counter[str] = collections.Counter()
        count = 0
        for record in self._records[split]:
            count += 1
            patients.add(record['patient'])
            facilities[record['facility']] += 1
            if record['label'] >= 0:
                labels[record['label']] += 1
            yield {name: self._stored(name, record) for name in self.info.features}
        self.counts[split] = {'images': count, 'patients': len(patients),
                              'positives': int(labels[1:].sum()), 'per_class': labels.tolist(),
                              'facilities': dict(sorted(facilities.items()))}

    @staticmethod
    def _stored(name: str, record: dict) -> Any:
        value = record[name]
        if name in ('image', 'mask') and not isinstance(value, bytes):
            return encode_png(value)
        return np.asarray(value, np.int8) if name == 'markers' else value
