"""Latents encoded once: mean and standard deviation of each image and of its mirror image.

Never one frozen sample: a new z0 is drawn at every visit. A mirrored image has its own entry,
because the VAE's padding is not symmetric.

Each encoder's hash has a directory. Its record files are keyed by image id and pixels, whatever
split or data set an image is in; a table for each split tells where its latents are.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repdiff import interrupt
from repdiff.data import pipeline
from repdiff.errors import UserError
from repdiff.files import write_npz
from repdiff.latents import store
from repdiff.latents.vae import Vae
from repdiff.progress import Progress


class Latents:
    """Random access to the cached latents of a split, by its table.

    `latents[i]` -> dict(moments (2, 2, h, w, c) float32: image and mirror image, each with mean and
    standard deviation; label int32; id (2,) uint32), in the order of the split they were made of.
    """

    def __init__(self, table: Path):
        with np.load(table) as columns:
            self.labels, self._ids, self._number, self._row = (
                columns[name] for name in ('label', 'id', 'number', 'row'))
            paths = [table.parent / str(name) for name in columns['files']]
            self._files = store.Files(paths, columns['shape'])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        index = range(len(self))[index]
        moments = self._files.read(self._number[index], self._row[index])
        return {'moments': moments, 'label': self.labels[index], 'id': self._ids[index]}


def draw(key: jax.Array, moments: jax.Array, mirrored: jax.Array) -> jax.Array:
    """z0 (B, h, w, c) of `moments` (B, 2, 2, h, w, c): the mirror image's where `mirrored` (B,)."""
    chosen = jnp.where(mirrored.reshape(-1, *[1] * 4), moments[:, 1], moments[:, 0])
    mean, std = chosen[:, 0], chosen[:, 1]
    return mean + std * jax.random.normal(key, mean.shape)


class LatentExamples(pipeline.Examples):
    """Cached latents as the pipeline's examples: moments in training, their mean in scoring.

    With `images`, the same split's pixels, an example also carries its `image`.
    """

    def __init__(self, latents: Latents, images: Sequence[dict[str, Any]] | None):
        self.latents, self.images = latents, images

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        example = self.latents[index]
        return example if self.images is None else {**self.images[index], **example}

    def labels(self) -> np.ndarray:
        """The labels (B,) in order."""
        return self.latents.labels

    def plain(self, example: dict[str, Any]) -> dict[str, Any]:
        """The image's mean as `z0` in place of its moments: the same at every visit."""
        rest = dict(example)
        return {'z0': rest.pop('moments')[0, 0], **rest}


def ensure(split: Sequence[dict[str, Any]], vae: Vae, root: str | os.PathLike, *, name: str,
           fingerprint: str, batch: int) -> Latents:
    """The latents of `split`, of which those that the cache does not have are encoded now.

    A latent is kept under the encoder's hash, the image's id and its pixels, so another encoder
    encodes everything anew, and another image only itself. A build that was killed continues where
    its last file ended. `fingerprint` spares reading images that the cache has seen.

    Args:
      split: examples of dict(image uint8 (H, W, C), label int32, id (2,) uint32).
      root: the cache's directory; each encoder has its own directory in it.
      name: the split's name.
      fingerprint: hash of the data's content, labels included.
      batch: images encoded at once.

    Raises: UserError where the images do not fit the VAE, the split is empty, or the cache is
      damaged or cannot be written.
    """
    if not len(split):
        raise UserError(f'the split {name!r} has no images to encode.')
    seen = hashlib.sha256(json.dumps([fingerprint, len(split)]).encode()).hexdigest()[:16]
    table = Path(root) / vae.fingerprint()[:16] / f'{name}-{seen}.npz'
    if not _complete(table):
        _build(split, vae, table, name, batch)
    return Latents(table)


def _complete(table: Path) -> bool:
    """Whether the table and every file that it names are there; a damaged table is made again."""
    try:
        with np.load(table) as columns:
            return all((table.parent / str(name)).exists() for name in columns['files'])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False


@jax.jit
def _encode(vae: Vae, images: jax.Array) -> jax.Array:
    """Mean and standard deviation of uint8 images (B, H, W, C) and their mirror images."""
    both = jnp.concatenate([images, images[:, :, ::-1]])
    moments = jnp.stack(vae.moments(both), 1)  # (2B, 2, h, w, c)
    return moments.reshape(2, -1, *moments.shape[1:]).swapaxes(0, 1)  # (B, 2, 2, h, w, c)


def _build(split: Sequence[dict[str, Any]], vae: Vae, table: Path, name: str, batch: int) -> None:
    """Encodes the images of `split` that the store lacks, then writes its table."""
    vae, writer = jax.device_put(vae), store.Writer(table.parent)
    progress = Progress(len(split), f'latents of {name}', 'images')
    keys, labels, ids, waiting = [], [], [], {}
    try:
        for index in range(len(split)):
            interrupt.check()
            example = split[index]
            keys.append(store.key(example['image'], example['id']))
            labels.append(example['label'])
            ids.append(example['id'])
            if keys[-1] not in writer.places:
                waiting[keys[-1]] = example['image']
            if len(waiting) == batch or (waiting and index == len(split) - 1):
                writer.add(list(waiting), _moments(vae, np.stack(list(waiting.values())), batch))
                waiting = {}
            progress.update()
    finally:  # an interrupted build keeps what it has
        writer.close()
    _write_table(
        table, [writer.places[key] for key in keys], label=np.stack(labels), id=np.stack(ids),
        shape=jax.eval_shape(_encode, vae, example['image'][None]).shape[1:],
    )


def _write_table(path: Path, places: Sequence[tuple[str, int]], **columns: np.ndarray) -> None:
    """Where each image's latent is, as (number of one of `files`, row), beside the `columns`."""
    files = sorted({file for file, _ in places})
    numbers = {file: number for number, file in enumerate(files)}
    write_npz(path, files=files, number=np.array([numbers[file] for file, _ in places], np.int32),
              row=np.array([row for _, row in places], np.int32), **columns)


def _moments(vae: Vae, images: np.ndarray, batch: int) -> np.ndarray:
    """`_encode` of at most `batch` images, filled up, so that one program serves all."""
    padded = np.pad(images, ((0, batch - len(images)), *[(0, 0)] * 3))
    return np.asarray(_encode(vae, padded))[:len(images)]
