"""The noise schedule and what can be read from it: z_t, and conversions between ε, z0 and v.

Source: arXiv 2505.06890 (noising and eq. 3); linear β of DiT; v of Salimans & Ho 2022.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Schedule:
    """z_t = gamma[t] z0 + delta[t] ε with gamma² + delta² = 1; both (T,) float32."""

    gamma: jax.Array
    delta: jax.Array

    @property
    def steps(self) -> int:
        """T, the number of diffusion steps; t is an integer in [0, T)."""
        return self.gamma.shape[0]


def linear(steps: int) -> Schedule:
    """DiT's linear β schedule: β from 1e-4 to 0.02 at T = 1000, rescaled for other T; in float64."""
    scale = 1000 / steps
    beta = np.linspace(scale * 1e-4, scale * 0.02, steps, dtype=np.float64).clip(max=0.999)
    gamma2 = np.cumprod(1 - beta)
    return Schedule(
        gamma=jnp.asarray(np.sqrt(gamma2), jnp.float32),
        delta=jnp.asarray(np.sqrt(1 - gamma2), jnp.float32),
    )


def at(values: jax.Array, t: jax.Array, like: jax.Array) -> jax.Array:
    """values[t] as (B, 1, ..., 1), to multiply `like` (B, ...)."""
    return values[t].reshape(t.shape + (1,) * (like.ndim - t.ndim))


def add_noise(schedule: Schedule, z0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """z_t of clean latents z0 (B, H, W, C), steps t (B,) and noise eps like z0."""
    return at(schedule.gamma, t, z0) * z0 + at(schedule.delta, t, z0) * eps


def z0_from_eps(schedule: Schedule, z_t: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """The predicted clean latent z0' (arXiv 2505.06890, eq. 3)."""
    return (z_t - at(schedule.delta, t, z_t) * eps) / at(schedule.gamma, t, z_t)


def eps_from_z0(schedule: Schedule, z_t: jax.Array, t: jax.Array, z0: jax.Array) -> jax.Array:
    """The noise that a predicted clean latent implies; the inverse of `z0_from_eps`."""
    return (z_t - at(schedule.gamma, t, z_t) * z0) / at(schedule.delta, t, z_t)


def v_from_eps(schedule: Schedule, z_t: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """v = gamma ε − delta z0 that a predicted noise implies."""
    gamma, delta = at(schedule.gamma, t, z_t), at(schedule.delta, t, z_t)
    return (eps - delta * z_t) / gamma


def eps_from_v(schedule: Schedule, z_t: jax.Array, t: jax.Array, v: jax.Array) -> jax.Array:
    """The noise that a predicted v implies; the inverse of `v_from_eps`."""
    return at(schedule.gamma, t, z_t) * v + at(schedule.delta, t, z_t) * z_t
