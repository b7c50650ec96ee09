"""The zero-shot evaluator: how badly each class condition denoises an image.

arXiv 2505.06890, phase 3; Diffusion Classifier (Li et al. 2023, arXiv 2303.16203).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.diffusion.loss import denoising_loss
from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.diffusion.schedule import Schedule

# (params, z_t (B, H, W, C), t (B,), condition (B, ...)) -> predicted noise
ConditionalDenoiseFn = Callable[..., jax.Array]


def make_scorer(
    denoise: ConditionalDenoiseFn, schedule: Schedule, t: np.ndarray, chunk: int
) -> Callable:
    """Returns jitted (params, conditions (K, ...), z0, ids (B, 2), key) -> errors (B, K, S) float32.

    Draw s of an image uses step t[s] and the same ε for every class, which removes most of the
    noise from their difference. The loss is vmapped over the K conditions; draws are mapped over in
    chunks of `chunk`, so memory does not grow with S.
    """
    t = jnp.asarray(t, jnp.int32)

    def scorer(params, conditions, z0, ids, key):
        keys = image_keys(key, ids)

        def one_draw(draw):
            eps = draw_noise(keys, draw, z0.shape[1:])
            steps = jnp.full(z0.shape[:1], t[draw])

            def one_class(condition):
                condition = jnp.broadcast_to(condition, z0.shape[:1] + condition.shape)

                def denoise_fn(z_t, t):
                    return denoise(params, z_t, t, condition)

                return denoising_loss(denoise_fn, schedule, z0, steps, eps)

            return jax.vmap(one_class)(conditions)  # (K, B)

        errors = jax.lax.map(one_draw, jnp.arange(t.size), batch_size=chunk)  # (S, K, B)
        return errors.transpose(2, 1, 0)

    return jax.jit(scorer)
