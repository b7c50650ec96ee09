"""`compile`: seconds to compile a training step with its blocks scanned, against repeated.

From shapes alone, so any size fits; for one device of the platform that JAX finds.
"""

import argparse
import time

from repdiff.benchmark import sizes, steps
from repdiff.compile import CompiledStep
from repdiff.models.dit import SIZES
from repdiff.sharding import make_mesh


def options(add) -> None:
    """Adds the options."""
    add('--sizes', default='XL', help=f'of {", ".join(SIZES)} (%(default)s)')
    add('--image-size', type=int, default=256, help='pixels; a token is 16 of a side (%(default)s)')
    add('--batch', type=int, default=8, help='images a step (%(default)s)')
    add('--dtype', choices=('bfloat16', 'float32'), default='bfloat16', help='(%(default)s)')


def run(given: argparse.Namespace) -> None:
    """Prints a line for each size. Raises UserError on an unknown size."""
    for size in sizes.check_sizes(given.sizes):
        scan, scan_cpu = measure(given, size, unroll=False)
        repeat, repeat_cpu = measure(given, size, unroll=True)
        print(f'compile: {size}/2, {SIZES[size]["depth"]} blocks: scanned {scan.seconds:.1f} s '
              f'({scan_cpu:.1f} s of processor time), repeated {repeat.seconds:.1f} s '
              f'({repeat_cpu:.1f} s): {repeat.seconds / scan.seconds:.1f} x, in processor time '
              f'{repeat_cpu / scan_cpu:.1f} x', flush=True)


def measure(given: argparse.Namespace, size: str, unroll: bool) -> tuple[CompiledStep, float]:
    """The compiled step of tuning, and the processor time that it took."""
    from repdiff import abstract

    config = sizes.config_of(given, size, 'label', unroll=unroll, remat='none')
    began = time.process_time()
    compiled = abstract.phase(config, 'tune', steps.CLASSES).compile(make_mesh(-1, 1, 1))
    return compiled, time.process_time() - began
