"""Denoising, pre-training and tuning: arXiv 2505.06890, eq. 2, under the conditions of its figure 5."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from repdiff.diffusion.loss import denoising_loss
from repdiff.diffusion.schedule import Schedule
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT
from repdiff.objectives.pixels import Pixels


def latent(frozen: dict, batch: dict[str, jax.Array]) -> jax.Array:
    """z0 (B, H, W, C) of a batch: as the latent cache gave it, or the front end's of its images."""
    return batch['z0'] if 'z0' in batch else frozen['frontend'].encode(batch['image'])


@dataclass(frozen=True)
class Pretrain:
    """Eq. 2 on unlabelled images, over denoiser and encoder together.

    Without an encoder the denoiser is unconditional. The encoder is the paper's, on z0, or, with
    `pixels`, DINOv2 on the images. `drop_rate` is the probability that the whole r of an image is
    replaced by a learned null; 0 is the paper. What r can carry is bounded by the denoiser's
    `representation_width`, the numbers of r that it is given, and by `noise`, the standard
    deviation of what is added to them in training.
    """

    schedule: Schedule
    denoiser: DiT
    encoder: ViT | None
    drop_rate: float
    noise: float
    pixels: Pixels | None = None

    def init(self, key: jax.Array, z0: jax.Array) -> dict:
        """Random parameters {'denoiser', 'encoder'}; `z0` (1, H, W, C) gives the shapes.

        An encoder of pixels has none: its parameters are published ones.
        """
        t, keys = jnp.zeros((1,), jnp.int32), jax.random.split(key)
        params = {'denoiser': self.denoiser.init(keys[0], z0, t)['params']}
        if self.encoder is not None and self.pixels is None:
            params['encoder'] = self.encoder.init(keys[1], z0)['params']
        return params

    def represent(self, params, frozen, batch, z0: jax.Array) -> jax.Array | None:
        """r (eq. 1): `tokens` (B, N, Dr) or `pooled` (B, Dr); None without an encoder.

        `pooled` is the mean of the tokens, or DINOv2's cls token; of either the denoiser is given
        the first Dr numbers. The encoder's parameters are among the trained ones or among the
        frozen ones.
        """
        if self.encoder is None:
            return None
        weights = params['encoder'] if 'encoder' in params else frozen['encoder']
        shown = z0 if self.pixels is None else self.pixels.show(batch['image'])
        out = self.encoder.apply({'params': weights}, shown)
        tokens = self.denoiser.representation == 'tokens'
        if self.pixels is None:
            r = out['patches'] if tokens else out['patches'].mean(1)
        else:
            r = self.pixels.resample(out['patches']) if tokens else out['cls']
        return r[..., :self.denoiser.representation_width]

    def losses(self, params, r, z0, t, eps, drop) -> jax.Array:
        """Per-example losses (B,) with r dropped where `drop` (B,)."""

        def denoise_fn(z_t, t):
            return self.denoiser.apply({'params': params['denoiser']}, z_t, t, r, drop)

        return denoising_loss(denoise_fn, self.schedule, z0, t, eps)

    def __call__(self, params, frozen, batch, key) -> tuple[jax.Array, dict]:
        """The training loss; t uniform in [0, T)."""
        z0 = latent(frozen, batch)
        t_key, eps_key, drop_key = jax.random.split(key, 3)
        t = jax.random.randint(t_key, z0.shape[:1], 0, self.schedule.steps)
        eps = jax.random.normal(eps_key, z0.shape)
        drop = jax.random.bernoulli(drop_key, self.drop_rate, z0.shape[:1])
        r = self.represent(params, frozen, batch, z0)
        if r is not None and self.noise:
            noise_key = jax.random.fold_in(key, 1)
            r += self.noise * jax.random.normal(noise_key, r.shape, r.dtype)
        loss = self.losses(params, r, z0, t, eps, drop).mean()
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
        z0, label = latent(frozen, batch), batch['label']
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
