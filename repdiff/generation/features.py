"""Features of images under a network, for the measures: Inception v3, DINOv2 or the joint ViT."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from repdiff.convert import store
from repdiff.data.records import Split
from repdiff.errors import UserError
from repdiff.files import write_npz
from repdiff.generation.sampling import SHARD
from repdiff.generation.trained import Trained
from repdiff.latents.frontend import to_uint8
from repdiff.models.inception import SPATIAL_CHANNELS, Inception
from repdiff.models.vit import ViT
from repdiff.objectives.pixels import Pixels
from repdiff.progress import Progress
from repdiff.sharding import to_all, to_devices, to_hosts

COPY_SIZE = 64  # pixels of a side that copies are looked for at
DINOV2_SIZE = 224  # pixels of a side that DINOv2 is shown, as in its own evaluations


@dataclass(frozen=True)
class Network:
    """What features are of.

    apply: (params, uint8 images (B, H, W, C)) -> {'pool' (B, D), 'spatial' (B, S)} and, of a
    classifier, 'logits' (B, K). key: a short name for files. words: what readers must know.
    """

    key: str
    words: str
    params: Any
    apply: Callable[[Any, jax.Array], dict[str, jax.Array]]


def inception(directory: str) -> Network:
    """FID's Inception v3, converted."""
    info = store.read_info(directory, 'inception')
    fields, params = store.load(directory, 'inception')
    module = Inception(**fields)
    return Network(
        f'inception-{info["sha256"][:8]}', 'Inception v3 (the usual FID weights)', params,
        lambda params, images: module.apply({'params': params}, images))


def dinov2(directory: str) -> Network:
    """DINOv2, converted: pool is its cls token, spatial the first channels of its patch tokens."""
    info = store.read_info(directory, 'dinov2')
    fields, params = store.load(directory, 'dinov2')
    module = ViT(**fields)
    size = DINOV2_SIZE // module.patch * module.patch
    pixels = Pixels(size, (size // module.patch,) * 2)

    def apply(params, images):
        shown = pixels.show(jnp.broadcast_to(images, (*images.shape[:3], 3)))
        out = module.apply({'params': params}, shown)
        return {'pool': out['cls'], 'spatial': _spatial(out['patches'])}

    return Network(f'dinov2-{info["sha256"][:8]}', 'DINOv2', params, apply)


def joint(model: Trained) -> Network:
    """The joint ViT of a row: pool is the mean of its tokens, spatial their first channels.

    Raises UserError where the row has none.
    """
    if not model.learned_r or model.pretrain.pixels:
        raise UserError(f'{model.row} has no joint ViT to measure with; give --inception=DIR, made '
                        'by python -m repdiff.convert inception.')
    params = {'encoder': model.params['pretrain']['encoder'], 'frontend': model.frozen['frontend']}

    def apply(params, images):
        z0 = params['frontend'].encode(images)
        patches = model.pretrain.encoder.apply({'params': params['encoder']}, z0)['patches']
        return {'pool': patches.mean(1), 'spatial': _spatial(patches)}

    words = (f'the joint ViT of {model.row}, whose r conditions that row: good for comparing rows '
             'of this run, not with published numbers')
    return Network(f'joint-{model.row}-{model.steps["pretrain"]}', words, params, apply)


def pixels(frontend: Any) -> Network:
    """Not a network: pixels of images as the latents show them, at most 64 a side, flat uint8."""

    def apply(frontend, images):
        shown = frontend.decode(frontend.encode(images))
        side = min(shown.shape[1], COPY_SIZE)
        small = jax.image.resize(shown, (shown.shape[0], side, side, shown.shape[3]), 'linear')
        return {'pool': to_uint8(small).reshape(shown.shape[0], -1)}

    return Network('pixels', 'pixels', frontend, apply)


def _spatial(patches: jax.Array) -> jax.Array:
    """Patch tokens (B, N, D) -> (B, 7 N): of a position as many channels as sFID takes."""
    channels = patches[..., :SPATIAL_CHANNELS]
    return channels.reshape(channels.shape[0], -1).astype(jnp.float32)


class RealShards(Sequence):
    """The images of a split in shards, as samples come."""

    def __init__(self, split: Split):
        self._split, self.count = split, len(split)

    def __len__(self) -> int:
        return -(-self.count // SHARD)

    def __getitem__(self, index: int) -> np.ndarray:
        rows = range(index * SHARD, min((index + 1) * SHARD, self.count))
        return np.stack([self._split[row]['image'] for row in rows])


class Features(Sequence):
    """Blocks (n, D) of one kind of feature, read when asked for."""

    def __init__(self, directory: Path, kind: str, count: int):
        self._directory, self._kind, self._count = directory, kind, count

    def __len__(self) -> int:
        return -(-self._count // SHARD)

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        with np.load(_file(self._directory, index)) as arrays:
            return arrays[self._kind][:self._count - index * SHARD]


def extract(
    shards: Sequence[np.ndarray], count: int, network: Network, directory: Path, mesh: Mesh,
    batch: int, what: str,
) -> dict[str, Features]:
    """Features of a set's `count` images, computed over the mesh and kept in `directory`.

    A shard whose features are there with as many rows is not computed again.
    """
    directory = directory / network.key
    batch = -(-batch // mesh.size) * mesh.size
    apply, params = jax.jit(network.apply), to_all(network.params, mesh)
    progress = Progress(count, what, 'images')
    for index in range(len(shards)):
        rows = min(SHARD, count - index * SHARD)
        if _rows(_file(directory, index)) < rows:
            found = _features(apply, params, shards[index], batch, mesh)
            write_npz(_file(directory, index), **found)
        progress.update(rows)
    with np.load(_file(directory, 0)) as arrays:
        return {kind: Features(directory, kind, count) for kind in arrays.files}


def _features(apply: Callable, params: Any, images: np.ndarray, batch: int, mesh: Mesh) -> dict:
    """Features of one shard, in batches that are filled up with their last image."""
    found = []
    for start in range(0, len(images), batch):
        part = images[start:start + batch]
        filled = part[np.arange(batch).clip(max=len(part) - 1)]
        with jax.set_mesh(mesh):
            out = apply(params, to_devices(filled, mesh))
        found.append({kind: to_hosts(values)[:len(part)] for kind, values in out.items()})
    return {kind: np.concatenate([out[kind] for out in found]) for kind in found[0]}


def _file(directory: Path, index: int) -> Path:
    return directory / f'{index:05}.npz'


def _rows(path: Path) -> int:
    if not path.exists():
        return 0
    with np.load(path) as arrays:
        return len(arrays['pool'])
