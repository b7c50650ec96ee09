"""The Stable Diffusion VAE as front end: the paper's z0 = E(x) (arXiv 2505.06890, sec. 3)."""

import hashlib

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from repdiff.errors import UserError
from repdiff.latents.frontend import to_unit
from repdiff.models.autoencoder import AutoencoderKL


@flax.struct.dataclass
class Vae:
    """uint8 images (B, H, W, `channels`) <-> z0 (B, H/f, W/f, c) float32, f = 8 and c = 4.

    A pytree of the VAE's parameters, so it travels through jit as an argument, not a constant.
    Grey images are shown to the VAE as three equal channels, and its answer is averaged.

    Raises (from `moments` and `encode`): UserError where the image does not fit the VAE.
    """

    params: dict
    module: AutoencoderKL = flax.struct.field(pytree_node=False)
    channels: int = flax.struct.field(pytree_node=False)

    def moments(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of z0."""
        self._check(images.shape)
        x = to_unit(images)
        x = jnp.broadcast_to(x, (*x.shape[:3], self.module.image_channels))  # (B, H, W, 3)
        return self.module.apply({'params': self.params}, x, method='encode')

    def encode(self, images: jax.Array) -> jax.Array:
        """The mean of z0: the same latent at every visit."""
        return self.moments(images)[0]

    def decode(self, z0: jax.Array) -> jax.Array:
        """Images (B, f h, f w, `channels`) of latents, about [-1, 1], float32."""
        x = self.module.apply({'params': self.params}, z0, method='decode')
        return x.mean(-1, keepdims=True) if self.channels == 1 else x

    def pixel_energy(self, z: jax.Array) -> jax.Array:
        """Squares of latents or of their errors (B, h, w, c), by pixel (B, f h, f w).

        A position's sum of squares is shared evenly by its f × f pixels.
        """
        factor = self.module.factor
        shared = jnp.square(z).sum(-1) / factor**2
        return jnp.repeat(jnp.repeat(shared, factor, 1), factor, 2)

    def fingerprint(self) -> str:
        """sha256 of the parameters and of every field that changes z0, hexadecimal."""
        digest = hashlib.sha256(repr(self.module).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(f'{jax.tree_util.keystr(path)}{leaf.shape}'.encode())
            digest.update(np.ascontiguousarray(leaf, np.float32))
        return digest.hexdigest()

    def _check(self, shape: tuple[int, ...]):
        factor = self.module.factor
        if shape[1] % factor or shape[2] % factor:
            raise UserError(f'the VAE makes one latent position of {factor}×{factor} pixels, '
                            f'which do not divide images of {shape[1]}×{shape[2]}; choose an '
                            f'image_size that is a multiple of {factor}.')
        if shape[3] != self.channels or self.channels not in (1, self.module.image_channels):
            raise UserError(f'the VAE sees 1 or {self.module.image_channels} channels, but the '
                            f'images have {shape[3]}; prepare them with one of these.')
