"""Samples on disk: images by (seed, number), in shards that a killed run goes on from."""

import functools
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from repdiff import phases
from repdiff.diffusion.noise import draw_noise
from repdiff.diffusion.samplers import ddim, ddpm, even_steps
from repdiff.diffusion.schedule import Schedule, add_noise
from repdiff.errors import UserError
from repdiff.files import write_atomic, write_json
from repdiff.generation.conditions import Given
from repdiff.generation.trained import Conditioned, Trained
from repdiff.latents.frontend import to_uint8
from repdiff.progress import Progress
from repdiff.sharding import to_devices, to_hosts

SAMPLERS = ('ddim', 'ddpm')
SHARD = 256  # images in one file; a run that was killed loses at most these


@dataclass(frozen=True)
class Settings:
    """How samples are drawn; together with row and condition, what tells one set from another."""

    sampler: str
    steps: int
    guidance: float
    seed: int


class Shards(Sequence):
    """Images (n, H, W, C) uint8 of each file of a set, read when asked for."""

    def __init__(self, directory: Path, count: int):
        self.directory, self.count = directory, count

    def __len__(self) -> int:
        return -(-self.count // SHARD)

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        return np.load(shard_file(self.directory, index))[:self.count - index * SHARD]


def make_sampler(
    denoise: Conditioned, model: Trained, settings: Settings, z_shape: tuple[int, int, int],
    first: int | None = None,
) -> Callable:
    """Jitted (params, frozen, condition (B, ...) or None, noise numbers (B,), start) -> images.

    uint8 (B, H, W, C) by `settings.steps` steps from `first`, or from T - 1, where z is noise.
    `start` is None or z0 (B, ...), which is noised to `first` (the paper's figure 7). An image
    depends on the seed and its numbers alone: not on batch, order or devices.

    Raises UserError on an unknown sampler or a number of steps that does not fit.
    """
    schedule = model.pretrain.schedule
    top = schedule.steps - 1 if first is None else first
    if settings.sampler not in SAMPLERS:
        raise UserError(f'--sampler is {settings.sampler!r}; choose {" or ".join(SAMPLERS)}.')
    if not 2 <= settings.steps <= schedule.steps:
        raise UserError(f'--steps is {settings.steps}; choose 2 to {schedule.steps}.')
    steps = even_steps(top, min(settings.steps, top + 1))
    variance = 'learned' if model.pretrain.denoiser.learn_sigma else 'posterior'

    def sample(params, frozen, condition, numbers, start):
        keys = image_keys(settings.seed, numbers)
        z_t = draw_noise(keys, schedule.steps, z_shape)
        if start is not None:
            z_t = noised(start, top, schedule, settings.seed, numbers)
        denoise_fn = denoise(params, condition)
        if settings.sampler == 'ddim':
            z0 = ddim(denoise_fn, schedule, z_t, steps)
        else:
            z0 = ddpm(denoise_fn, schedule, z_t, steps, keys, variance)
        return to_uint8(frozen['frontend'].decode(z0))

    return jax.jit(sample)


def image_keys(seed: int, numbers: jax.Array) -> jax.Array:
    """One key an image (B,), of the seed and its number."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(b'generate'))
    return jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)


def noised(
    z0: jax.Array, t: int, schedule: Schedule, seed: int, numbers: jax.Array
) -> jax.Array:
    """z_t of images (B, ...) with the noise that their samples start from."""
    eps = draw_noise(image_keys(seed, numbers), schedule.steps, z0.shape[1:])
    return add_noise(schedule, z0, jnp.full(z0.shape[:1], t), eps)


def directory_of(
    root: Path, model: Trained, condition: str, given: Given, settings: Settings
) -> Path:
    """Where a set of samples lies, made with a `settings.json` of all that its images depend on."""
    about = {'row': model.row, 'condition': condition, 'checkpoints': model.steps,
             'r': given.about.get('r', ''), **asdict(settings)}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    words = ''.join(c if c.isalnum() else '-' for c in condition)[:40]
    directory = root / f'{model.row}-{words}-{digest}'
    write_json(directory / 'settings.json', about)
    return directory


def samples(
    given: Given, model: Trained, settings: Settings, count: int, directory: Path,
    setting: phases.Setting, batch: int, what: str,
) -> Shards:
    """`count` images of a prepared condition, drawn now unless they lie in `directory` already."""
    shards = Shards(directory, count)
    wanted = [min(SHARD, count - index * SHARD) for index in range(len(shards))]
    missing = [index for index, rows in enumerate(wanted)
               if rows_in(shard_file(directory, index)) < rows]
    sampler = make_sampler(given.denoise, model, settings, setting.z_shape)
    batch = -(-batch // setting.mesh.size) * setting.mesh.size  # every device gets equally many
    progress = Progress(count, what, 'images', done=count - sum(wanted[i] for i in missing))
    for index in missing:
        rows = []
        for start in range(0, wanted[index], batch):
            taken = min(batch, wanted[index] - start)
            # The last batch is filled up, so that one program serves all.
            numbers = index * SHARD + start + np.arange(batch, dtype=np.int32).clip(max=taken - 1)
            inputs = to_devices((given.values(numbers), given.noise(numbers)), setting.mesh)
            with jax.set_mesh(setting.mesh):
                drawn = sampler(model.params, model.frozen, *inputs, None)
            rows.append(to_hosts(drawn)[:taken])
            progress.update(taken)
        write_array(shard_file(directory, index), np.concatenate(rows))
    return shards


def shard_file(directory: Path, index: int) -> Path:
    """The file of a shard."""
    return directory / f'{index:05}.npy'


def rows_in(path: Path) -> int:
    """How many rows an array file has; 0 where it is not there."""
    return len(np.load(path, mmap_mode='r')) if path.exists() else 0


def write_array(path: Path, array: np.ndarray) -> None:
    """An .npy file, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomic(path, buffer.getbuffer())
