"""The training loop's time of a step beside the bare compiled step's, in turns on one machine."""

import argparse
import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.benchmark import steps
from repdiff.compile import compile_step
from repdiff.data import pipeline
from repdiff.latents.frontend import fit_pca
from repdiff.optim import adamw
from repdiff.sharding import make_mesh, state_shardings, to_all, to_devices
from repdiff.step import create_state, make_train_step
from repdiff.train import Phase, train

CASE = 'pooled'
IMAGES = 2048


def options(add) -> None:
    """Turns and their length; sizes are the base config's."""
    add('--repeats', type=int, default=8, help='turns of each side (%(default)s)')
    add('--steps', type=int, default=50, help='of a turn; a log line ends it (%(default)s)')
    add('--cores', type=int, default=len(os.sched_getaffinity(0)), help='to use (%(default)s)')


class _Turns:
    """The loop's batches, and its evaluation: there, with the loop at rest, the bare step runs.

    A turn of the loop begins once the checkpoint of the last one is on disk, and ends when its last
    step is computed; reading, moving to the devices, logging and progress are in it.
    """

    def __init__(self, batches, bare: steps.Step, directory: Path, count: int):
        self.batches, self.bare, self.directory, self.count = batches, bare, directory, count
        self.get_state, self.set_state = batches.get_state, batches.set_state
        self.began, self.step = 0.0, 0
        self.costs: dict[str, list[float]] = {'loop': [], 'bare': []}

    def __next__(self):
        batch = next(self.batches)
        if not self.began and self.step:
            while not (self.directory / str(self.step) / 'manifest.json').exists():
                time.sleep(0.01)
            self.began = time.perf_counter()
        return batch

    def evaluate(self, params) -> tuple[None, dict]:
        """Ends the loop's turn and times as many bare steps."""
        jax.block_until_ready(params)
        now = time.perf_counter()
        if self.began:  # the first turn warms both sides
            self.costs['loop'].append((now - self.began) / (self.count - 1))
        began = time.perf_counter()
        for _ in range(self.count - 1):
            scalars = self.bare()
        jax.block_until_ready(scalars)
        if self.began:
            self.costs['bare'].append((time.perf_counter() - began) / (self.count - 1))
        self.began, self.step = 0.0, self.step + self.count
        return None, {}


def run(options: argparse.Namespace) -> None:
    """Prints the times of a step of both and the loop's overhead, the median over turns."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.cores])
    config = steps.config_of(CASE, steps.configs.base().pretrain.batch)
    section, side = config.pretrain, config.data.image_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, side, side, 1), np.uint8)
    split = pipeline.InMemory([
        {'image': image, 'label': 0, 'id': str(i)} for i, image in enumerate(images)
    ])
    frozen = {'frontend': fit_pca(images[:256], config.latents.patch, config.latents.channels, 0.0)}
    z_shape = (side // config.latents.patch,) * 2 + (config.latents.channels,)
    objective, mesh = steps.make_objective(config, CASE, z_shape), make_mesh(-1, 1, 1)
    params = jax.jit(objective.init)(jax.random.key(0), jnp.zeros((1, *z_shape)))
    tx = adamw(lambda step: steps.LEARNING_RATE, b1=0.9, b2=0.99, weight_decay=0.01, clip_norm=1.0)
    batches = pipeline.train_iterator(
        split, batch=section.batch, rows=range(section.batch), seed=0, balanced=False,
        augmentation=pipeline.Augmentation(**config.augmentation),
    )
    with tempfile.TemporaryDirectory() as place:
        bare = _bare(objective, tx, params, frozen, next(batches), section.ema_decay, mesh)
        turns = _Turns(batches, bare, Path(place) / 'checkpoints' / 'loop', options.steps)
        train(Phase(
            name='loop', loss_fn=objective, tx=tx, params=params, frozen=frozen, iterator=turns,
            evaluate=turns.evaluate, steps=options.steps * (options.repeats + 1),
            batch=section.batch, accumulate=1, ema_decay=section.ema_decay,
            log_every=config.log_every, checkpoint_every=options.steps, keep=2,
        ), workdir=Path(place), mesh=mesh, key=jax.random.key(1))
    loop, step = (np.array(turns.costs[name]) for name in ('loop', 'bare'))
    over = 100 * (loop / step - 1)
    print(
        f'loop: {1e3 * np.median(loop):.2f} ms a step, the bare step {1e3 * np.median(step):.2f} ms, '
        f'{options.cores} cores: overhead {np.median(over):.1f} % '
        f'({over.min():.1f} to {over.max():.1f} over {len(over)} turns)'
    )


def _bare(objective, tx, params, frozen, batch, ema_decay: float, mesh) -> steps.Step:
    """A step of the same program on one batch that stays on the devices; nothing waits for it."""
    state = create_state(params, tx)
    batch, frozen = to_devices(batch, mesh), to_all(frozen, mesh)
    train_step = make_train_step(objective, tx, ema_decay=ema_decay, accumulate=1)
    call = compile_step(train_step, state, frozen, batch, mesh).call
    state, key = jax.device_put(state, state_shardings(state, mesh)), to_all(jax.random.key(1), mesh)
    state = jax.tree.map(jnp.copy, state)  # the loop starts from the same parameters

    def step():
        nonlocal state
        state, scalars = call(state, frozen, batch, key)
        return scalars

    return step
