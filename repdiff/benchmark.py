"""python -m repdiff.benchmark train|score|prepare|convert: speed, beside PyTorch's, and memory.

`train` times a step of pre-training or tuning (forward, backward, clipping, AdamW, EMA), `score`
the evaluator (an image under one class counts as one), at the sizes of the base config unless told
otherwise. Ours and an eager PyTorch
network of the same sizes (extra `parity`) take turns in short blocks on the same cores, so that
other work on the machine slows both. `prepare` reads DICOM files, then ten times as many, and
compares rates and memory. `convert` gives seconds and peak memory for a random DINOv2 file.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repdiff import benchmark_convert, benchmark_prepare
from repdiff import config as configs
from repdiff.errors import UserError, exit_on_user_error
from repdiff.host import keep_freed_memory

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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message}; see python -m repdiff.benchmark --help.')


def parser() -> argparse.ArgumentParser:
    """The options; sizes are those of the base config by default."""
    base = configs.base()
    made = _Parser(prog='python -m repdiff.benchmark', description=__doc__, allow_abbrev=False)
    add = made.add_argument
    add('what', choices=('train', 'score', 'prepare', 'convert'))
    add('--cases', default='pooled,none,label', help=f'of train: {", ".join(CASES)} (%(default)s)')
    add('--vit', default='L', help='of convert: S, B or L (%(default)s)')
    add('--size', type=int, default=base.data.image_size // base.latents.patch,
        help='latent positions of a side (%(default)s)')
    add('--channels', type=int, default=base.latents.channels, help='of z0 (%(default)s)')
    for name in ('width', 'depth', 'heads', 'patch'):
        add(f'--{name}', type=int, default=base.model[name], help='of the networks (%(default)s)')
    add('--batch', type=int, default=base.pretrain.batch, help='images a step (%(default)s)')
    add('--cores', type=int, default=len(os.sched_getaffinity(0)), help='to use (%(default)s)')
    add('--devices', type=int, default=base.mesh.cpu_devices,
        help='that the CPU is cut into for ours (%(default)s)')
    add('--repeats', type=int, default=8, help='turns of each side (%(default)s)')
    add('--seconds', type=float, default=1.0, help='of a turn (%(default)s)')
    add('--files', type=int, default=200, help='of prepare, then ten times as many (%(default)s)')
    return made


@flax.struct.dataclass
class _Latents:
    """A front end whose images are latents already."""

    def encode(self, z0: jax.Array) -> jax.Array:
        """z0 as given."""
        return z0


def config_of(options: argparse.Namespace, case: str) -> ConfigDict:
    """The base config with the sizes of the options and what the case changes."""
    config = configs.base()
    with config.unlocked():
        config.update(CASES[case])
        config.pretrain.batch = options.batch
        for name in ('width', 'depth', 'heads', 'patch'):
            config.model[name] = getattr(options, name)
    return config


def make_objective(config: ConfigDict, case: str, z_shape: tuple[int, int, int]):
    """The pre-training or tuning objective of a case, as the main job builds it."""
    from repdiff.phases import pretrain_objective, tune_objective

    pretrain = pretrain_objective(config, z_shape)
    return tune_objective(config, pretrain, CLASSES) if 'tune' in CASES[case] else pretrain


def our_train_step(config: ConfigDict, objective, z_shape: tuple[int, int, int]) -> Step:
    """The main job's jitted step on random latents; returns once it is done."""
    from repdiff import optim
    from repdiff.sharding import make_mesh, to_devices
    from repdiff.step import create_state, jit_train_step, make_train_step

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
    from repdiff.sharding import make_mesh
    from repdiff.zeroshot.score import Scorer

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


def compare(options: argparse.Namespace, case: str) -> str:
    """Times one case; a line with images a second of both sides and their ratio.

    The ratio in processor time is there for machines that others use at the same time.
    """
    from repdiff import benchmark_torch as theirs

    config = config_of(options, case)
    z_shape = (options.size, options.size, options.channels)
    objective = make_objective(config, case, z_shape)
    twin = theirs.Twin(objective, z_shape)
    if options.what == 'score':
        ours, other = our_score_step, theirs.score_step
    else:
        ours, other = our_train_step, theirs.train_step
    costs = take_turns(
        {'ours': ours(config, objective, z_shape), 'torch': other(twin, options.batch, z_shape)},
        options.repeats, options.seconds,
    )
    ratio, processor = (costs['torch'] / costs['ours']).T  # each (repeats,)
    images = options.batch * (CLASSES if options.what == 'score' else 1)
    rates = {name: images / np.median(cost[:, 0]) for name, cost in costs.items()}
    return (
        f'{options.what} {case:6s} {(options.size // options.patch) ** 2} tokens, '
        f'{options.cores} cores: ours {rates["ours"]:.0f}/s, PyTorch {rates["torch"]:.0f}/s, '
        f'ratio {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f}), '
        f'in processor time {np.median(processor):.2f} '
        f'({processor.min():.2f} to {processor.max():.2f})'
    )


def main(argv: Sequence[str]) -> None:
    """Parses the options and prints a line for each case."""
    with exit_on_user_error():
        options = parser().parse_args(argv)
        if options.what == 'prepare':
            benchmark_prepare.run(options.files)
            return
        if options.what == 'convert':
            benchmark_convert.run(options.vit)
            return
        cases = ['label'] if options.what == 'score' else options.cases.split(',')
        for case in cases:
            if case not in CASES:
                raise UserError(f'--cases: there is no {case!r}; choose among {", ".join(CASES)}.')
        # JAX and PyTorch take as many threads as the process has cores when they start.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:options.cores])
        keep_freed_memory()
        jax.config.update('jax_num_cpu_devices', options.devices)
        try:
            import torch
        except ImportError:
            raise UserError(
                "PyTorch is missing, which the comparison needs; pip install 'repdiff[parity]'."
            ) from None
        torch.set_num_threads(options.cores)
        for case in cases:
            print(compare(options, case), flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
