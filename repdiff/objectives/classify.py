"""Supervised classification of images: what the baselines and a tuned DINOv2 minimise."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from repdiff.models.heads import LinearHead
from repdiff.objectives.backbone import Backbone


@dataclass(frozen=True)
class Classify:
    """Cross-entropy of a backbone with a linear head; images without a label (−1) do not count."""

    backbone: Backbone
    head: LinearHead
    label_smoothing: float

    def init(self, key: jax.Array, image: jax.Array) -> dict:
        """Random parameters {'backbone', 'head'}; `image` (1, H, W, C) gives the shapes."""
        keys = jax.random.split(key)
        backbone = self.backbone.init(keys[0], image)
        features = self.backbone.features(backbone, image)
        return {'backbone': backbone, 'head': self.head.init(keys[1], features)['params']}

    def logits(self, params: dict, images: jax.Array) -> jax.Array:
        """(B, K) of uint8 images."""
        features = self.backbone.features(params['backbone'], images)
        return self.head.apply({'params': params['head']}, features)

    def __call__(self, params, frozen, batch, key) -> tuple[jax.Array, dict]:
        """The training loss."""
        logits, label = self.logits(params, batch['image']), batch['label']
        targets = optax.smooth_labels(
            jax.nn.one_hot(label, self.head.classes), self.label_smoothing)
        labelled = (label >= 0).astype(jnp.float32)
        errors = optax.softmax_cross_entropy(logits, targets)
        loss = (errors * labelled).sum() / jnp.maximum(labelled.sum(), 1)
        right = ((logits.argmax(-1) == label) * labelled).sum() / jnp.maximum(labelled.sum(), 1)
        return loss, {'loss': loss, 'train_accuracy': right}
