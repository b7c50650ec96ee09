"""The vision transformer of DINOv2 (Oquab et al. 2023, arXiv 2304.07193), in linen.

Parameters carry the names of Meta's own code: `cls_token`, `mask_token`, `register_tokens`,
`pos_embed`, `patch_embed`, `blocks/{norm1, attn/{qkv, proj}, ls1, norm2, mlp, ls2}`, `norm`; those
under `blocks` have a leading axis of L blocks.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from repdiff.models import layers
from repdiff.sharding import gathered, split_batch

SIZES = {
    'S': {'width': 384, 'depth': 12, 'heads': 6},
    'B': {'width': 768, 'depth': 12, 'heads': 12},
    'L': {'width': 1024, 'depth': 24, 'heads': 16},
    'g': {'width': 1536, 'depth': 40, 'heads': 24, 'ffn': 'swiglu'},
}

_trunc_normal = nn.initializers.truncated_normal(0.02)
_tiny_normal = nn.initializers.normal(1e-6)


class ViT(nn.Module):
    """DINOv2's encoder: pre-norm blocks, LayerScale, a cls token, registers, SwiGLU.

    `grid` is the (h, w) of patches that `pos_embed (1 + h*w, D)` was trained on; other sizes
    resize it bicubically. Meta's models without registers, and with: `antialias` False, True;
    `offset` 0.1, 0.0; transformers' `Dinov2Model` has offset 0.0 for both. `layer_scale` is
    LayerScale's start, None for none.
    """

    width: int
    depth: int
    heads: int
    patch: int
    grid: tuple[int, int]
    mlp_ratio: float = 4
    registers: int = 0
    ffn: str = 'mlp'
    layer_scale: float | None = 1e-5
    antialias: bool = True
    offset: float = 0.0
    dtype: Any = jnp.float32
    unroll: bool = False
    remat: str = 'none'

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, layers_out: Sequence[int] = ()
    ) -> dict[str, Any]:
        """(B, H, W, C) -> cls (B, D), registers (B, R, D), patches (B, N, D), prenorm (B, 1+R+N, D).

        All but `prenorm` are after the final LayerNorm. Tokens where `mask` (B, N) bool is True
        are replaced by the mask token. `layers_out` asks for the outputs of those blocks,
        unnormalised: `layers`, a list of (B, 1+R+N, D).
        """
        grid = (x.shape[1] // self.patch, x.shape[2] // self.patch)
        tokens = self._embed(x, mask, grid)  # (B, 1+R+N, D)
        blocks = layers.stack(Block, self.depth, self.unroll, self.remat)(
            heads=self.heads,
            hidden=int(self.width * self.mlp_ratio),
            ffn=self.ffn,
            layer_scale=self.layer_scale,
            dtype=self.dtype,
            emit=bool(layers_out),
            name='blocks',
        )
        tokens, outputs = blocks(tokens)
        normed = layers.LayerNorm(self.dtype, name='norm')(tokens)
        cls, registers, patches = jnp.split(normed, (1, 1 + self.registers), axis=1)
        result = {'cls': cls[:, 0], 'registers': registers, 'patches': patches, 'prenorm': tokens}
        if layers_out:
            result['layers'] = [outputs[layer] for layer in layers_out]
        return result

    def _embed(self, x: jax.Array, mask: jax.Array | None, grid: tuple[int, int]) -> jax.Array:
        patches = layers.PatchEmbed(
            self.width, self.patch, self.dtype, nn.initializers.lecun_normal(), name='patch_embed'
        )(x)  # (B, N, D)
        mask_token = self.param('mask_token', nn.initializers.zeros, (self.width,))
        if mask is not None:
            patches = jnp.where(mask[..., None], mask_token.astype(self.dtype), patches)
        cls = self.param('cls_token', _tiny_normal, (self.width,))
        positions = self.param(
            'pos_embed', _trunc_normal, (1 + self.grid[0] * self.grid[1], self.width)
        )
        positions = gathered(positions, ('pos_embed',))
        patches += resize_positions(
            positions[1:], self.grid, grid, self.antialias, self.offset
        ).astype(self.dtype)
        first = (cls + positions[0])[None]  # (1, D)
        if self.registers:
            registers = self.param('register_tokens', _tiny_normal, (self.registers, self.width))
            first = jnp.concatenate([first, registers])  # (1+R, D)
        first = jnp.broadcast_to(first.astype(self.dtype), (x.shape[0], *first.shape))
        return split_batch(jnp.concatenate([first, patches], axis=1))


class Block(nn.Module):
    """`x + ls1(attn(norm1(x)))`, then `x + ls2(mlp(norm2(x)))`; `emit` also returns the result."""

    heads: int
    hidden: int
    ffn: str
    layer_scale: float | None
    dtype: Any
    emit: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        norm = functools.partial(layers.LayerNorm, self.dtype)
        y = layers.Attention(self.heads, self.dtype, _trunc_normal, name='attn')(
            norm(name='norm1')(x)
        )
        x = x + self._scale('ls1', y)
        if self.ffn == 'swiglu':
            mlp = layers.SwiGlu(self.hidden, self.dtype, _trunc_normal, name='mlp')
        else:
            mlp = layers.Mlp(self.hidden, False, self.dtype, _trunc_normal, name='mlp')
        x = x + self._scale('ls2', mlp(norm(name='norm2')(x)))
        return x, x if self.emit else None

    def _scale(self, name: str, y: jax.Array) -> jax.Array:
        if self.layer_scale is None:
            return y
        start = nn.initializers.constant(self.layer_scale)
        return y * self.param(name, start, (y.shape[-1],)).astype(y.dtype)


def resize_positions(
    positions: jax.Array,
    source: tuple[int, int],
    target: tuple[int, int],
    antialias: bool,
    offset: float,
) -> jax.Array:
    """Position embeddings (h*w, D) of grid `source` -> (h'*w', D) of grid `target`, bicubic."""
    if source == target:
        return positions
    rows, columns = (
        jnp.asarray(resize_matrix(s, t, antialias, offset)) for s, t in zip(source, target)
    )
    grid = positions.reshape(*source, -1)
    return jnp.einsum('ih,jw,hwd->ijd', rows, columns, grid).reshape(-1, positions.shape[-1])


def resize_matrix(source: int, target: int, antialias: bool, offset: float) -> np.ndarray:
    """PyTorch's bicubic resize of one axis as a matrix (target, source), float32.

    `align_corners=False`; the step between samples is `source / (target + offset)`. Cubic
    coefficient -0.75 with repeated borders, or, with `antialias`, -0.5 with borders left out and
    the kernel widened when shrinking.
    """
    step = source / (target + offset)
    centres = (np.arange(target) + 0.5) * step
    if antialias:
        width = max(step, 1.0)
        distance = (np.arange(source) + 0.5 - centres[:, None]) / width
        matrix = _cubic(distance, -0.5)
        return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
    left = np.floor(centres - 0.5).astype(int)
    matrix = np.zeros((target, source))
    for tap in range(-1, 3):
        column = np.clip(left + tap, 0, source - 1)
        weight = _cubic(left + tap - (centres - 0.5), -0.75)
        np.add.at(matrix, (np.arange(target), column), weight)
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel with coefficient `a`."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
