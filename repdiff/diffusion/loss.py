"""The one denoising loss: pre-training, tuning and zero-shot scoring all call it."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from repdiff.diffusion.schedule import Schedule, add_noise

# Takes z_t (B, H, W, C) and t (B,); returns predicted noise (B, H, W, C or more channels).
DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]

# What is averaged over (H, W, C): 'l2' is the paper's. Huber's bend lies at 1, one standard
# deviation of ε: below it half the square, above it the absolute error less a half.
PENALTIES = {
    'l2': jnp.square,
    'l1': jnp.abs,
    'huber': lambda x: jnp.where(jnp.abs(x) < 1, 0.5 * jnp.square(x), jnp.abs(x) - 0.5),
}


def denoising_loss(
    denoise_fn: DenoiseFn, schedule: Schedule, z0: jax.Array, t: jax.Array, eps: jax.Array
) -> jax.Array:
    """Mean over (H, W, C) of (ε − ε')², one float32 number per example (B,).

    arXiv 2505.06890, eq. 2, without the mean over the batch. Channels after the first C of a
    prediction (a learned variance) take no part.
    """
    return denoising_losses(denoise_fn, schedule, z0, t, eps, ('l2',))[..., 0]


def denoising_losses(
    denoise_fn: DenoiseFn, schedule: Schedule, z0: jax.Array, t: jax.Array, eps: jax.Array,
    kinds: Sequence[str],
) -> jax.Array:
    """`denoising_loss` under several PENALTIES from one prediction, (B, kinds) float32."""
    predicted = denoise_fn(add_noise(schedule, z0, t, eps), t)[..., : z0.shape[-1]]
    difference = (eps - predicted).astype(jnp.float32)
    axes = range(1, z0.ndim)
    return jnp.stack([jnp.mean(PENALTIES[kind](difference), axis=axes) for kind in kinds], -1)
