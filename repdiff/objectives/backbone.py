"""The network on pixels that classifiers and self-distillation share."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from repdiff.latents.frontend import to_unit
from repdiff.models.resnet import ResNet
from repdiff.models.vit import ViT


@dataclass(frozen=True)
class Backbone:
    """A ViT or a ResNet on images uint8 (B, H, W, C)."""

    network: ViT | ResNet

    def init(self, key: jax.Array, image: jax.Array) -> dict:
        """Random parameters; `image` (1, H, W, C) gives the shapes."""
        return self.network.init(key, image)['params']

    def features(self, params: dict, images: jax.Array) -> jax.Array:
        """(B, F): a ViT's cls token beside the mean of its patch tokens; a ResNet's mean."""
        out = self.network.apply({'params': params}, to_unit(images))
        if isinstance(self.network, ResNet):
            return out
        return jnp.concatenate([out['cls'], out['patches'].mean(1)], -1)
