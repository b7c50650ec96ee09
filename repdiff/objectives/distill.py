"""DINOv2's self-distillation (Oquab et al. 2023, arXiv 2304.07193): DINO, iBOT and KoLeo.

The student learns to say of crops and of hidden patches what the teacher, its moving average, says
of whole views. Left out of the published recipe: stochastic depth and layer-wise learning rates.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from repdiff.latents.frontend import to_unit
from repdiff.models.heads import PrototypeHead, unit
from repdiff.models.vit import ViT
from repdiff.objectives.crops import block_masks, random_crops
from repdiff.step import TrainState

SINKHORN_ITERATIONS = 3


def reads(state: TrainState) -> dict:
    """What the loss reads of the train state beside the student: the teacher, which is its EMA."""
    return {'teacher': state.ema, 'step': state.step}


@dataclass(frozen=True)
class Views:
    """The crops of an image: two global ones and `local_crops` small ones; sizes in pixels."""

    global_size: int
    local_size: int
    local_crops: int
    global_scale: tuple[float, float]
    local_scale: tuple[float, float]
    jitter: float
    blur: float

    def draw(self, key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Global crops (B, 2, ...) and local crops (B, local_crops, ...) of uint8 images."""
        keys, x = jax.random.split(key), to_unit(images)
        look = {'jitter': self.jitter, 'blur': self.blur}
        return (
            random_crops(keys[0], x, count=2, size=self.global_size,
                         scale=self.global_scale, **look),
            random_crops(keys[1], x, count=self.local_crops, size=self.local_size,
                         scale=self.local_scale, **look),
        )


@dataclass(frozen=True)
class Distill:
    """The loss: DINO + ibot_weight · iBOT + koleo_weight · KoLeo.

    teacher_temperature rises from its first to its second value over `warmup` steps; the last layer
    of both heads stands still for `freeze` steps. Half of the global crops, the first of each
    image's two, have a share of their tokens within `mask_ratio` hidden from the student.
    """

    vit: ViT
    head: PrototypeHead
    views: Views
    student_temperature: float
    teacher_temperature: tuple[float, float]
    warmup: int
    freeze: int
    mask_ratio: tuple[float, float]
    ibot_weight: float
    koleo_weight: float

    def init(self, key: jax.Array, image: jax.Array) -> dict:
        """Random parameters {'backbone', 'dino', 'ibot'}; `image` (1, H, W, C) gives the shapes."""
        keys, token = jax.random.split(key, 3), jnp.zeros((1, self.vit.width))
        return {
            'backbone': self.vit.init(keys[0], image)['params'],
            'dino': self.head.init(keys[1], token)['params'],
            'ibot': self.head.init(keys[2], token)['params'],
        }

    def __call__(self, params, frozen, batch, key) -> tuple[jax.Array, dict]:
        """The training loss; `frozen` holds what `reads` gives."""
        view_key, mask_key = jax.random.split(key)
        whole, local = self.views.draw(view_key, batch['image'])
        images = whole.shape[0]
        side = self.views.global_size // self.vit.patch
        mask = block_masks(mask_key, images, (side, side), self.mask_ratio)  # (B, N)
        temperature = jnp.interp(
            frozen['step'], jnp.array([0, max(self.warmup, 1)]),
            jnp.array(self.teacher_temperature))
        targets, patch_targets, seen = jax.lax.stop_gradient(
            self._teach(frozen['teacher'], whole, mask, temperature))
        params = jax.tree.map(lambda x: x, params)
        for name in ('dino', 'ibot'):
            last, still = params[name]['last'], frozen['step'] < self.freeze
            params[name]['last'] = jnp.where(still, jax.lax.stop_gradient(last), last)

        hidden = jnp.stack([mask, jnp.zeros_like(mask)], 1)  # (B, 2, N)
        out = self._vit(params, whole, hidden)
        cls, small = out['cls'], self._vit(params, local)['cls']  # (B, 2, D), (B, n, D)
        said = self._log_p(params['dino'], jnp.concatenate([cls, small], 1))  # (B, 2 + n, K)
        dino = dino_loss(targets, said)
        patches = self._log_p(params['ibot'], out['patches'][:, 0])  # (B, N, K)
        ibot = ibot_loss(patch_targets, patches, mask)
        koleo = (koleo_loss(cls[:, 0]) + koleo_loss(cls[:, 1])) / 2
        loss = dino + self.ibot_weight * ibot + self.koleo_weight * koleo
        return loss, {
            'loss': loss, 'dino': dino, 'ibot': ibot, 'koleo': koleo,
            **collapse(targets, jnp.exp(said[:, :2]), seen),
        }

    def _teach(self, teacher, whole, mask, temperature) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The teacher's targets (B, 2, K) and (B, N, K), and its cls tokens (B, 2, D)."""
        out = self._vit(teacher, whole)
        cls = self._logits(teacher['dino'], out['cls'])
        patches = self._logits(teacher['ibot'], out['patches'][:, 0])
        targets = sinkhorn(cls.reshape(-1, cls.shape[-1]), temperature, jnp.ones(cls[..., 0].size))
        patch_targets = sinkhorn(
            patches.reshape(-1, patches.shape[-1]), temperature, mask.reshape(-1).astype(float))
        return targets.reshape(cls.shape), patch_targets.reshape(patches.shape), out['cls']

    def _vit(self, params, views: jax.Array, mask: jax.Array | None = None) -> dict:
        """The ViT's cls (B, n, D) and patches (B, n, N, D) of views (B, n, H, W, C)."""
        flat = views.reshape(-1, *views.shape[2:])
        if mask is not None:
            mask = mask.reshape(len(flat), -1)
        out = self.vit.apply({'params': params['backbone']}, flat, mask)
        return {name: out[name].reshape(*views.shape[:2], *out[name].shape[1:])
                for name in ('cls', 'patches')}

    def _logits(self, head, tokens: jax.Array) -> jax.Array:
        flat = tokens.reshape(-1, tokens.shape[-1])
        return self.head.apply({'params': head}, flat).reshape(*tokens.shape[:-1], -1)

    def _log_p(self, head, tokens: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(self._logits(head, tokens) / self.student_temperature)


def sinkhorn(logits: jax.Array, temperature: jax.Array, weights: jax.Array) -> jax.Array:
    """Soft assignments (B, K) in which all prototypes are used equally: Sinkhorn–Knopp centring.

    Rows of weight 0 take no part and come back as 0; others sum to 1 (SwAV, arXiv 2006.09882).
    """
    count, prototypes = jnp.maximum(weights.sum(), 1), logits.shape[-1]
    q = jnp.exp((logits - logits.max()) / temperature) * weights[:, None]
    q /= q.sum()
    for _ in range(SINKHORN_ITERATIONS):
        for axis, share in ((0, prototypes), (1, count)):
            total = q.sum(axis, keepdims=True)
            # Rows of weight 0 are divided by 1 and not by a floor such as 1e-30: for a GPU, XLA
            # divides once, by the product of all these divisors, which would be 0 in float32.
            q /= (total + (total == 0)) * share
    return q * count


def dino_loss(targets: jax.Array, log_p: jax.Array) -> jax.Array:
    """Mean cross-entropy of teacher targets (B, 2, K) and student log p (B, 2 + n, K) over all
    pairs of different crops; the first two of the student's are the teacher's.
    """
    pairs = -jnp.einsum('bik,bjk->ij', targets, log_p) / len(targets)  # (2, 2 + n)
    different = 1 - jnp.eye(*pairs.shape)
    return (pairs * different).sum() / different.sum()


def ibot_loss(targets: jax.Array, log_p: jax.Array, mask: jax.Array) -> jax.Array:
    """Cross-entropy (B, N, K) of hidden patches, the mean over each image's, then over images."""
    errors = -(targets * log_p).sum(-1) * mask  # (B, N)
    return (errors.sum(1) / mask.sum(1)).mean()


def koleo_loss(features: jax.Array) -> jax.Array:
    """Kozachenko–Leonenko: minus the mean log distance of unit features (B, D) to their nearest
    others (Sablayrolles et al. 2018, arXiv 1806.03198).
    """
    x = unit(features.astype(jnp.float32))
    likeness = x @ x.T - 2 * jnp.eye(len(x))
    nearest = x[jax.lax.stop_gradient(likeness).argmax(1)]
    distance = jnp.sqrt(jnp.square(x - nearest + 1e-8).sum(1))
    return -jnp.log(distance + 1e-8).mean()


def collapse(targets: jax.Array, p: jax.Array, features: jax.Array) -> dict[str, jax.Array]:
    """What shows a collapse: each is 1 at best, but the teacher's entropy, which lies between.

    teacher_entropy: of one target, over log K; 0 names one prototype, 1 says nothing.
    prototype_use: entropy of the student's mean p over log K; 0 where all images get one prototype.
    feature_std: see `feature_std`.
    """
    return {
        'teacher_entropy': entropy(targets).mean(),
        'prototype_use': entropy(p.reshape(-1, p.shape[-1]).mean(0)),
        'feature_std': feature_std(features.reshape(-1, features.shape[-1])),
    }


def entropy(q: jax.Array) -> jax.Array:
    """Entropy (...) of distributions q (..., K) over log K."""
    return -(q * jnp.log(q + 1e-12)).sum(-1) / jnp.log(q.shape[-1])


def feature_std(features: jax.Array) -> jax.Array:
    """√D times the mean standard deviation of unit features (B, D): near 1 spread, 0 collapsed
    (SimSiam, arXiv 2011.10566, section 4.1).
    """
    return unit(features.astype(jnp.float32)).std(0).mean() * features.shape[-1] ** 0.5
