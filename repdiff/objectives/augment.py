"""Augmentation of training images, drawn on the device that trains on them."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from repdiff.latents import cache


@dataclass(frozen=True)
class Augmentation:
    """How a training image is changed at each visit; what a move uncovers repeats the border.

    flip: mirrors left to right with probability one half. shift: moves by up to so many pixels in
    both directions. rotate: turns about the centre by up to so many degrees. zoom: scales by a
    factor of up to 1 + zoom either way. brightness: adds up to so many grey levels, either way.
    """

    flip: bool = False
    shift: int = 0
    rotate: float = 0.0
    zoom: float = 0.0
    brightness: float = 0.0

    def __call__(self, key: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """A batch as a step of training sees it; every example draws its own changes.

        `image` uint8 (B, H, W, C) stays uint8: it is resampled once and rounded once. In the place
        of cached `moments` (`latents.cache`) comes a new `z0`, the mirror image's where that is
        what `image` shows. There are no latents of moved images, and a config asks for none.
        """
        z0_key, key = jax.random.split(key)
        # All in one call: with one for each, the program takes half a second longer to compile.
        side, *moves = jax.random.uniform(key, (6, len(batch['label'])), minval=-1, maxval=1)
        batch, mirrored = dict(batch), (side < 0) & self.flip
        if 'moments' in batch:
            batch['z0'] = cache.draw(z0_key, batch.pop('moments'), mirrored)
        if self.flip and 'image' in batch:
            batch['image'] = jnp.where(
                mirrored[:, None, None, None], batch['image'][:, :, ::-1], batch['image'])
        if self.shift or self.rotate or self.zoom or self.brightness:
            batch['image'] = self._moved(batch['image'], *moves)
        return batch

    def _moved(
        self, images: jax.Array, down: jax.Array, right: jax.Array, turn: jax.Array,
        scale: jax.Array, light: jax.Array,
    ) -> jax.Array:
        """Images moved and brightened by what was drawn in [−1, 1) (B,), uint8 as before."""
        seen = images.astype(jnp.float32)
        if self.shift or self.rotate or self.zoom:
            down, right = (jnp.floor(x * (self.shift + 0.5) + 0.5) for x in (down, right))
            angle, zoom = jnp.deg2rad(turn * self.rotate), (1 + self.zoom) ** scale
            seen = jax.vmap(resample)(seen, down, right, angle, zoom)
        if self.brightness:
            seen += (light * self.brightness)[:, None, None, None]
        return jnp.clip(jnp.round(seen), 0, 255).astype(jnp.uint8)


def resample(
    image: jax.Array, down: jax.Array, right: jax.Array, angle: jax.Array, zoom: jax.Array
) -> jax.Array:
    """An image (H, W, C) turned by `angle`, scaled by `zoom`, then moved by whole or part pixels.

    Bilinear; float32. Four gathers in one fused loop: on a CPU that is faster than to pack the four
    neighbours of a pixel for one gather.
    """
    height, width, _ = image.shape
    y, x = (height - 1) / 2, (width - 1) / 2
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    row, column = jnp.arange(height)[:, None] - y - down, jnp.arange(width) - x - right
    places = [y + cos * row - sin * column, x + sin * row + cos * column]
    one = functools.partial(map_coordinates, coordinates=places, order=1, mode='nearest')
    return jax.vmap(one, 2, 2)(image)
