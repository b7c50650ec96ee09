"""Throughput of the evaluator beside the bare forward pass of its network, at the same batch."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.benchmark import beside, steps


def options(add) -> None:
    """The same sizes, cores and turns as `train` and `score`."""
    beside.options(add)


def run(given: argparse.Namespace) -> None:
    """Prints forward passes a second of both, which take turns, and their ratio.

    The evaluator adds what a score needs beside the network: keys, noise, z_t, the error, and
    moving images to the devices and errors back.
    """
    config = steps.config_of(
        'label', given.batch, **{name: getattr(given, name) for name in beside.SIZES}
    )
    z_shape = (given.size, given.size, given.channels)
    objective = steps.make_objective(config, 'label', z_shape)
    params = jax.jit(objective.init)(jax.random.key(0), jnp.zeros((1, *z_shape)))
    passes = given.batch * steps.CLASSES
    z_t = jax.random.normal(jax.random.key(1), (passes, *z_shape))
    t, label = jnp.full(passes, steps.SCORED_T), jnp.arange(passes) % steps.CLASSES
    forward = jax.jit(objective.denoise)
    costs = steps.take_turns({
        'evaluator': steps.our_score_step(config, objective, z_shape),
        'forward': lambda: forward(params, z_t, t, label).block_until_ready(),
    }, given.repeats, given.seconds)
    ratio, processor = (costs['forward'] / costs['evaluator']).T
    rates = {name: passes / np.median(cost[:, 0]) for name, cost in costs.items()}
    print(
        f'evaluator {(given.size // given.patch) ** 2} tokens, {passes} passes a call: '
        f'{rates["evaluator"]:.0f}/s, bare forward {rates["forward"]:.0f}/s, '
        f'ratio {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f}), '
        f'in processor time {np.median(processor):.2f} '
        f'({processor.min():.2f} to {processor.max():.2f})'
    )
