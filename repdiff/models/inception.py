"""Inception v3 as the Fréchet inception distance uses it, in linen (arXiv 1512.00567, 1706.08500).

The network of TensorFlow's 2015-12-05 release, which differs from torchvision's: average pools do
not count their padding, the last block pools by maximum, and there are 1008 classes. Parameters
carry the names of the usual PyTorch file: `Conv2d_1a_3x3`, `Mixed_5b/branch1x1`, each with
`{kernel, scale, bias, mean, var}`, and `fc/kernel`.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

SIZE = 299  # pixels of a side that the network sees
SPATIAL_BLOCK, SPATIAL_CHANNELS = 'Mixed_6d', 7  # 17·17·7 numbers: ADM's `mixed_6/conv`, for sFID
NORM_EPS = 1e-3


@dataclass(frozen=True)
class Conv:
    """Convolution, batch norm, ReLU. Stride 1 keeps the size, unless `valid`; 2 never pads."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    strides: int = 1
    valid: bool = False


@dataclass(frozen=True)
class Pool:
    """3×3 `max` or `average`. Stride 1 keeps the size without counting its padding."""

    kind: str
    strides: int = 1


ROW, COLUMN = (1, 7), (7, 1)
STEM = (
    Conv('Conv2d_1a_3x3', 32, (3, 3), 2),
    Conv('Conv2d_2a_3x3', 32, (3, 3), valid=True),
    Conv('Conv2d_2b_3x3', 64, (3, 3)),
    Pool('max', 2),
    Conv('Conv2d_3b_1x1', 80),
    Conv('Conv2d_4a_3x3', 192, (3, 3), valid=True),
    Pool('max', 2),
)


def _block_35(pool: int) -> tuple:
    return (
        (Conv('branch1x1', 64),),
        (Conv('branch5x5_1', 48), Conv('branch5x5_2', 64, (5, 5))),
        (Conv('branch3x3dbl_1', 64), Conv('branch3x3dbl_2', 96, (3, 3)),
         Conv('branch3x3dbl_3', 96, (3, 3))),
        (Pool('average'), Conv('branch_pool', pool)),
    )


def _block_17(width: int) -> tuple:
    return (
        (Conv('branch1x1', 192),),
        (Conv('branch7x7_1', width), Conv('branch7x7_2', width, ROW),
         Conv('branch7x7_3', 192, COLUMN)),
        (Conv('branch7x7dbl_1', width), Conv('branch7x7dbl_2', width, COLUMN),
         Conv('branch7x7dbl_3', width, ROW), Conv('branch7x7dbl_4', width, COLUMN),
         Conv('branch7x7dbl_5', 192, ROW)),
        (Pool('average'), Conv('branch_pool', 192)),
    )


def _block_8(pool: str) -> tuple:
    """A tuple in a branch is convolutions side by side, joined."""
    return (
        (Conv('branch1x1', 320),),
        (Conv('branch3x3_1', 384),
         (Conv('branch3x3_2a', 384, (1, 3)), Conv('branch3x3_2b', 384, (3, 1)))),
        (Conv('branch3x3dbl_1', 448), Conv('branch3x3dbl_2', 384, (3, 3)),
         (Conv('branch3x3dbl_3a', 384, (1, 3)), Conv('branch3x3dbl_3b', 384, (3, 1)))),
        (Pool(pool), Conv('branch_pool', 192)),
    )


BLOCKS = {
    'Mixed_5b': _block_35(32),
    'Mixed_5c': _block_35(64),
    'Mixed_5d': _block_35(64),
    'Mixed_6a': (
        (Conv('branch3x3', 384, (3, 3), 2),),
        (Conv('branch3x3dbl_1', 64), Conv('branch3x3dbl_2', 96, (3, 3)),
         Conv('branch3x3dbl_3', 96, (3, 3), 2)),
        (Pool('max', 2),),
    ),
    'Mixed_6b': _block_17(128),
    'Mixed_6c': _block_17(160),
    'Mixed_6d': _block_17(160),
    'Mixed_6e': _block_17(192),
    'Mixed_7a': (
        (Conv('branch3x3_1', 192), Conv('branch3x3_2', 320, (3, 3), 2)),
        (Conv('branch7x7x3_1', 192), Conv('branch7x7x3_2', 192, ROW),
         Conv('branch7x7x3_3', 192, COLUMN), Conv('branch7x7x3_4', 192, (3, 3), 2)),
        (Pool('max', 2),),
    ),
    'Mixed_7b': _block_8('average'),
    'Mixed_7c': _block_8('max'),
}


class Inception(nn.Module):
    """uint8 images (B, H, W, 1 or 3) -> pool (B, 2048), spatial (B, 2023), logits (B, `classes`).

    Grey is shown as three equal channels. As in pytorch-fid the image in [0, 1] is resized to 299
    pixels, bilinearly without antialiasing and with half-pixel centres, then scaled to [-1, 1];
    TensorFlow's own resize, which ADM's evaluator has, aligns corners' origins instead. The logits
    lack the classifier's bias, as ADM's inception score does.
    """

    classes: int = 1008

    @nn.compact
    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        x = images.astype(jnp.float32) / 255
        x = jnp.broadcast_to(x, (*x.shape[:3], 3))
        x = jax.image.resize(x, (x.shape[0], SIZE, SIZE, 3), 'linear', antialias=False)
        x = _chain(STEM, 2 * x - 1)
        for name, branches in BLOCKS.items():
            x = Mixed(branches, name=name)(x)
            if name == SPATIAL_BLOCK:
                # The block's first channels are those of its 1×1 branch.
                spatial = x[..., :SPATIAL_CHANNELS].reshape(x.shape[0], -1)
        pool = x.mean((1, 2))
        logits = nn.Dense(self.classes, use_bias=False, name='fc')(pool)
        return {'pool': pool, 'spatial': spatial, 'logits': logits}


class Mixed(nn.Module):
    """Branches from the same input, joined along the channels."""

    branches: tuple

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([_chain(branch, x) for branch in self.branches], -1)


class ConvNorm(nn.Module):
    """A `Conv` with the stored mean and variance of its batch norm."""

    layer: Conv

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = self.layer.features
        kernel = self.param('kernel', nn.initializers.he_normal(),
                            (*self.layer.kernel, x.shape[-1], width))
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        mean, bias = (self.param(name, zeros, (width,)) for name in ('mean', 'bias'))
        var, scale = (self.param(name, ones, (width,)) for name in ('var', 'scale'))
        x = jax.lax.conv_general_dilated(
            x, kernel, (self.layer.strides,) * 2,
            'VALID' if self.layer.valid or self.layer.strides > 1 else 'SAME',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return nn.relu((x - mean) * (scale * jax.lax.rsqrt(var + NORM_EPS)) + bias)


def _chain(layers: tuple, x: jax.Array) -> jax.Array:
    """x through the layers in order; called within a module, whose parameters they become."""
    for layer in layers:
        if isinstance(layer, Conv):
            x = ConvNorm(layer, name=layer.name)(x)
        elif isinstance(layer, Pool):
            strides, padding = (layer.strides,) * 2, 'VALID' if layer.strides > 1 else 'SAME'
            if layer.kind == 'max':
                x = nn.max_pool(x, (3, 3), strides, padding)
            else:
                x = nn.avg_pool(x, (3, 3), strides, padding, count_include_pad=False)
        else:
            x = jnp.concatenate([_chain((side,), x) for side in layer], -1)
    return x
