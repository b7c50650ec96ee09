"""Rows that classify pixels, a ViT or a ResNet; distilled rows are tuned as these are trained."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repdiff.errors import UserError
from repdiff.methods.row import Bench, Chosen, TrainedRow
from repdiff.models import resnet
from repdiff.models.heads import LinearHead
from repdiff.models.resnet import ResNet
from repdiff.models.vit import ViT
from repdiff.objectives.backbone import Backbone
from repdiff.objectives.classify import Classify
from repdiff.phases import Setting, fresh, make_phase, map_split
from repdiff.train import Phase
from repdiff.zeroshot import rules
from repdiff.zeroshot.decision import decide


def check(config: ConfigDict, z_shape: tuple[int, int, int], image_shape: tuple[int, ...]) -> None:
    """Raises UserError on what a row of this config cannot have."""
    backbone(config, image_shape[:2])
    if not config.tune.steps:
        raise UserError("config.tune.steps is 0, but a row with method 'classify' or 'distill' has "
                        'no other training of its answers; give steps.')


def sees_pixels(config: ConfigDict) -> bool:
    """Always."""
    return True


def backbone(config: ConfigDict, size: tuple[int, int]) -> ViT | ResNet:
    """The network of `config.backbone` for images of `size` (H, W).

    Raises UserError on an unknown kind and where the patch does not divide the size.
    """
    b, dtype = config.backbone, jnp.dtype(config.model.dtype)
    if b.kind in resnet.SIZES:
        return ResNet(**resnet.SIZES[b.kind], width=b.width, dtype=dtype)
    if b.kind != 'vit':
        raise UserError(f'config.backbone.kind is {b.kind!r}; choose from vit, '
                        f'{", ".join(resnet.SIZES)}.')
    if any(side % b.patch for side in size):
        raise UserError(f'config.backbone.patch is {b.patch}, which does not divide images of '
                        f'{size[0]}×{size[1]} pixels; choose a divisor.')
    return ViT(
        width=b.width, depth=b.depth, heads=b.heads, patch=b.patch, registers=b.registers,
        grid=(size[0] // b.patch, size[1] // b.patch), layer_scale=b.layer_scale, dtype=dtype,
        unroll=config.model.unroll, remat=config.model.remat,
    )


def train(config: ConfigDict, row: str, setting: Setting, bench: Bench) -> TrainedRow:
    """Supervised training from random weights."""
    network = backbone(config, image_shape(setting)[:2])
    phase = tune_phase(config, row, setting, network, None)
    tuned = bench.run(phase, setting)
    return TrainedRow(phase.loss_fn, tuned.params, {'tune': tuned}, tuned.parameters, False)


def tune_phase(
    config: ConfigDict, row: str, setting: Setting, network: ViT | ResNet, start: dict | None
) -> Phase:
    """Supervised training of `network` with labels; `start`: its pre-trained parameters."""
    name = f'{row}.tune'
    objective = tune_objective(config, network, len(setting.classes))
    params = fresh(name, setting, objective.init, image_shape(setting))
    if start is not None:
        params['backbone'] = start
    labels = setting.splits['valid'].labels()

    def evaluate(params: Any) -> tuple[float, dict[str, float]]:
        found = logits(config, setting, 'valid', objective, params)
        auroc = rules.auroc(found, labels)
        return auroc, {'valid_auroc': auroc}

    return make_phase(
        config, config.tune, name, setting, objective, params, {}, split='train',
        balanced=config.tune.balanced, evaluate=evaluate,
    )


def tune_objective(config: ConfigDict, network: ViT | ResNet, classes: int) -> Classify:
    """The network with a head for the classes, and the loss of its supervised training."""
    return Classify(Backbone(network), LinearHead(classes), config.tune.label_smoothing)


def image_shape(setting: Setting) -> tuple[int, int, int]:
    """(H, W, C) of the images."""
    return setting.splits['train'][0]['image'].shape


def logits(
    config: ConfigDict, setting: Setting, split: str, objective: Classify, params: Any
) -> np.ndarray:
    """Logits (B, K) of a split: the mean over each image and, where training flips, its mirror."""
    return map_split(
        lambda batch: _logits(objective, config.augmentation.flip, params, batch['image']),
        setting.splits[split], config.classify.batch, setting.mesh,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(objective: Classify, flip: bool, params: Any, images: jax.Array) -> jax.Array:
    plain = objective.logits(params, images)
    return (plain + objective.logits(params, images[:, :, ::-1])) / 2 if flip else plain


def choose(
    config: ConfigDict, row: str, setting: Setting, trained: TrainedRow, workdir: Path
) -> Chosen:
    """Calibration and cut of the logits."""
    scores = logits(config, setting, 'valid', trained.objective, trained.params)
    decision = decide(None, scores, setting.splits['valid'].labels())

    def answer(setting: Setting) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return {'test_scores': logits(
            config, setting, 'test', trained.objective, trained.params)}, {}

    words = 'logits' + (', mean of the image and its mirror' if config.augmentation.flip else '')
    return Chosen(
        decision, {'valid_scores': scores}, {'scored': words, 'dimensions': 1}, answer)
