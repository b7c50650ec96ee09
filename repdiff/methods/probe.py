"""Rows that read another row's pre-trained network with a linear rule, and train nothing more.

Of a denoising row: the joint ViT's representation, or the denoiser's tokens after a block at a step
t (Baranchuk et al. 2021, arXiv 2112.03126). Of a distilled row: its ViT's features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repdiff import published
from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.diffusion.schedule import add_noise
from repdiff.errors import UserError
from repdiff.eval import probes
from repdiff.latents.frontend import to_unit
from repdiff.methods import denoise, distill
from repdiff.methods.row import Bench, Chosen, TrainedRow
from repdiff.models.dit import Block
from repdiff.models.layers import LayerNorm
from repdiff.objectives.denoise import Pretrain, latent
from repdiff.objectives.distill import Distill
from repdiff.phases import Setting, map_split
from repdiff.zeroshot import rules
from repdiff.zeroshot.decision import decide

Features = Callable[[Any, dict], dict[str, jax.Array]]  # (params, batch) -> name -> (B, F)


@dataclass(frozen=True)
class Read:
    """What a probe reads: the pre-training's objective and frozen parts."""

    objective: Pretrain | Distill
    frozen: dict


def check(config: ConfigDict, z_shape: tuple[int, int, int], image_shape: tuple[int, ...]) -> None:
    """Raises UserError on what a row of this config cannot have."""
    if config.probe.of not in ('encoder', 'denoiser', 'distilled'):
        raise UserError(f"config.probe.of is {config.probe.of!r}; choose 'encoder', 'denoiser' or "
                        "'distilled'.")
    if not config.pretrain.row or not config.pretrain.steps:
        raise UserError("config.method is 'probe', which reads another row's pre-training; name "
                        'that row in pretrain.row.')
    if config.probe.of == 'distilled':
        distill.objective(config)
        return
    source = denoise.pretrain_objective(config, z_shape)
    if config.probe.of == 'encoder' and (source.encoder is None or source.pixels):
        raise UserError("config.probe.of is 'encoder', but that pre-training has no joint ViT; "
                        "choose 'denoiser'.")


def sees_pixels(config: ConfigDict) -> bool:
    """Whether the pre-trained network sees images."""
    return config.probe.of == 'distilled' or published.on_pixels(config)


def train(config: ConfigDict, row: str, setting: Setting, bench: Bench) -> TrainedRow:
    """Reads the other row's pre-training back, or runs it."""
    room = distill if config.probe.of == 'distilled' else denoise
    phase = room.pretrain_phase(config, row, setting)
    trained = bench.run(phase, setting)
    return TrainedRow(
        Read(phase.loss_fn, phase.frozen), trained.params, {'pretrain': trained},
        trained.parameters, True,
    )


def choose(
    config: ConfigDict, row: str, setting: Setting, trained: TrainedRow, workdir: Path
) -> Chosen:
    """The features and the strength of the linear rule, then its calibration and cut."""
    read: Read = trained.objective
    make = {
        'distilled': _of_distilled, 'encoder': _of_encoder, 'denoiser': _of_denoiser,
    }[config.probe.of](config, setting, read)
    train, valid = (_features(config, setting, split, make, trained.params)
                    for split in ('train', 'valid'))
    labels = {split: setting.splits[split].labels() for split in ('train', 'valid')}
    best = probes.linear(
        {name: (train[name], valid[name]) for name in train}, labels['train'], labels['valid'])
    scores = best.logits(valid[best.features])
    classes = len(setting.classes)

    def near(found: dict[str, np.ndarray], truth: np.ndarray) -> float:
        name = best.features
        return rules.auroc(
            probes.neighbours(found[name], train[name], labels['train'], classes), truth)

    def answer(setting: Setting) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        test = _features(config, setting, 'test', make, trained.params)
        truth = setting.splits['test'].labels()
        return {'test_scores': best.logits(test[best.features])}, {'neighbours': {
            'k': probes.NEIGHBOURS, 'valid_auroc': near(valid, labels['valid']),
            'test_auroc': near(test, truth)}}

    facts = {
        'scored': f'{best.features}, C={best.strength:g}, best of {best.settings} on validation',
        'dimensions': 1,
    }
    return Chosen(
        decide(None, scores, labels['valid']), {'valid_scores': scores}, facts, answer)


def _features(
    config: ConfigDict, setting: Setting, split: str, make: Features, params: Any
) -> dict[str, np.ndarray]:
    """Every kind of features (B, F) of a split, by name."""
    names: list[tuple[str, int]] = []

    @jax.jit
    def flat(params, batch):
        found = make(params, batch)
        names[:] = [(name, value.shape[-1]) for name, value in found.items()]
        return jnp.concatenate(list(found.values()), -1).astype(jnp.float32)

    found = map_split(
        lambda batch: flat(params, batch), setting.splits[split], config.classify.batch,
        setting.mesh,
    )
    ends = np.cumsum([size for _, size in names])
    parts = np.split(found, ends[:-1], axis=1)
    return dict(zip((name for name, _ in names), parts, strict=True))


def _of_distilled(config: ConfigDict, setting: Setting, read: Read) -> Features:
    """The cls token, and with the mean patch, of the last block and of the last four, as DINOv2's
    linear evaluation has them: behind the final norm.
    """
    vit = read.objective.vit
    norm = LayerNorm(vit.dtype)
    depths = range(max(0, vit.depth - 4), vit.depth)

    def make(params, batch):
        out = vit.apply(
            {'params': params['backbone']}, to_unit(batch['image']), layers_out=tuple(depths))
        last = jnp.concatenate([
            norm.apply({'params': params['backbone']['norm']}, layer[:, 0])
            for layer in out['layers']], -1)
        mean = out['patches'].mean(1)
        return {'cls': out['cls'], 'cls and mean patch': jnp.concatenate([out['cls'], mean], -1),
                f'cls of {len(depths)} blocks and mean patch': jnp.concatenate([last, mean], -1)}

    return make


def _of_encoder(config: ConfigDict, setting: Setting, read: Read) -> Features:
    """The joint ViT's mean patch (pooled r), its cls token, and both."""
    def make(params, batch):
        out = read.objective.encoder.apply(
            {'params': params['encoder']}, latent(read.frozen, batch))
        mean = out['patches'].mean(1)
        return {'mean patch': mean, 'cls': out['cls'],
                'cls and mean patch': jnp.concatenate([out['cls'], mean], -1)}

    return make


def _of_denoiser(config: ConfigDict, setting: Setting, read: Read) -> Features:
    """The denoiser's mean token after each block at each of `probe.t`, r dropped.

    The noise depends on the image's id alone.
    """
    denoiser, schedule = read.objective.denoiser, read.objective.schedule
    key = setting.purpose('probe')

    def make(params, batch):
        z0 = latent(read.frozen, batch)
        eps = draw_noise(image_keys(key, batch['id']), 0, z0.shape[1:])
        found = {}
        for step in config.probe.t:
            t = jnp.full(len(z0), step)
            _, kept = denoiser.apply(
                {'params': params['denoiser']}, add_noise(schedule, z0, t, eps), t,
                capture_intermediates=lambda module, name: isinstance(module, Block),
                mutable=['intermediates'],
            )
            tokens = jax.tree.leaves(kept['intermediates'])[0]  # (L, B, N, D)
            for block, each in enumerate(tokens.mean(2), 1):
                found[f'block {block} at t={step}'] = each
        return found

    return make
