"""Counterfactuals: a slice as the denoiser would have it under each label."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.diffusion.samplers import ddim, even_steps
from repdiff.diffusion.schedule import Schedule, add_noise
from repdiff.zeroshot.score import ConditionalDenoiseFn

MOVES = 25  # of DDIM; fewer from a small t


def make_counterfactuals(
    denoise: ConditionalDenoiseFn, schedule: Schedule, t: int, draws: int
) -> Callable:
    """Returns jitted (params, conditions (K, ...), z0, ids (B, 2), key) -> z0 (B, K, H, W, C).

    Each latent is noised to step t and denoised by deterministic DDIM (arXiv 2010.02502) under each
    condition, from the same z_t, so what differs between the classes is the condition's doing. The
    mean over `draws` of the noise.
    """
    steps = even_steps(t, min(MOVES, t + 1))

    def rebuild(params, conditions, z0, ids, key):
        keys = image_keys(key, ids)

        def one_draw(draw):
            eps = draw_noise(keys, draw, z0.shape[1:])
            z_t = add_noise(schedule, z0, jnp.full(z0.shape[:1], t), eps)

            def one_class(condition):
                condition = jnp.broadcast_to(condition, z0.shape[:1] + condition.shape)
                return ddim(lambda z, t: denoise(params, z, t, condition), schedule, z_t, steps)

            return jax.vmap(one_class)(conditions)  # (K, B, H, W, C)

        return jax.lax.map(one_draw, jnp.arange(draws)).mean(0).swapaxes(0, 1)

    return jax.jit(rebuild)
