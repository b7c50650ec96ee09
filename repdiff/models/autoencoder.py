"""The Stable Diffusion image autoencoder, AutoencoderKL (arXiv 2112.10752, sec. 3.1).

Same arithmetic as `diffusers.AutoencoderKL` with Stable Diffusion 1.x and 2.x settings, whose
weights `repdiff.convert` brings over.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-6  # of every group norm


def _conv(width: int, name: str, dtype, size: int = 3, **options) -> nn.Conv:
    return nn.Conv(width, (size, size), dtype=dtype, name=name, **options)


class Norm(nn.Module):
    """Group norm with two-pass variance: VAE activations are large, E[x²] - E[x]² cancels."""
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.GroupNorm(self.groups, epsilon=EPSILON, dtype=self.dtype,
                            use_fast_variance=False, name='norm')(x)


class ResidualBlock(nn.Module):
    """(norm, SiLU, 3x3 conv) twice, plus the input, 1x1-projected where the width changes."""
    width: int
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = nn.silu(Norm(self.groups, self.dtype, name='norm1')(x))
        h = _conv(self.width, 'conv1', self.dtype)(h)
        h = nn.silu(Norm(self.groups, self.dtype, name='norm2')(h))
        h = _conv(self.width, 'conv2', self.dtype)(h)
        if x.shape[-1] != self.width:
            x = _conv(self.width, 'shortcut', self.dtype, size=1)(x)
        return x + h


class Attention(nn.Module):
    """One head over all positions, plus the input."""
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        tokens = Norm(self.groups, self.dtype, name='norm')(x).reshape(b, h * w, 1, c)  # B N 1 C
        q, k, v = (nn.Dense(c, dtype=self.dtype, name=name)(tokens) for name in 'qkv')
        y = jax.nn.dot_product_attention(q, k, v).reshape(b, h, w, c)
        return x + nn.Dense(c, dtype=self.dtype, name='out')(y)


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest level."""
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ResidualBlock(x.shape[-1], self.groups, self.dtype, name='block0')(x)
        x = Attention(self.groups, self.dtype, name='attention')(x)
        return ResidualBlock(x.shape[-1], self.groups, self.dtype, name='block1')(x)


class Encoder(nn.Module):
    """Image (B, H, W, C) to moments (B, H/f, W/f, `channels`), f = 2 ** (levels - 1)."""
    widths: tuple[int, ...]
    layers: int
    channels: int
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _conv(self.widths[0], 'conv_in', self.dtype)(x)
        for level, width in enumerate(self.widths):
            for i in range(self.layers):
                x = ResidualBlock(width, self.groups, self.dtype, name=f'level{level}_block{i}')(x)
            if level < len(self.widths) - 1:
                # The original pads one row and column at the far side only.
                x = _conv(width, f'level{level}_down', self.dtype, strides=2,
                          padding=((0, 1), (0, 1)))(x)  # B H/2 W/2 width
        x = Middle(self.groups, self.dtype, name='middle')(x)
        x = nn.silu(Norm(self.groups, self.dtype, name='norm_out')(x))
        return _conv(self.channels, 'conv_out', self.dtype)(x)


class Decoder(nn.Module):
    """Latent (B, h, w, c) to image (B, f h, f w, `channels`); level 0 is the coarsest."""
    widths: tuple[int, ...]
    layers: int
    channels: int
    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        x = _conv(self.widths[-1], 'conv_in', self.dtype)(z)
        x = Middle(self.groups, self.dtype, name='middle')(x)
        for level, width in enumerate(reversed(self.widths)):
            for i in range(self.layers + 1):
                x = ResidualBlock(width, self.groups, self.dtype, name=f'level{level}_block{i}')(x)
            if level < len(self.widths) - 1:
                x = x.repeat(2, axis=1).repeat(2, axis=2)  # B 2h 2w width
                x = _conv(width, f'level{level}_up', self.dtype)(x)
        x = nn.silu(Norm(self.groups, self.dtype, name='norm_out')(x))
        return _conv(self.channels, 'conv_out', self.dtype)(x)


class AutoencoderKL(nn.Module):
    """Images in [-1, 1] <-> latents z0 scaled to about unit variance.

    The defaults are Stable Diffusion 1.x and 2.x: 8x smaller, 4 channels. `scale` is the one place
    of their scaling factor: `encode` has multiplied by it and `decode` divides by it.
    """
    widths: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    image_channels: int = 3
    latent_channels: int = 4
    groups: int = 32
    scale: float = 0.18215
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        sizes = dict(widths=self.widths, layers=self.layers, groups=self.groups, dtype=self.dtype)
        self.encoder = Encoder(channels=2 * self.latent_channels, **sizes)
        self.decoder = Decoder(channels=self.image_channels, **sizes)
        self.quant = nn.Conv(2 * self.latent_channels, (1, 1), dtype=self.dtype)
        self.post_quant = nn.Conv(self.latent_channels, (1, 1), dtype=self.dtype)

    @property
    def factor(self) -> int:
        """How many image pixels one latent position spans along each axis."""
        return 2 ** (len(self.widths) - 1)

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Image (B, H, W, C) to mean and standard deviation of z0, each (B, H/f, W/f, c), f32."""
        moments = self.quant(self.encoder(x)).astype(jnp.float32)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        # The original's clip: exp of an untrained log-variance must not overflow.
        std = jnp.exp(0.5 * jnp.clip(log_variance, -30.0, 20.0))
        return self.scale * mean, self.scale * std

    def decode(self, z0: jax.Array) -> jax.Array:
        """z0 (B, h, w, c) to the image (B, f h, f w, C), float32, about [-1, 1]."""
        return self.decoder(self.post_quant(z0 / self.scale)).astype(jnp.float32)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Image to its reconstruction from the latent's mean."""
        return self.decode(self.encode(x)[0])
