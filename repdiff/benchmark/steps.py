"""What is timed: the main job's training step and evaluator on random latents, in turns."""

import time
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repdiff import config as configs
from repdiff import optim
from repdiff.errors import UserError
from repdiff.methods import denoise
from repdiff.sharding import make_mesh, to_devices
from repdiff.step import create_state, jit_train_step, make_train_step
from repdiff.zeroshot.score import Scorer

# What is changed in the base config for each kind of step.
CASES = {
    'none': {'pretrain': {'condition': 'none'}},
    'pooled': {'pretrain': {'condition': 'representation'}, 'representation': {'kind': 'pooled'}},
    'tokens': {'pretrain': {'condition': 'representation'}, 'representation': {'kind': 'tokens'}},
    'label': {'tune': {'paired_weight': 0.0}, 'pretrain': {'condition': 'none'}},
    'paired': {'tune': {'paired_weight': 0.01}, 'pretrain': {'condition': 'none'}},
}
CLASSES = 2
LEARNING_RATE = 1e-4  # the speed does not depend on it
SCORED_T = 100

Step = Callable[[], None]


@flax.struct.dataclass
class _Latents:
    """A front end whose images are latents already."""

    def encode(self, z0: jax.Array) -> jax.Array:
        """z0 as given."""
        return z0


def config_of(case: str, batch: int, **model) -> ConfigDict:
    """The base config with `batch`, the keys of `model` and what the case changes."""
    config = configs.base()
    with config.unlocked():
        config.update(CASES[case] | {'model': model})
        config.pretrain.batch = batch
    return config


def check_cases(names: str) -> list[str]:
    """The cases of a list with commas. Raises UserError where there is no such case."""
    for name in (cases := names.split(',')):
        if name not in CASES:
            raise UserError(f'--cases: there is no {name!r}; choose among {", ".join(CASES)}.')
    return cases


def make_objective(config: ConfigDict, case: str, z_shape: tuple[int, int, int]):
    """The pre-training or tuning objective of a case, as the main job builds it."""
    pretrain = denoise.pretrain_objective(config, z_shape)
    return denoise.tune_objective(config, pretrain, CLASSES) if 'tune' in CASES[case] else pretrain


def our_train_step(config: ConfigDict, objective, z_shape: tuple[int, int, int]) -> Step:
    """The main job's jitted step on random latents; returns once it is done."""
    o, batch = config.optim, config.pretrain.batch
    tx = optim.adamw(
        lambda step: LEARNING_RATE, b1=o.b1, b2=o.b2, weight_decay=o.weight_decay,
        clip_norm=o.clip_norm,
    )
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    params = jax.jit(objective.init)(jax.random.key(0), jnp.zeros((1, *z_shape)))
    state = create_state(params, tx)
    step = jit_train_step(
        make_train_step(objective, tx, ema_decay=config.pretrain.ema_decay, accumulate=1),
        state, mesh,
    )
    rng = np.random.default_rng(0)
    given = to_devices({
        'image': rng.normal(size=(batch, *z_shape)).astype(np.float32),
        'label': rng.integers(0, CLASSES, batch).astype(np.int32),
    }, mesh)
    frozen, key = {'frontend': _Latents()}, jax.random.key(1)

    def run():
        nonlocal state
        state, scalars = step(state, frozen, given, key)
        scalars['loss'].block_until_ready()

    return run


def our_score_step(config: ConfigDict, objective, z_shape: tuple[int, int, int]) -> Step:
    """The evaluator's errors of one draw under each class; returns once they are there."""
    images = config.pretrain.batch
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    scorer = Scorer(
        objective.denoise, objective.schedule, kinds=('l2',), passes=images * CLASSES, mesh=mesh
    )
    params = jax.jit(objective.init)(jax.random.key(0), jnp.zeros((1, *z_shape)))
    z0 = np.random.default_rng(1).normal(size=(images, *z_shape)).astype(np.float32)
    errors = scorer.on(
        params, np.arange(CLASSES), jax.random.key(2), z0, np.zeros((images, 2), np.uint32)
    )
    image, klass = np.divmod(np.arange(images * CLASSES), CLASSES)
    t = np.full_like(image, SCORED_T)
    return lambda: errors(image, klass, np.zeros_like(image), t)


def take_turns(sides: dict[str, Step], repeats: int, seconds: float) -> dict[str, np.ndarray]:
    """Seconds of a step of each side (repeats, 2), wall and processor, in turns of `seconds`."""
    for step in sides.values():
        step()  # compiles
    costs = {name: [] for name in sides}
    for _ in range(repeats):
        for name, step in sides.items():
            step()  # warms caches and threads after the other side's turn
            wall, processor, count = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - wall < seconds or not count:
                step()
                count += 1
            spent = time.perf_counter() - wall, time.process_time() - processor
            costs[name].append(np.array(spent) / count)
    return {name: np.array(values) for name, values in costs.items()}
