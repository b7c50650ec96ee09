"""`sizes`: training and scoring at DiT's sizes, against this machine's own ceiling and PyTorch.

MFU is the operations of the network's matrix products, by the rate of one large matrix product that
takes turns with the steps. PyTorch, where it is there, computes the same network and step with
`torch.compile`, in the same dtype, with fused attention.
"""

import argparse
import os

import jax
import numpy as np
from ml_collections import ConfigDict

from repdiff.benchmark import steps
from repdiff.errors import UserError
from repdiff.models.dit import SIZES
from repdiff.models.layers import REMAT
from repdiff.sharding import make_mesh

COLUMNS = ('size', 'step', 'images/s', 'TFLOP/s', 'MFU', 'PyTorch images/s', 'PyTorch MFU', 'ratio')
LATENTS = {  # cached: z0 is (32, 32, 4), and can be mirrored, not moved or brightened
    'data': {'image_size': 256},
    'latents': {'kind': 'sd_vae'},
    'augmentation': {'shift': 0, 'rotate': 0.0, 'zoom': 0.0, 'brightness': 0.0},
}


def options(add) -> None:
    """Adds the options."""
    add('--sizes', default='S,B,L,XL', help=f'of {", ".join(SIZES)} (%(default)s)')
    add('--cases', default='label', help=f'to train: {", ".join(steps.CASES)} (%(default)s)')
    add('--image-size', type=int, default=256, help='pixels; a token is 16 of a side (%(default)s)')
    add('--batch', type=int, default=64, help='images a step over all devices (%(default)s)')
    add('--dtype', choices=('bfloat16', 'float32'), default='bfloat16', help='(%(default)s)')
    add('--remat', choices=tuple(REMAT), default='dots',
        help='what of a block the backward pass computes again (%(default)s)')
    add('--unroll', action='store_true', help='repeat the blocks in the program')
    add('--torch', choices=('compiled', 'eager', 'none'), default='compiled',
        help='PyTorch beside ours (%(default)s)')
    add('--repeats', type=int, default=5, help='turns of each side (%(default)s)')
    add('--seconds', type=float, default=2.0, help='of a turn (%(default)s)')


def check_sizes(names: str) -> list[str]:
    """The sizes of a list with commas. Raises UserError where there is no such size."""
    for name in (sizes := names.split(',')):
        if name not in SIZES:
            raise UserError(f'--sizes: there is no DiT {name!r}; choose among {", ".join(SIZES)}.')
    return sizes


def run(given: argparse.Namespace) -> None:
    """Prints a table, one line for each size and step. Raises UserError on unknown names."""
    sizes, cases = check_sizes(given.sizes), steps.check_cases(given.cases)
    # Both frameworks share the GPU's memory.
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    print(f'{jax.device_count()} × {jax.devices()[0].device_kind}, {given.dtype}, '
          f'batch {given.batch}, {(given.image_size // 16) ** 2} tokens; '
          f'PyTorch: {given.torch if _torch(given) else "none"}\n')
    print('| ' + ' | '.join(COLUMNS) + ' |\n|' + '---|' * len(COLUMNS))
    for size in sizes:
        for case in cases:
            print(line(given, size, 'train', case), flush=True)
        print(line(given, size, 'score', 'label'), flush=True)


def config_of(
    given: argparse.Namespace, size: str, case: str, *, unroll: bool, remat: str
) -> ConfigDict:
    """A config of the size, whose blocks are repeated or scanned and recomputed as is said."""
    config = steps.config_of(
        case, given.batch, **SIZES[size], patch=2, dtype=given.dtype, unroll=unroll, remat=remat)
    with config.unlocked():
        config.update(LATENTS | {
            'tune': {'batch': given.batch}, 'mesh': {'data': -1},
            'classify': {'passes': given.batch * steps.CLASSES},
        })
        config.data.image_size = given.image_size
    return config


def line(given: argparse.Namespace, size: str, what: str, case: str) -> str:
    """Times one step at one size beside the ceiling and PyTorch; a line of the table."""
    from repdiff import abstract

    config = config_of(given, size, case, unroll=given.unroll, remat=given.remat)
    # What is computed again is no progress.
    plain = config_of(given, size, case, unroll=given.unroll, remat='none')
    z_shape = abstract.latent_shape(config)
    objective = steps.make_objective(config, case, z_shape)
    if what == 'score':
        mesh, ours = make_mesh(-1, 1, 1), steps.our_score_step
        flops = abstract.scorer(plain, mesh, steps.CLASSES).flops()
    else:
        name = 'tune' if 'tune' in steps.CASES[case] else 'pretrain'
        flops, ours = abstract.phase(plain, name, steps.CLASSES).flops(), steps.our_train_step
    product, product_flops = matrix_product(given.dtype)
    sides = {'ceiling': product, 'ours': ours(config, objective, z_shape)}
    if how := _torch(given):
        from repdiff.benchmark import torch_twin

        theirs = torch_twin.score_step if what == 'score' else torch_twin.train_step
        sides['torch'] = theirs(torch_twin.Twin(objective, z_shape), given.batch, z_shape, how)
    seconds = {side: cost[:, 0] for side, cost in steps.take_turns(
        sides, given.repeats, given.seconds).items()}
    return row(f'{size}/2', what if what == 'score' else f'train {case}', flops,
               given.batch * (steps.CLASSES if what == 'score' else 1),
               product_flops / seconds.pop('ceiling').min() * jax.device_count(), seconds)


def row(
    size: str, what: str, flops: float, images: int, ceiling: float, seconds: dict[str, np.ndarray]
) -> str:
    """A line of the table: medians, and the range of the ratio; `ceiling` in FLOP/s."""
    median = {side: float(np.median(cost)) for side, cost in seconds.items()}

    def mfu(side: str) -> str:
        return f'{flops / median[side] / ceiling:.0%}'

    cells = [size, what, f'{images / median["ours"]:,.4g}',
             f'{flops / median["ours"] / 1e12:.3g} of {ceiling / 1e12:.3g}', mfu('ours')]
    if 'torch' in median:
        ratio = seconds['torch'] / seconds['ours']
        cells += [f'{images / median["torch"]:,.4g}', mfu('torch'),
                  f'{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})']
    else:
        cells += ['–'] * 3
    return '| ' + ' | '.join(cells) + ' |'


def matrix_product(dtype: str) -> tuple[steps.Step, float]:
    """A large square product on one device, which returns once it is done, and its operations."""
    size, times = (1024, 1) if jax.default_backend() == 'cpu' else (8192, 4)
    left, right = jax.random.normal(jax.random.key(0), (2, size, size), dtype) * size**-0.25

    @jax.jit
    def chain(x):
        return jax.lax.fori_loop(0, times, lambda _, x: (x @ right).astype(x.dtype), x)

    return lambda: chain(left).block_until_ready(), 2.0 * times * size**3


def _torch(given: argparse.Namespace):
    """How PyTorch runs beside ours; None where it is not there or not wanted."""
    if given.torch == 'none':
        return None
    try:
        import torch
    except ImportError:
        return None
    from repdiff.benchmark.torch_twin import How

    if jax.default_backend() == 'tpu':
        return None
    torch.set_float32_matmul_precision('high')
    return How('cuda' if torch.cuda.is_available() else 'cpu', getattr(torch, given.dtype),
               given.torch == 'compiled')
