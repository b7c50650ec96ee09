"""Multi-crop augmentation and block masks, drawn on the device that trains on them."""

import jax
import jax.numpy as jnp


def random_crops(
    key: jax.Array, images: jax.Array, *, count: int, size: int, scale: tuple[float, float],
    jitter: float, blur: float,
) -> jax.Array:
    """`count` crops of each image (B, H, W, C) in [−1, 1]: (B, count, size, size, C).

    A crop has a share of the image's area within `scale`, sides in a ratio of 3:4 to 4:3, is
    mirrored half the time and resized. Its contrast and brightness change by up to `jitter`, and in
    half of the crops the resize's kernel is up to 1 + `blur` times as wide.
    """
    batch = images.shape[0], count
    keys = jax.random.split(key, 9)

    def uniform(i: int, low: float, high: float) -> jax.Array:
        return jax.random.uniform(keys[i], batch, minval=low, maxval=high)

    area, ratio = uniform(0, *scale), jnp.exp(uniform(1, jnp.log(3 / 4), jnp.log(4 / 3)) / 2)
    height, width = jnp.minimum(jnp.sqrt(area) * ratio, 1), jnp.minimum(jnp.sqrt(area) / ratio, 1)
    top, left = uniform(2, 0, 1) * (1 - height), uniform(3, 0, 1) * (1 - width)
    mirrored = uniform(4, 0, 1) < 0.5
    wider = 1 + blur * jnp.maximum(uniform(5, -1, 1), 0)
    # Without the barrier XLA draws these anew for each element of the matrices below, and takes
    # four times as long to compile that for a GPU.
    top, left, height, width, mirrored, wider = jax.lax.optimization_barrier(
        (top, left, height, width, mirrored, wider))
    rows = resize_rows(top, height, images.shape[1], size, wider)
    columns = resize_rows(left, width, images.shape[2], size, wider)
    columns = jnp.where(mirrored[..., None, None], columns[:, :, ::-1], columns)
    crops = jnp.einsum('bnih,bhwc->bniwc', rows, images)
    crops = jnp.einsum('bnjw,bniwc->bnijc', columns, crops)
    contrast, brightness = (
        value[..., None, None, None]
        for value in (uniform(6, 1 - jitter, 1 + jitter), uniform(7, -jitter, jitter))
    )
    return crops * contrast + brightness


def resize_rows(
    start: jax.Array, length: jax.Array, source: int, target: int, wider: jax.Array
) -> jax.Array:
    """Linear resizes of parts of an axis as matrices (..., target, source), whose rows sum to 1.

    The part begins at `start` and has `length`, both as shares of the axis. The triangle kernel
    widens where the part shrinks, so that nothing aliases, and by the factor `wider`.
    """
    step = (length * source / target)[..., None]  # source pixels of a target pixel
    centre = (start * source)[..., None] + (jnp.arange(target) + 0.5) * step  # (..., target)
    width = jnp.maximum(step, 1.0) * wider[..., None]
    distance = jnp.arange(source) + 0.5 - centre[..., None]
    weights = jnp.maximum(0, 1 - jnp.abs(distance) / width[..., None])
    return weights / weights.sum(-1, keepdims=True)


def block_masks(
    key: jax.Array, batch: int, grid: tuple[int, int], ratio: tuple[float, float]
) -> jax.Array:
    """Tokens to hide, in blocks: (B, N) bool, a share of each image's within `ratio`.

    Blocks are of 2×2 tokens, laid at random; the last one may be cut to keep the share.
    """
    coarse_key, fine_key, ratio_key = jax.random.split(key, 3)
    height, width = grid
    coarse = jax.random.uniform(coarse_key, (batch, -(-height // 2), -(-width // 2)))
    field = coarse.repeat(2, 1).repeat(2, 2)[:, :height, :width].reshape(batch, -1)
    field += 1e-4 * jax.random.uniform(fine_key, field.shape)
    rank = field.argsort(-1).argsort(-1)
    share = jax.random.uniform(ratio_key, (batch, 1), minval=ratio[0], maxval=ratio[1])
    return rank < jnp.maximum(1, jnp.floor(share * height * width))
