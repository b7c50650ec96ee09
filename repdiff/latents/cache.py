"""Latents encoded once: mean and standard deviation of each image and of its mirror image.

Never one frozen sample: a new z0 is drawn at every visit. A mirrored image has its own entry,
because the VAE's padding is not symmetric.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.data import pipeline
from repdiff.errors import UserError
from repdiff.files import write_atomic
from repdiff.latents.vae import Vae
from repdiff.progress import Progress

SHARD = 256  # images in one file; a build that was killed loses at most these


class Latents:
    """Random access to cached latents, memory-mapped.

    `latents[i]` -> dict(moments (2, 2, h, w, c) float32: image and mirror image, each with mean and
    standard deviation; label int32; id (2,) uint32), in the order of the split they were made of.
    """

    def __init__(self, directory: Path, shards: int):
        self.directory = directory
        self._moments = [np.load(_file(directory, i, 'moments'), mmap_mode='r')
                         for i in range(shards)]
        self._ids, self.labels = (
            np.concatenate([np.load(_file(directory, i, name)) for i in range(shards)])
            for name in ('id', 'label'))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        index = range(len(self))[index]
        moments = np.array(self._moments[index // SHARD][index % SHARD])
        return {'moments': moments, 'label': self.labels[index], 'id': self._ids[index]}


def draw(example: dict[str, Any], rng: np.random.Generator, flip: bool) -> dict[str, Any]:
    """A `Latents` example with `z0` (h, w, c) drawn in place of its `moments`.

    With `flip`, from the mirror image with probability one half; pixels (`image`), where the
    example has them, are then mirrored too.
    """
    rest = dict(example)
    mirror = bool(flip and rng.random() < 0.5)
    mean, std = rest.pop('moments')[int(mirror)]
    if mirror and 'image' in rest:
        rest['image'] = rest['image'][:, ::-1]
    return {'z0': mean + std * rng.standard_normal(mean.shape, np.float32), **rest}


def mean(example: dict[str, Any]) -> dict[str, Any]:
    """A `Latents` example with the image's mean as `z0`, for scoring: the same at every visit."""
    rest = dict(example)
    return {'z0': rest.pop('moments')[0, 0], **rest}


class LatentExamples(pipeline.Examples):
    """Cached latents as the pipeline's examples: z0 drawn in training, its mean in scoring.

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

    def augment(self, augmentation: pipeline.Augmentation) -> Callable:
        """Draws z0. No moves: there are no latents of moved images, and the config asks for none."""
        return lambda example, rng: draw(example, rng, augmentation.flip)

    def plain(self, example: dict[str, Any]) -> dict[str, Any]:
        """The mean as z0."""
        return mean(example)


def ensure(split: Sequence[dict[str, Any]], vae: Vae, root: str | os.PathLike, *, name: str,
           fingerprint: str, batch: int) -> Latents:
    """The latents of `split`, encoded now unless they are in the cache already.

    Every image id with its latent is kept under a key of the encoder's hash and of the data's
    `fingerprint`, which covers ids and pixels, so a change of either encodes anew. A build that was
    killed continues at its first missing file.

    Args:
      split: examples of dict(image uint8 (H, W, C), label int32, id (2,) uint32).
      root: the cache's directory; each key has its own directory in it.
      name: the split's name.
      fingerprint: hash of the data's content.
      batch: images encoded at once.

    Raises: UserError where the images do not fit the VAE or the split is empty.
    """
    if not len(split):
        raise UserError(f'the split {name!r} has no images to encode.')
    key = json.dumps([vae.fingerprint(), fingerprint, name, len(split), SHARD])
    directory = Path(root) / f'{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}'
    shards = -(-len(split) // SHARD)
    missing = [i for i in range(shards) if not _file(directory, i, 'moments').exists()]
    if missing:
        _build(split, vae, directory, missing, batch)
    return Latents(directory, shards)


@jax.jit
def _encode(vae: Vae, images: jax.Array) -> jax.Array:
    """Mean and standard deviation of uint8 images (B, H, W, C) and their mirror images."""
    both = jnp.concatenate([images, images[:, :, ::-1]])
    moments = jnp.stack(vae.moments(both), 1)  # (2B, 2, h, w, c)
    return moments.reshape(2, -1, *moments.shape[1:]).swapaxes(0, 1)  # (B, 2, 2, h, w, c)


def _build(split: Sequence[dict[str, Any]], vae: Vae, directory: Path, shards: list[int],
           batch: int):
    """Encodes and writes the numbered shards, each of whose files is whole or not there."""
    vae = jax.device_put(vae)
    progress = Progress(len(split), 'encoding latents', 'images',
                        done=len(split) - _images(split, shards))
    for shard in shards:
        rows = range(shard * SHARD, min((shard + 1) * SHARD, len(split)))
        examples = [split[index] for index in rows]
        moments = []
        for start in range(0, len(rows), batch):
            images = np.stack([example['image'] for example in examples[start:start + batch]])
            # The last batch is filled up, so that one program serves all.
            padded = np.pad(images, ((0, batch - len(images)), *[(0, 0)] * 3))
            moments.append(np.asarray(_encode(vae, padded))[:len(images)])
            progress.update(len(images))
        for column in ('id', 'label'):
            _write(_file(directory, shard, column), np.stack([e[column] for e in examples]))
        _write(_file(directory, shard, 'moments'), np.concatenate(moments))


def _images(split: Sequence[dict[str, Any]], shards: list[int]) -> int:
    return sum(min((shard + 1) * SHARD, len(split)) - shard * SHARD for shard in shards)


def _file(directory: Path, shard: int, column: str) -> Path:
    return directory / f'{shard:05}.{column}.npy'


def _write(path: Path, array: np.ndarray):
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomic(path, buffer.getbuffer())
