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
        keys, batch, size = jax.random.split(key, 3), dict(batch), batch['label'].shape
        mirrored = jax.random.bernoulli(keys[0], shape=size) if self.flip else jnp.zeros(size, bool)
        if 'moments' in batch:
            batch['z0'] = cache.draw(keys[1], batch.pop('moments'), mirrored)
        if self.flip and 'image' in batch:
            batch['image'] = jnp.where(
                mirrored[:, None, None, None], batch['image'][:, :, ::-1], batch['image'])
        if self.shift or self.rotate or self.zoom or self.brightness:
            batch['image'] = self._moved(keys[2], batch['image'])
        return batch

    def _moved(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Images moved and brightened, uint8 as before."""
        keys = jax.random.split(key, 4)

        def uniform(i: int, most: float) -> jax.Array:
            return jax.random.uniform(keys[i], images.shape[:1], minval=-most, maxval=most)

        seen = images.astype(jnp.float32)
        if self.shift or self.rotate or self.zoom:
            move = jax.random.randint(
                keys[0], (2, len(images)), -self.shift, self.shift + 1).astype(jnp.float32)
            angle, zoom = jnp.deg2rad(uniform(1, self.rotate)), (1 + self.zoom) ** uniform(2, 1)
            seen = jax.vmap(resample)(seen, *move, angle, zoom)
        if self.brightness:
            seen += uniform(3, self.brightness)[:, None, None, None]
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
