"""Weight-free front ends between images and z0: a linear basis on each patch.

Two bases, both fitted on the pre-training set alone: `pca` (the leading principal components of
patches) and `haar` (an orthonormal Haar wavelet on each patch, invertible, scaled by channel).
"""

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from repdiff.errors import UserError


@flax.struct.dataclass
class PatchBasis:
    """z0 = (patch − mean) basis · scale, patch by patch.

    mean (P·P·Cx,), basis (P·P·Cx, C) with orthonormal columns, scale (C,); P is the patch size in
    pixels and Cx the image's channels. Images uint8 (B, Hx, Wx, Cx) become z0 (B, Hx/P, Wx/P, C)
    float32 with a mean square of about 1 over the pre-training set.
    """

    mean: jax.Array
    basis: jax.Array
    scale: jax.Array
    patch: int = flax.struct.field(pytree_node=False)

    def encode(self, images: jax.Array) -> jax.Array:
        """z0 of uint8 images."""
        batch, height, width, _ = images.shape
        patches = (_patches(to_unit(images), self.patch) - self.mean) @ self.basis * self.scale
        grid = height // self.patch, width // self.patch
        return patches.reshape(batch, *grid, -1)  # (B, H, W, C)

    def decode(self, z0: jax.Array) -> jax.Array:
        """Images in [−1, 1] float32 of latents; exact for `haar`, a projection for `pca`."""
        return self._pixels((z0 / self.scale) @ self.basis.T + self.mean)

    def pixel_energy(self, z: jax.Array) -> jax.Array:
        """Squares of latents or of their errors (B, H, W, C), by pixel (B, Hx, Wx).

        The basis is orthonormal, so the sum over pixels is the sum of squares of `z`.
        """
        return jnp.square(self._pixels(z @ self.basis.T)).sum(-1)

    def _pixels(self, patches: jax.Array) -> jax.Array:
        return rearrange(
            patches, 'b h w (p q c) -> b (h p) (w q) c', p=self.patch, q=self.patch
        )


def to_unit(images: jax.Array) -> jax.Array:
    """uint8 [0, 255] to float32 [−1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def to_uint8(images: jax.Array) -> jax.Array:
    """Float [−1, 1] to uint8 [0, 255], clipped."""
    return jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8)


def _patches(images, patch: int):
    return rearrange(images, 'b (h p) (w q) c -> (b h w) (p q c)', p=patch, q=patch)


def fit_pca(images: np.ndarray, patch: int, channels: int, whiten: float) -> PatchBasis:
    """The `channels` leading principal components of the patches of uint8 images (B, Hx, Wx, Cx).

    `whiten` in [0, 1] divides component i by its standard deviation to that power, so 0 keeps the
    natural spectrum and 1 gives every component unit variance. Raises UserError on sizes that do
    not fit.
    """
    patches = _check(images, patch)
    size = patches.shape[1]
    if not 0 < channels <= size:
        raise UserError(
            f'latents.channels is {channels}, but a patch has {size} numbers; choose 1 to {size}.'
        )
    mean = patches.mean(0)
    covariance = np.cov(patches - mean, rowvar=False, bias=True).reshape(size, size)
    variance, vectors = np.linalg.eigh(covariance)
    order = np.argsort(variance)[::-1][:channels]
    variance, basis = np.maximum(variance[order], 1e-12), vectors[:, order]
    # A sign convention, so that the basis does not depend on the linear-algebra library.
    basis = basis * np.where(basis[np.abs(basis).argmax(0), range(channels)] < 0, -1, 1)
    return _normalised(mean, basis, variance, whiten, patch)


def fit_haar(images: np.ndarray, patch: int, whiten: float) -> PatchBasis:
    """An orthonormal Haar wavelet on each P × P patch (P a power of two): all P·P·Cx numbers kept."""
    patches = _check(images, patch)
    if patch & (patch - 1):
        raise UserError(f'latents.patch is {patch}, but the Haar front end needs a power of two.')
    one = _haar_matrix(patch)
    basis = np.kron(np.kron(one, one), np.eye(images.shape[-1])).T
    mean = patches.mean(0)
    variance = np.maximum(((patches - mean) @ basis).var(0), 1e-12)
    return _normalised(mean, basis, variance, whiten, patch)


def _check(images: np.ndarray, patch: int) -> np.ndarray:
    if images.shape[1] % patch or images.shape[2] % patch:
        raise UserError(
            f'latents.patch is {patch}, which does not divide the image size '
            f'{images.shape[1]}×{images.shape[2]}; choose a divisor.'
        )
    return _patches(images.astype(np.float64) / 127.5 - 1, patch)


def _haar_matrix(size: int) -> np.ndarray:
    """The orthonormal Haar matrix (size, size), coarse rows first."""
    if size == 1:
        return np.ones((1, 1))
    coarse = np.kron(_haar_matrix(size // 2), [1, 1])
    fine = np.kron(np.eye(size // 2), [1, -1])
    return np.concatenate([coarse, fine]) / math.sqrt(2)


def _normalised(mean, basis, variance, whiten: float, patch: int) -> PatchBasis:
    scale = variance ** (-whiten / 2)
    scale = scale / np.sqrt(np.mean(variance * scale**2))  # mean square of z0 is 1
    arrays = (jnp.asarray(part, jnp.float32) for part in (mean, basis, scale))
    return PatchBasis(*arrays, patch=patch)
