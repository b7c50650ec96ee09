"""What stands between images and a DINOv2 encoder, and between its tokens and the denoiser's."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

# DINOv2 saw images normalised by ImageNet's mean and standard deviation of red, green and blue in
# [0, 1] (facebookresearch/dinov2, data/transforms.py).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pixels:
    """`size`: pixels of a side that the encoder is shown; `grid`: the denoiser's tokens (h, w)."""

    size: int
    grid: tuple[int, int]

    def show(self, images: jax.Array) -> jax.Array:
        """uint8 images (B, H, W, 1 or 3) -> (B, size, size, 3) float32 as DINOv2 expects them.

        Grey is shown as three equal channels; the resize is bicubic, as in DINOv2's evaluation.
        """
        x = images.astype(jnp.float32) / 255
        x = jax.image.resize(x, (x.shape[0], self.size, self.size, x.shape[3]), 'cubic')
        return (x - jnp.array(MEAN)) / jnp.array(STD)

    def resample(self, patches: jax.Array) -> jax.Array:
        """Patch tokens (B, n², D) -> (B, N, D), linearly, averaging where the grid is coarser."""
        side, width = round(patches.shape[1] ** 0.5), patches.shape[2]
        tokens = patches.reshape(-1, side, side, width)
        tokens = jax.image.resize(tokens, (tokens.shape[0], *self.grid, width), 'linear')
        return tokens.reshape(patches.shape[0], -1, width)
