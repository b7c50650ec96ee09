"""Samplers: from noise back to z0, without knowing the network."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.diffusion.loss import DenoiseFn
from repdiff.diffusion.schedule import Schedule, z0_from_eps


def even_steps(first: int, count: int) -> np.ndarray:
    """`count` integer steps from `first` down to 0, evenly spaced."""
    return np.linspace(first, 0, count).round().astype(np.int32)


def ddim(
    denoise_fn: DenoiseFn, schedule: Schedule, z_t: jax.Array, steps: Sequence[int]
) -> jax.Array:
    """Deterministic DDIM (Song et al. 2021, η = 0) from z_t at steps[0] through all steps to z0.

    `steps` falls strictly, each in [0, T). One compiled body under `lax.scan`.
    """
    steps = np.asarray(steps, np.int32)
    if np.any(np.diff(steps) >= 0) or steps[-1] < 0 or steps[0] >= schedule.steps:
        raise ValueError(f'DDIM steps must fall strictly within [0, {schedule.steps}): {steps}')
    # The last move goes to the clean latent itself: gamma = 1, delta = 0.
    gamma_next = jnp.append(schedule.gamma[steps[1:]], 1.0)
    delta_next = jnp.append(schedule.delta[steps[1:]], 0.0)

    def move(z, step):
        t, gamma, delta = step
        t = jnp.full(z.shape[:1], t)
        eps = denoise_fn(z, t)[..., : z.shape[-1]]
        return gamma * z0_from_eps(schedule, z, t, eps) + delta * eps, None

    return jax.lax.scan(move, z_t, (jnp.asarray(steps), gamma_next, delta_next))[0]
