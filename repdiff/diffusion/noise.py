"""Noise by image: a function of the image's key and the draw's number, whatever the batch."""

import jax


def image_keys(key: jax.Array, ids: jax.Array) -> jax.Array:
    """One key an image (B,) from the run's key and the image's id words (B, 2) uint32."""

    def fold(words):
        return jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])

    return jax.vmap(fold)(ids)


def draw_noise(keys: jax.Array, draw: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """ε of draw number `draw` for each image (B, H, W, C): a function of (image id, draw) alone."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, draw), shape))(keys)
