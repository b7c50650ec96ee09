"""The one denoising loss: pre-training, tuning and zero-shot scoring all call it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from repdiff.diffusion.schedule import Schedule, add_noise

# Takes z_t (B, H, W, C) and t (B,); returns predicted noise (B, H, W, C or more channels).
DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]


def denoising_loss(
    denoise_fn: DenoiseFn, schedule: Schedule, z0: jax.Array, t: jax.Array, eps: jax.Array
) -> jax.Array:
    """Mean over (H, W, C) of (ε − ε')², one float32 number per example (B,).

    arXiv 2505.06890, eq. 2, without the mean over the batch. Channels after the first C of a
    prediction (a learned variance) take no part.
    """
    predicted = denoise_fn(add_noise(schedule, z0, t, eps), t)[..., : z0.shape[-1]]
    difference = (eps - predicted).astype(jnp.float32)
    return jnp.mean(jnp.square(difference), axis=range(1, z0.ndim))
