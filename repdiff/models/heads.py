"""Heads on a backbone's features: prototypes of self-distillation, logits of classes."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repdiff.models import layers


class PrototypeHead(nn.Module):
    """DINO's head (arXiv 2104.14294): three layers, a unit vector, its cosines with K prototypes.

    `last` is the weight-normed layer of unit norm: only the directions of its columns count. Their
    length at the start, 0.58 at any width as the original's, says how fast they turn. The layers
    start at a scale that keeps the size of what passes at any width; the original's 0.02 does so at
    its 2,048 and in narrow layers lets next to nothing through.
    """

    hidden: int
    bottleneck: int
    prototypes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, D) -> (B, K) float32, in [−1, 1]."""
        layer = functools.partial(
            layers.Dense, dtype=self.dtype, kernel_init=nn.initializers.lecun_normal())
        x = layers.exact_gelu(layer(self.hidden, name='fc1')(x))
        x = layers.exact_gelu(layer(self.hidden, name='fc2')(x))
        x = unit(layer(self.bottleneck, name='fc3')(x).astype(jnp.float32))
        uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
        kernel = self.param('last', uniform, (self.bottleneck, self.prototypes))
        return x @ unit(kernel, axis=0)


class LinearHead(nn.Module):
    """Logits (B, K) float32 of features; all start at 0."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return layers.Dense(
            self.classes, jnp.float32, nn.initializers.zeros, name='linear')(x)


def unit(x: jax.Array, axis: int = -1) -> jax.Array:
    """x over its norm along an axis."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(axis, keepdims=True) + 1e-12)
