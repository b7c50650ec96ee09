"""Batches of records for training and scoring: seeded, sharded by host, resumable to the example.

Everything an example goes through depends on (seed, global position) alone, so an iterator's whole
state is one position, and the global order is the same for any number of hosts.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grain
import numpy as np
from PIL import Image

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
    """Random access to examples, dicts of arrays with label () and id (2,) uint32, and two views.

    Training sees `augment`'s, new at every visit; scoring sees `plain`'s, always the same.
    """

    def labels(self) -> np.ndarray:
        """The labels (B,) in order."""
        return np.array([self[index]['label'] for index in range(len(self))])

    def augment(self, augmentation: 'Augmentation') -> Callable | None:
        """(example, rng) -> the example as a step of training sees it; None: as it is."""
        return augmentation if augmentation != Augmentation() else None

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


@dataclass(frozen=True)
class Augmentation:
    """How a training image is changed at each visit; what a move uncovers repeats the border.

    flip: mirrors left to right with probability one half. shift: moves by up to so many pixels in
    both directions. rotate: turns about the centre by up to so many degrees. zoom: scales by a
    factor of up to 1 + zoom either way. brightness: adds up to so many grey levels, either way.
    """

    flip: bool = False
    shift: int = 0
    rotate: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0

    def __call__(self, example: dict[str, np.ndarray],
                 rng: np.random.Generator) -> dict[str, np.ndarray]:
        image = example['image']
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if self.shift or self.rotate or self.zoom:
            move = rng.integers(-self.shift, self.shift, 2, endpoint=True)
            angle = np.deg2rad(rng.uniform(-self.rotate, self.rotate))
            zoom = (1 + self.zoom) ** rng.uniform(-1, 1)
            image = _moved(image, move, angle, zoom)
        if self.brightness:
            more = round(rng.uniform(-self.brightness, self.brightness))
            image = np.clip(image.astype(np.int16) + more, 0, 255).astype(np.uint8)
        return {**example, 'image': image}


def _moved(image: np.ndarray, move: np.ndarray, angle: float, zoom: float) -> np.ndarray:
    """A uint8 image (H, W, C) turned by `angle`, scaled by `zoom`, then moved: (rows, columns).

    Plain numbers, not arrays of two: at 64 pixels those would take longer than the resampling.
    """
    height, width, channels = image.shape
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    x, y, down, right = (width - 1) / 2, (height - 1) / 2, *move.tolist()
    # Pixel (u, v) shows what lies at (x, y) + turn (u - x - right, v - y - down).
    to_x, to_y = cos * right + sin * down, cos * down - sin * right
    beyond = max(0.0, abs(to_x) + abs(cos) * x + abs(sin) * y - x,
                 abs(to_y) + abs(sin) * x + abs(cos) * y - y)
    border = 1 + math.ceil(beyond)
    padded = image.take(_repeated(height, border), 0).take(_repeated(width, border), 1)
    # PIL maps pixel centres, at one half; ours are at whole numbers.
    across = x + border + 0.5 - cos * (x + 0.5) - sin * (y + 0.5) - to_x
    along = y + border + 0.5 + sin * (x + 0.5) - cos * (y + 0.5) - to_y
    made = Image.fromarray(padded[..., 0] if channels == 1 else padded).transform(
        (width, height), Image.Transform.AFFINE, (cos, sin, across, -sin, cos, along),
        Image.Resampling.BILINEAR)
    return np.asarray(made).reshape(image.shape)


@functools.lru_cache(maxsize=256)
def _repeated(size: int, border: int) -> np.ndarray:
    """The indices of an axis whose ends are repeated `border` times."""
    return np.clip(np.arange(-border, size + border), 0, size - 1)


def _balanced(source: Examples, seed: int) -> grain.MapDataset:
    """Every class equally often, each with its own shuffled epochs; unlabelled ones never."""
    labels = source.labels()
    classes = []
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        order = grain.MapDataset.source(members).seed(seed + int(label)).shuffle().repeat()
        classes.append(order.map(lambda index: source[int(index)]))
    return grain.MapDataset.mix(classes)


def train_iterator(source: Source | Examples, *, batch: int, rows: Sequence[int], seed: int,
                   augmentation: Augmentation, balanced: bool) -> grain.DatasetIterator:
    """Endless shuffled batches, of which this host reads its own rows.

    The order is a fresh permutation in each epoch, or, `balanced`, one of each class in turn. Batch
    i over all hosts is its positions i · batch and following, whatever the number of hosts.

    Args:
      source: records, decoded once and kept in memory where they fit in IN_MEMORY_BYTES.
      batch: examples of all hosts together in a batch.
      rows: which of them this host reads, B in number.
      augmentation: what each visit changes.

    Returns: an iterator of dict(image uint8 (B, H, W, C), label int32 (B,), id uint32 (B, 2));
      `get_state()` is JSON-serialisable, the same on every host, and `set_state(state)` continues
      exactly, also with other `rows`.
    """
    source = examples(source)
    if balanced:
        order = _balanced(source, seed)
    else:
        order = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    augment = source.augment(augmentation)
    if augment:
        order = order.random_map(augment, seed=seed)
    rows = [int(row) for row in rows]

    def read(index: int) -> dict[str, np.ndarray]:
        return _stack([order[index * batch + row] for row in rows])

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
