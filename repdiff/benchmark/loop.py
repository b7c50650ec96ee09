"""The training loop's time of a step beside the bare compiled step's, which take turns.

Both call the same program, which augments its batch. The loop also reads and moves batches, logs
and shows progress; the bare step has one batch on the devices and waits for nothing. Writing
checkpoints goes on in the background and is left out.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repdiff import config as configs
from repdiff import manifest, phases, train
from repdiff.benchmark import beside, steps
from repdiff.compile import compile_step
from repdiff.data import pipeline
from repdiff.host import keep_freed_memory
from repdiff.latents.frontend import fit_pca
from repdiff.objectives.augment import Augmentation
from repdiff.sharding import make_mesh, state_shardings, to_all, to_devices
from repdiff.step import create_state, make_train_step

CASE = 'pooled'
IMAGES = 2048


def options(add) -> None:
    """Adds the options; sizes are those of the base config by default."""
    base = configs.base()
    for name in beside.SIZES:
        add(f'--{name}', type=int, default=base.model[name], help='of the networks (%(default)s)')
    add('--batch', type=int, default=base.pretrain.batch, help='images a step (%(default)s)')
    add('--cores', type=int, default=len(os.sched_getaffinity(0)), help='to use (%(default)s)')
    add('--repeats', type=int, default=8, help='turns of each side (%(default)s)')
    add('--steps', type=int, default=50, help='of a turn (%(default)s)')


def run(given: argparse.Namespace) -> None:
    """Prints the times of a step of both and what the loop adds, the median over turns."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:given.cores])
    keep_freed_memory()
    costs = measure(given)
    loop, bare = (1e3 * np.median(costs[side], 0) for side in ('loop', 'bare'))
    over, processor = 100 * (costs['loop'] / costs['bare'] - 1).T
    print(
        f'loop, {given.cores} cores: {loop[0]:.2f} ms a step, the bare step {bare[0]:.2f} ms: '
        f'{np.median(over):+.1f} % ({over.min():+.1f} to {over.max():+.1f}); in processor time '
        f'{loop[1]:.2f} and {bare[1]:.2f} ms: {np.median(processor):+.1f} % '
        f'({processor.min():+.1f} to {processor.max():+.1f})'
    )


def measure(given: argparse.Namespace) -> dict[str, np.ndarray]:
    """Seconds of a step of 'loop' and 'bare', (repeats, 2): wall and processor."""
    config = steps.config_of(CASE, given.batch, **{name: getattr(given, name)
                                                   for name in beside.SIZES})
    section, mesh = config.pretrain, make_mesh(-1, 1, 1)
    split, frozen, z_shape = _data(config)
    objective = steps.make_objective(config, CASE, z_shape)
    params = jax.jit(objective.init)(jax.random.key(0), jnp.zeros((1, *z_shape)))
    tx = phases.optimizer(config, section)
    batches = pipeline.train_iterator(
        split, batch=section.batch, rows=range(section.batch), seed=0, balanced=False)
    shared = {'ema_decay': section.ema_decay, 'accumulate': 1,
              'augment': Augmentation(**config.augmentation)}
    train_step = make_train_step(objective, tx, **shared)
    bare = _bare(train_step, create_state(params, tx), frozen, next(batches), mesh)
    with tempfile.TemporaryDirectory() as place:
        turns = _Turns(batches, bare, Path(place) / 'checkpoints' / 'loop', given.steps)
        train.train(train.Phase(
            name='loop', loss_fn=objective, tx=tx, params=params, frozen=frozen, iterator=turns,
            evaluate=turns.evaluate, steps=given.steps * (given.repeats + 1),
            batch=section.batch, log_every=config.log_every, checkpoint_every=given.steps, keep=2,
            **shared,
        ), workdir=Path(place), mesh=mesh, key=jax.random.key(1))
    return {side: np.array(cost) for side, cost in turns.costs.items()}


class _Turns:
    """The loop's batches and its evaluation, in which, with the loop at rest, the bare step runs.

    A turn of the loop begins once the checkpoint of the last one is on disk, and ends when its last
    step is computed. The first turn of each side is not counted.
    """

    def __init__(self, batches, bare: steps.Step, directory: Path, count: int):
        self.batches, self.bare, self.directory, self.count = batches, bare, directory, count
        self.get_state, self.set_state = batches.get_state, batches.set_state
        self.began, self.step = None, 0
        self.costs: dict[str, list[np.ndarray]] = {'loop': [], 'bare': []}

    def __next__(self):
        batch = next(self.batches)
        if self.began is None and self.step:
            while not (self.directory / str(self.step) / manifest.NAME).exists():
                time.sleep(0.01)
            self.began = _now()
        return batch

    def evaluate(self, params) -> tuple[None, dict]:
        """Ends the loop's turn and times as many bare steps."""
        jax.block_until_ready(params)
        loop, began, steps_timed = _now(), _now(), self.count - 1
        for _ in range(steps_timed):
            scalars = self.bare()
        jax.block_until_ready(scalars)
        if self.began is not None:
            self.costs['loop'].append((loop - self.began) / steps_timed)
            self.costs['bare'].append((_now() - began) / steps_timed)
        self.began, self.step = None, self.step + self.count
        return None, {}


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def _data(config: ConfigDict) -> tuple[pipeline.InMemory, dict, tuple[int, int, int]]:
    """Random images as a split, their front end, and z0's shape."""
    side, patch, channels = config.data.image_size, config.latents.patch, config.latents.channels
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 1), np.uint8)
    split = pipeline.InMemory([
        {'image': image, 'label': 0, 'id': str(i)} for i, image in enumerate(images)
    ])
    frozen = {'frontend': fit_pca(images[:256], patch, channels, config.latents.whiten)}
    return split, frozen, (side // patch, side // patch, channels)


def _bare(train_step, state, frozen, batch, mesh) -> steps.Step:
    """A step of the same program on one batch that stays on the devices; nothing waits for it."""
    batch, frozen = to_devices(batch, mesh), to_all(frozen, mesh)
    call = compile_step(train_step, state, frozen, batch, mesh).call
    state = jax.device_put(state, state_shardings(state, mesh))
    state, key = jax.tree.map(jnp.copy, state), to_all(jax.random.key(1), mesh)  # it is donated

    def step():
        nonlocal state
        state, scalars = call(state, frozen, batch, key)
        return scalars

    return step
