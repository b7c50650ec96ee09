"""ResNet (He et al. 2015, arXiv 1512.03385) with group norm and standardised weights.

Batch norm would tie an image's features to its batch and need running statistics beside the
parameters, which then differ between devices, accumulated parts, the EMA and scoring. Group norm
(arXiv 1803.08494) with weight standardisation (arXiv 1903.10520) trains as well, in small batches
better, and transfers better (BiT, arXiv 1912.11370); every image is computed alone.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repdiff.sharding import split_batch

SIZES = {
    'resnet18': {'stages': (2, 2, 2, 2), 'bottleneck': False},
    'resnet50': {'stages': (3, 4, 6, 3), 'bottleneck': True},
}
GROUP = 16  # channels normalised together


class ResNet(nn.Module):
    """`stages`: blocks of each; `width`: channels of the first, 64 in the paper; each doubles."""

    stages: tuple[int, ...]
    bottleneck: bool
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, C) -> (B, F) float32, the mean over positions; F is width · 8, · 32 with bottlenecks."""
        x = Conv(self.width, 7, 2, self.dtype, name='stem')(x)
        x = nn.relu(GroupNorm(self.dtype, name='norm')(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                x = Block(
                    self.width * 2**stage, 2 if stage and not block else 1, self.bottleneck,
                    self.dtype, name=f'stage{stage}_block{block}',
                )(x)
        return x.astype(jnp.float32).mean((1, 2))


class Block(nn.Module):
    """Two 3×3 convolutions, or 1×1, 3×3, 1×1 to four times `width`; the stride is in the 3×3."""

    width: int
    stride: int
    bottleneck: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(Conv, dtype=self.dtype)
        norm = functools.partial(GroupNorm, self.dtype)
        if self.bottleneck:
            kernels, widths = (1, 3, 1), (self.width, self.width, 4 * self.width)
            strides = (1, self.stride, 1)
        else:
            kernels, widths, strides = (3, 3), (self.width,) * 2, (self.stride, 1)
        y, last = x, len(kernels)
        for i, (kernel, width, stride) in enumerate(zip(kernels, widths, strides), 1):
            y = conv(width, kernel, stride, name=f'conv{i}')(y)
            # A block starts as its shortcut.
            scale = nn.initializers.zeros if i == last else nn.initializers.ones
            y = norm(scale, name=f'norm{i}')(y)
            if i < last:
                y = nn.relu(y)
        if x.shape != y.shape:
            x = norm(name='norm_shortcut')(
                conv(widths[-1], 1, self.stride, name='conv_shortcut')(x))
        return nn.relu(x + y)


class Conv(nn.Module):
    """A convolution without bias, padded by half its kernel, each filter standardised."""

    features: int
    size: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param(
            'kernel', nn.initializers.he_normal(), (self.size, self.size, x.shape[-1], self.features)
        )
        fan_in = self.size**2 * x.shape[-1]
        centred = kernel - kernel.mean((0, 1, 2))
        kernel = centred * jax.lax.rsqrt(jnp.square(centred).sum((0, 1, 2)) + 1e-8 * fan_in)
        return split_batch(jax.lax.conv_general_dilated(
            x.astype(self.dtype), kernel.astype(self.dtype), (self.stride, self.stride),
            [(self.size // 2, self.size // 2)] * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        ))


class GroupNorm(nn.Module):
    """Normalises GROUP channels of an image together, in float32, or all where that divides them not."""

    dtype: Any
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param('scale', self.scale_init, (channels,))
        bias = self.param('bias', nn.initializers.zeros, (channels,))
        groups = channels // GROUP if channels % GROUP == 0 else 1
        parts = x.astype(jnp.float32).reshape(*x.shape[:3], groups, -1)
        centred = parts - parts.mean((1, 2, 4), keepdims=True)
        variance = jnp.square(centred).mean((1, 2, 4), keepdims=True)
        normed = (centred * jax.lax.rsqrt(variance + 1e-5)).reshape(x.shape)
        return (normed * scale + bias).astype(self.dtype)
