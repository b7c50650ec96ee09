"""Denoising, pre-training and tuning: arXiv 2505.06890, eq. 2, under the conditions of its figure 5."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from repdiff.diffusion.loss import denoising_loss
from repdiff.diffusion.schedule import Schedule
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT


def represent(encoder: ViT, params, z0: jax.Array, kind: str) -> jax.Array:
    """r = f_φ(z0) (eq. 1): `tokens` (B, N, D), or their mean, `pooled` (B, D)."""
    patches = encoder.apply({'params': params}, z0)['patches']
    return {'tokens': lambda: patches, 'pooled': lambda: patches.mean(1)}[kind]()


@dataclass(frozen=True)
class Pretrain:
    """Eq. 2 on unlabelled images, over denoiser and encoder together.

    Without an encoder the denoiser is unconditional. `drop_rate` is the probability that the whole
    r of an image is replaced by a learned null; 0 is the paper.
    """

    schedule: Schedule
    denoiser: DiT
    encoder: ViT | None
    drop_rate: float

    def init(self, key: jax.Array, z0: jax.Array) -> dict:
        """Random parameters {'denoiser', 'encoder'}; `z0` (1, H, W, C) gives the shapes."""
        t, keys = jnp.zeros((1,), jnp.int32), jax.random.split(key)
        if self.encoder is None:
            return {'denoiser': self.denoiser.init(keys[0], z0, t)['params']}
        encoder = self.encoder.init(keys[1], z0)['params']
        r = represent(self.encoder, encoder, z0, self.denoiser.representation)
        denoiser = self.denoiser.init(keys[0], z0, t, r, jnp.zeros((1,), bool))['params']
        return {'denoiser': denoiser, 'encoder': encoder}

    def losses(self, params, z0, t, eps, drop) -> jax.Array:
        """Per-example losses (B,) with r dropped where `drop` (B,)."""
        r = None
        if self.encoder is not None:
            r = represent(self.encoder, params['encoder'], z0, self.denoiser.representation)

        def denoise_fn(z_t, t):
            return self.denoiser.apply({'params': params['denoiser']}, z_t, t, r, drop)

        return denoising_loss(denoise_fn, self.schedule, z0, t, eps)

    def __call__(self, params, frozen, batch, key) -> tuple[jax.Array, dict]:
        """The training loss; t uniform in [0, T)."""
        z0 = frozen['frontend'].encode(batch['image'])
        t_key, eps_key, drop_key = jax.random.split(key, 3)
        t = jax.random.randint(t_key, z0.shape[:1], 0, self.schedule.steps)
        eps = jax.random.normal(eps_key, z0.shape)
        drop = jax.random.bernoulli(drop_key, self.drop_rate, z0.shape[:1])
        loss = self.losses(params, z0, t, eps, drop).mean()
        return loss, {'loss': loss}


@dataclass(frozen=True)
class Tune:
    """Eq. 2 on labelled images with the class label as condition, over the denoiser alone.

    `t_range` is the half-open range that t is drawn from. `paired_weight` > 0 adds our paired term,
    which is not in the paper: softplus(paired_scale · Σ(error under the right label − error under a
    wrong one)) on the same (t, ε), so that tuning minimises what the evaluator compares.
    """

    schedule: Schedule
    denoiser: DiT
    t_range: tuple[int, int]
    paired_weight: float
    paired_scale: float

    def init(self, key: jax.Array, z0: jax.Array) -> dict:
        """Random parameters {'denoiser'}."""
        zero = jnp.zeros((1,), jnp.int32)
        return {'denoiser': self.denoiser.init(key, z0, zero, zero)['params']}

    def denoise(self, params, z_t, t, label) -> jax.Array:
        """The tuned denoiser as the evaluator calls it."""
        return self.denoiser.apply({'params': params['denoiser']}, z_t, t, label)

    def __call__(self, params, frozen, batch, key) -> tuple[jax.Array, dict]:
        """The training loss, with the paired term where asked for."""
        z0, label = frozen['frontend'].encode(batch['image']), batch['label']
        t_key, eps_key, wrong_key = jax.random.split(key, 3)
        t = jax.random.randint(t_key, z0.shape[:1], *self.t_range)
        eps = jax.random.normal(eps_key, z0.shape)

        def losses(label):
            def denoise_fn(z_t, t):
                return self.denoise(params, z_t, t, label)

            return denoising_loss(denoise_fn, self.schedule, z0, t, eps)

        right = losses(label)
        loss = right.mean()
        if not self.paired_weight:
            return loss, {'loss': loss}
        shift = jax.random.randint(wrong_key, label.shape, 1, self.denoiser.classes)
        wrong = losses((label + shift) % self.denoiser.classes)
        margin = (right - wrong) * (self.paired_scale * z0[0].size)
        paired = jax.nn.softplus(margin).mean()
        total = loss + self.paired_weight * paired
        return total, {'loss': loss, 'paired': paired, 'paired_accuracy': (margin < 0).mean()}
