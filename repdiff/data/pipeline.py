"""Batches of records for training and scoring: seeded, sharded by host, resumable to the example.

Everything an example goes through depends on (seed, global position) alone, so an iterator's whole
state is one position, and the global order is the same for any number of hosts.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import grain
import numpy as np

# A split whose decoded images fit in this many bytes is decoded once and kept.
IN_MEMORY_BYTES = 1 << 30


class Source(Protocol):
    """Random access to records: dict with image (H, W, C) uint8, label int32 and id str."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def id_words(name: str) -> np.ndarray:
    """(2,) uint32 from the first 8 bytes of sha256 of an id, for `fold_in`."""
    return np.frombuffer(hashlib.sha256(name.encode()).digest()[:8], '<u4')


def _example(record: dict[str, Any]) -> dict[str, np.ndarray]:
    return {'image': record['image'], 'label': np.int32(record['label']),
            'id': id_words(record['id'])}


class Examples:
    """Random access to examples, dicts of arrays with label () and id (2,) uint32.

    Training takes them as they are, and a step changes them anew at every visit
    (`objectives.augment`); scoring sees them through `plain`.
    """

    def labels(self) -> np.ndarray:
        """The labels (B,) in order."""
        return np.array([self[index]['label'] for index in range(len(self))])

    def plain(self, example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The example as scoring sees it."""
        return example


class InMemory(Examples):
    """A source decoded once: examples of dict(image (H, W, C), label (), id (2,) uint32)."""

    def __init__(self, source: Source):
        examples = [_example(source[index]) for index in range(len(source))]
        self.columns = {key: np.stack([example[key] for example in examples])
                        for key in ('image', 'label', 'id')}

    def __len__(self) -> int:
        return len(self.columns['label'])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {key: column[index] for key, column in self.columns.items()}

    def labels(self) -> np.ndarray:
        """The labels (B,) in order."""
        return self.columns['label']


class _OnDisk(Examples):
    """A source decoded at each visit."""

    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return _example(self.source[index])


def examples(source: Source | Examples) -> Examples:
    """The source's examples, kept decoded in memory where they fit in IN_MEMORY_BYTES.

    Give the result to `train_iterator` and `eval_batches` to decode a split once for both.
    """
    if isinstance(source, Examples):
        return source
    size = len(source) * source[0]['image'].nbytes if len(source) else 0
    return InMemory(source) if size <= IN_MEMORY_BYTES else _OnDisk(source)


def _balanced(labels: np.ndarray, seed: int) -> grain.MapDataset:
    """Indices, of every class equally often in its own shuffled epochs; unlabelled ones never."""
    classes = []
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        classes.append(
            grain.MapDataset.source(members).seed(seed + int(label)).shuffle().repeat())
    return grain.MapDataset.mix(classes)


def train_iterator(source: Source | Examples, *, batch: int, rows: Sequence[int], seed: int,
                   balanced: bool) -> grain.DatasetIterator:
    """Endless shuffled batches, of which this host reads its own rows.

    The order is a fresh permutation in each epoch, or, `balanced`, one of each class in turn. Batch
    i over all hosts is its positions i · batch and following, whatever the number of hosts.

    Args:
      source: records, decoded once and kept in memory where they fit in IN_MEMORY_BYTES.
      batch: examples of all hosts together in a batch.
      rows: which of them this host reads, B in number.

    Returns: an iterator of dict(image uint8 (B, H, W, C), label int32 (B,), id uint32 (B, 2));
      `get_state()` is JSON-serialisable, the same on every host, and `set_state(state)` continues
      exactly, also with other `rows`.
    """
    source = examples(source)
    if balanced:
        order = _balanced(source.labels(), seed)
    else:
        order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    rows = [int(row) for row in rows]

    def read(index: int) -> dict[str, np.ndarray]:
        return _stack([source[int(order[index * batch + row])] for row in rows])

    batches = grain.MapDataset.range(len(order) // batch).map(read)
    # Reading from memory is fastest without threads; decoding overlaps with the training step.
    threads = 0 if isinstance(source, InMemory) else 2
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(batches.to_iter_dataset(options))


def eval_batches(source: Source | Examples, *, batch: int,
                 rows: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Every example once, in order, in batches of which this host reads its own `rows`, or all.

    Gives image, label and id as in training, (rows, ...), and `valid` (batch,) bool: the last batch
    is filled up with copies of its last example, marked not valid.
    """
    source, rows = examples(source), range(batch) if rows is None else rows
    for start in range(0, len(source), batch):
        found = _stack([source.plain(source[min(start + int(row), len(source) - 1)])
                        for row in rows])
        yield {**found, 'valid': np.arange(start, start + batch) < len(source)}


def _stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
