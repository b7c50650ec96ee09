"""Noise by image: a function of the image's key and the draw's number, whatever the batch."""

import jax
import jax.numpy as jnp


def image_keys(key: jax.Array, ids: jax.Array) -> jax.Array:
    """One key an image (B,) from the run's key and the image's id words (B, 2) uint32."""

    def fold(words):
        return jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])

    return jax.vmap(fold)(ids)


def draw_noise(
    keys: jax.Array, draw: jax.Array, shape: tuple[int, ...], antithetic: bool = False
) -> jax.Array:
    """ε of draw number `draw`, () or (B,), for each image (B, H, W, C): of (image id, draw) alone.

    Antithetic draws 2n and 2n + 1 are ε and −ε.
    """

    def one(key, draw):
        if not antithetic:
            return jax.random.normal(jax.random.fold_in(key, draw), shape)
        sign = 1.0 - 2.0 * (draw % 2)
        return sign * jax.random.normal(jax.random.fold_in(key, draw // 2), shape)

    return jax.vmap(one)(keys, jnp.broadcast_to(draw, keys.shape))
