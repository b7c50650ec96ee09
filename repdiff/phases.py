"""What the phases of every method share: the run's setting, fresh parameters, the optimizer."""

import dataclasses
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from repdiff import interrupt, optim
from repdiff.data import pipeline
from repdiff.errors import UserError
from repdiff.latents.frontend import PatchBasis
from repdiff.latents.vae import Vae
from repdiff.objectives.augment import Augmentation
from repdiff.progress import Progress
from repdiff.sharding import batch_parts, host_rows, param_shardings, to_devices, to_hosts
from repdiff.train import Phase


@dataclass(frozen=True)
class Setting:
    """What every row shares: mesh, data splits by name, classes, front end, the run's key, and the
    patient (B,) of each validation image.
    """

    mesh: Mesh
    splits: dict[str, Any]
    classes: tuple[str, ...]
    frontend: PatchBasis | Vae
    z_shape: tuple[int, int, int]
    key: jax.Array
    patients: np.ndarray

    def purpose(self, name: str) -> jax.Array:
        """The run's key folded with a purpose."""
        return jax.random.fold_in(self.key, zlib.crc32(name.encode()))

    def blind(self) -> 'Setting':
        """The same without the test split: what a row is trained and chosen with."""
        return dataclasses.replace(
            self, splits={name: split for name, split in self.splits.items() if name != 'test'}
        )


def check_batches(config: ConfigDict, mesh: Mesh) -> None:
    """Raises UserError where a phase's batch does not divide over the mesh in every part of it."""
    parts = config.optim.accumulate * batch_parts(mesh)
    for name in ('pretrain', 'tune'):
        if config[name].batch % parts:
            raise UserError(
                f'config.{name}.batch is {config[name].batch}, which does not divide into '
                f'optim.accumulate × data × fsdp = {config.optim.accumulate} × '
                f'{mesh.shape["data"]} × {mesh.shape["fsdp"]} parts; choose a multiple of {parts} '
                'or another config.mesh.'
            )


def optimizer(
    config: ConfigDict, section: ConfigDict, weight_decay: optax.Schedule | None = None
) -> optax.GradientTransformation:
    """The optimizer of a phase; `section` is the config's `pretrain` or `tune`.

    `weight_decay` stands in for `config.optim`'s.
    """
    schedule = optim.learning_rate(
        section.learning_rate, section.warmup_steps, section.steps, section.decay
    )
    o = config.optim
    return optim.adamw(
        schedule, b1=o.b1, b2=o.b2,
        weight_decay=o.weight_decay if weight_decay is None else weight_decay,
        clip_norm=o.clip_norm,
    )


def make_phase(
    config: ConfigDict, section: ConfigDict, name: str, setting: Setting, objective: Callable,
    params: dict, frozen: dict, *, split: str, balanced: bool, evaluate: Callable,
    ema_decay: optax.Schedule | None = None, weight_decay: optax.Schedule | None = None,
    reads: Callable | None = None,
) -> Phase:
    """A phase on one split; `section` is the config's `pretrain` or `tune`.

    ema_decay and weight_decay stand in for the config's; reads: see `make_train_step`.
    """
    return Phase(
        name=name,
        loss_fn=objective,
        tx=optimizer(config, section, weight_decay),
        params=params,
        frozen=frozen,
        iterator=pipeline.train_iterator(
            setting.splits[split], batch=section.batch, rows=host_rows(setting.mesh, section.batch),
            seed=config.seed, balanced=balanced,
        ),
        evaluate=evaluate,
        steps=section.steps,
        batch=section.batch,
        accumulate=config.optim.accumulate,
        ema_decay=section.ema_decay if ema_decay is None else ema_decay,
        log_every=config.log_every,
        checkpoint_every=section.checkpoint_every,
        keep=config.keep_checkpoints,
        augment=Augmentation(**config.augmentation),
        reads=reads,
    )


def fresh(name: str, setting: Setting, init: Callable, shape: tuple[int, ...]) -> dict:
    """Random parameters init(key, example (1, ...)) of a phase, each device making its part."""
    key, example = setting.purpose(f'{name}.init'), jnp.zeros((1, *shape))
    places = param_shardings(jax.eval_shape(init, key, example), setting.mesh)
    return jax.jit(init, out_shardings=places)(key, example)


def map_split(function: Callable, split: Any, batch: int, mesh: Mesh, what: str = '') -> np.ndarray:
    """function(batch) over a split, in batches on the mesh, without the padding; stacked.

    Every host reads its own rows of each batch and gets the whole result.
    """
    batch = -(-batch // mesh.size) * mesh.size  # every device gets equally many
    progress = Progress(len(split), what, 'images') if what else None
    outputs, running = [], []

    def collect() -> None:
        output, valid = running.pop(0)
        outputs.append(to_hosts(output)[valid])
        if progress:
            progress.update(int(valid.sum()))

    for host in pipeline.eval_batches(split, batch=batch, rows=host_rows(mesh, batch)):
        interrupt.check()
        valid = host.pop('valid')
        with jax.set_mesh(mesh):
            running.append((function(to_devices(host, mesh)), valid))
        if len(running) > 1:  # the next batch is read while one is computed
            collect()
    collect()
    return np.concatenate(outputs)
