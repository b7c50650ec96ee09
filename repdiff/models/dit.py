"""The diffusion transformer DiT (Peebles & Xie 2022, arXiv 2212.09748), in linen.

Meta's DiT exactly when `conditioning` is 'label'; 'representation' adds the paper's two injections
of r (arXiv 2505.06890, figure 3) or one pooled vector. Parameters: `patch_embed`, `t_embed/{fc1,
fc2}`, `blocks/{adaln, attn/{qkv, proj}, mlp/{fc1, fc2}, mix}`, `final/{adaln, linear}`; by
conditioning `label_embed`, `r_embed`, `null`, `decode/{norm, linear}`. Those under `blocks` have a
leading axis of L blocks.
"""

import functools
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
    'XL': {'width': 1152, 'depth': 28, 'heads': 16},
}

MLP_RATIO = 4
TIME_FREQUENCIES = 256  # size of the sinusoidal embedding of t

_normal = nn.initializers.normal(0.02)
_zeros = nn.initializers.zeros


class DiT(nn.Module):
    """A transformer denoiser of latents with adaLN-Zero conditioning.

    `conditioning` is 'none', 'label' (ids below `classes`; `classes` itself is the null class) or
    'representation', r being 'tokens' (B, N, Dr) or 'pooled' (B, Dr), Dr = `representation_width`
    or `width`. `mix` keeps SiLU -> Linear at the start of each block without r, as a network
    pre-trained on token r has it once the null r is folded into its biases. `learn_sigma`
    doubles the output channels. What diffusers computes otherwise than Meta: `frequency_shift` is
    0 in Meta's code, 1 in diffusers'; `mlp_epsilon`, of the norm before each MLP, is 1e-6 and 1e-5;
    positions on another grid than that of training count on as they are (Meta's code has no other
    grid) or span the training's `base_grid` of tokens a side.
    """

    width: int
    depth: int
    heads: int
    patch: int
    channels: int
    conditioning: str = 'none'
    classes: int = 0
    representation: str = 'tokens'
    representation_width: int | None = None
    mix: bool = False
    learn_sigma: bool = False
    frequency_shift: int = 0
    mlp_epsilon: float = layers.NORM_EPS
    base_grid: int | None = None
    dtype: Any = jnp.float32
    unroll: bool = False
    remat: str = 'none'

    @nn.compact
    def __call__(
        self,
        z_t: jax.Array,
        t: jax.Array,
        condition: jax.Array | None = None,
        drop: jax.Array | None = None,
    ) -> jax.Array:
        """z_t (B, H, W, C), t (B,), condition, drop (B,) bool -> (B, H, W, C or 2C) float32.

        Where `drop` is True the condition is replaced by the learned null (the null class for
        labels); no `condition` means all dropped.
        """
        grid = (z_t.shape[1] // self.patch, z_t.shape[2] // self.patch)
        r = self._token_r(condition, drop, z_t.shape[0], grid)
        shown = z_t if r is None else jnp.concatenate([z_t, self._decode(r, grid)], -1)
        x = layers.PatchEmbed(self.width, self.patch, self.dtype, name='patch_embed')(shown)
        x += jnp.asarray(position_table(self.width, grid, self.base_grid), self.dtype)  # (B, N, D)

        c = TimeEmbed(self.width, self.frequency_shift, self.dtype, name='t_embed')(t)
        c = nn.silu(self._condition(c, condition, drop))  # (B, D)
        blocks = layers.stack(Block, self.depth, self.unroll, self.remat)(
            heads=self.heads, mix=self.mix or r is not None, epsilon=self.mlp_epsilon,
            dtype=self.dtype, name='blocks',
        )
        x, _ = blocks(x, c, None if r is None else nn.silu(r))
        channels = self.channels * (2 if self.learn_sigma else 1)
        x = Final(self.patch**2 * channels, self.dtype, name='final')(x, c)
        return layers.unpatchify(x, self.patch, grid).astype(jnp.float32)

    def _condition(
        self, c: jax.Array, condition: jax.Array | None, drop: jax.Array | None
    ) -> jax.Array:
        """Adds the label's or the pooled representation's embedding to c (B, D)."""
        if self.conditioning == 'label':
            table = nn.Embed(
                self.classes + 1, self.width, embedding_init=_normal, name='label_embed'
            )
            if condition is None:
                condition = jnp.full(c.shape[0], self.classes)
            elif drop is not None:
                condition = jnp.where(drop, self.classes, condition)
            whole = jnp.asarray(gathered(table.embedding, ('label_embed', 'embedding')))
            embedded = whole[condition]
            return c + split_batch(embedded.astype(self.dtype))
        if self.conditioning == 'representation' and self.representation == 'pooled':
            null = self.param('null', _zeros, (self.width,)).astype(self.dtype)
            given = condition
            if given is None:
                given = jnp.zeros((c.shape[0], self.representation_width or self.width))
            embedded = layers.Dense(self.width, self.dtype, name='r_embed')(given)
            return c + _replace(embedded, null, condition, drop)
        return c

    def _token_r(
        self,
        condition: jax.Array | None,
        drop: jax.Array | None,
        batch: int,
        grid: tuple[int, int],
    ) -> jax.Array | None:
        """Token r (B, N, Dr) with the null in the dropped rows; None where there is none."""
        if self.conditioning != 'representation' or self.representation != 'tokens':
            return None
        width = self.representation_width or self.width
        # r leaves its encoder through a LayerNorm: the null starts at the same scale.
        null = self.param('null', nn.initializers.normal(1.0), (width,)).astype(self.dtype)
        shape = (batch, grid[0] * grid[1], width)
        given = jnp.zeros(shape) if condition is None else condition
        return _replace(given.astype(self.dtype), null, condition, drop)

    def _decode(self, r: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """Injection 1: r (B, N, Dr) -> a map of z0's shape by Norm, Linear, Unpatchify."""
        return layers.unpatchify(
            Decode(self.patch**2 * self.channels, self.dtype, name='decode')(r), self.patch, grid
        )


def _replace(
    value: jax.Array, null: jax.Array, condition: jax.Array | None, drop: jax.Array | None
) -> jax.Array:
    """`value` (B, ..., D) with `null` (D,) in the dropped rows, in all of them without condition."""
    if condition is None:
        return jnp.broadcast_to(null, value.shape)
    if drop is None:
        return value
    return jnp.where(drop.reshape(-1, *[1] * (value.ndim - 1)), null, value)


class TimeEmbed(nn.Module):
    """t (B,) -> (B, D): cosines and sines of 256/2 frequencies, then `fc1`, SiLU, `fc2`."""

    width: int
    frequency_shift: int
    dtype: Any

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        half = TIME_FREQUENCIES // 2
        exponent = np.arange(half) / (half - self.frequency_shift)
        angles = t[:, None].astype(jnp.float32) * jnp.asarray(10000.0**-exponent, jnp.float32)
        waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)  # (B, 256)
        layer = functools.partial(layers.Dense, self.width, self.dtype, _normal)
        return layer(name='fc2')(nn.silu(layer(name='fc1')(waves)))


class Decode(nn.Module):
    """The paper's "decode" before Unpatchify: `norm`, then `linear`."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, r: jax.Array) -> jax.Array:
        r = layers.LayerNorm(self.dtype, name='norm')(r)
        return layers.Dense(self.features, self.dtype, name='linear')(r)


class Block(nn.Module):
    """A DiT block with adaLN-Zero; with `mix`, SiLU -> Linear of [x, r] (or x) comes first.

    `c` (B, D) and `r` (B, N, Dr) arrive after their SiLU, which all blocks share.
    """

    heads: int
    mix: bool
    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, c: jax.Array, r: jax.Array | None) -> tuple[jax.Array, None]:
        width = x.shape[-1]
        if self.mix:
            x = nn.silu(x)
            x = layers.Dense(width, self.dtype, name='mix')(
                x if r is None else jnp.concatenate([x, r], -1)
            )
        modulation = layers.Dense(6 * width, self.dtype, _zeros, name='adaln')(c)  # (B, 6D)
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, axis=-1)
        attention = layers.Attention(self.heads, self.dtype, name='attn')
        x = x + gate1[:, None] * attention(layers.modulate(x, shift1, scale1))
        mlp = layers.Mlp(MLP_RATIO * width, True, self.dtype, name='mlp')
        return x + gate2[:, None] * mlp(layers.modulate(x, shift2, scale2, self.epsilon)), None


class Final(nn.Module):
    """adaLN, then a zero-initialised linear layer to the patches of the output."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, c: jax.Array) -> jax.Array:
        modulation = layers.Dense(2 * x.shape[-1], self.dtype, _zeros, name='adaln')(c)
        shift, scale = jnp.split(modulation, 2, axis=-1)
        linear = layers.Dense(self.features, self.dtype, _zeros, name='linear')
        return linear(layers.modulate(x, shift, scale))


@functools.cache
def position_table(width: int, grid: tuple[int, int], base: int | None = None) -> np.ndarray:
    """DiT's fixed 2-D sine-cosine table (N, D), float32: half the width for x, half for y.

    Positions count from 0; with `base`, those of each axis are scaled to span `base` tokens.
    """
    axes = (np.arange(size) * (1 if base is None else base / size) for size in grid)
    rows, columns = (axis.reshape(-1) for axis in np.meshgrid(*axes, indexing='ij'))
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    parts = [
        wave(position[:, None] * frequencies)
        for position in (columns, rows)
        for wave in (np.sin, np.cos)
    ]
    return np.concatenate(parts, -1).astype(np.float32)
