"""`train` and `score`: a step beside the same network's in eager PyTorch, on the same cores.

They take turns in short blocks, so that other work on the machine slows both.
"""

import argparse
import os

import jax
import numpy as np

from repdiff import config as configs
from repdiff.benchmark import steps
from repdiff.errors import UserError
from repdiff.host import keep_freed_memory

SIZES = ('width', 'depth', 'heads', 'patch')


def options(add) -> None:
    """Adds the options; sizes are those of the base config by default."""
    base = configs.base()
    add('--cases', default='pooled,none,label',
        help=f'of train: {", ".join(steps.CASES)} (%(default)s)')
    add('--size', type=int, default=base.data.image_size // base.latents.patch,
        help='latent positions of a side (%(default)s)')
    add('--channels', type=int, default=base.latents.channels, help='of z0 (%(default)s)')
    for name in SIZES:
        add(f'--{name}', type=int, default=base.model[name], help='of the networks (%(default)s)')
    add('--batch', type=int, default=base.pretrain.batch, help='images a step (%(default)s)')
    add('--cores', type=int, default=len(os.sched_getaffinity(0)), help='to use (%(default)s)')
    add('--devices', type=int, default=base.mesh.cpu_devices,
        help='that the CPU is cut into for ours (%(default)s)')
    add('--repeats', type=int, default=8, help='turns of each side (%(default)s)')
    add('--seconds', type=float, default=1.0, help='of a turn (%(default)s)')


def run(given: argparse.Namespace) -> None:
    """Prints a line for each case. Raises UserError on an unknown case or without PyTorch."""
    cases = ['label'] if given.what == 'score' else steps.check_cases(given.cases)
    # JAX and PyTorch take as many threads as the process has cores when they start.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:given.cores])
    keep_freed_memory()
    jax.config.update('jax_num_cpu_devices', given.devices)
    try:
        import torch
    except ImportError:
        raise UserError(
            "PyTorch is missing, which the comparison needs; pip install 'repdiff[parity]'."
        ) from None
    torch.set_num_threads(given.cores)
    for case in cases:
        print(compare(given, case), flush=True)


def compare(given: argparse.Namespace, case: str) -> str:
    """Times one case; a line with images a second of both sides and their ratio.

    The ratio in processor time is there for machines that others use at the same time.
    """
    from repdiff.benchmark import torch_twin as theirs

    config = steps.config_of(case, given.batch, **{name: getattr(given, name) for name in SIZES})
    z_shape = (given.size, given.size, given.channels)
    objective = steps.make_objective(config, case, z_shape)
    twin = theirs.Twin(objective, z_shape)
    if given.what == 'score':
        ours, other = steps.our_score_step, theirs.score_step
    else:
        ours, other = steps.our_train_step, theirs.train_step
    costs = steps.take_turns(
        {'ours': ours(config, objective, z_shape), 'torch': other(twin, given.batch, z_shape)},
        given.repeats, given.seconds,
    )
    ratio, processor = (costs['torch'] / costs['ours']).T  # each (repeats,)
    images = given.batch * (steps.CLASSES if given.what == 'score' else 1)
    rates = {name: images / np.median(cost[:, 0]) for name, cost in costs.items()}
    return (
        f'{given.what} {case:6s} {(given.size // given.patch) ** 2} tokens, '
        f'{given.cores} cores: ours {rates["ours"]:.0f}/s, PyTorch {rates["torch"]:.0f}/s, '
        f'ratio {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f}), '
        f'in processor time {np.median(processor):.2f} '
        f'({processor.min():.2f} to {processor.max():.2f})'
    )
