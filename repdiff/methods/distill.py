"""Rows that DINOv2's self-distillation pre-trains without labels, then tuned like a classifier."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from repdiff.errors import UserError
from repdiff.methods import classify
from repdiff.methods.row import Bench, Chosen, TrainedRow
from repdiff.models.heads import PrototypeHead
from repdiff.models.vit import ViT
from repdiff.objectives import distill
from repdiff.objectives.backbone import Backbone
from repdiff.objectives.distill import Distill, Views
from repdiff.phases import Setting, fresh, make_phase, map_split
from repdiff.progress import note
from repdiff.train import Phase

COLLAPSED = 0.1  # feature_std below which all images have nearly one feature
UNIFORM = 0.99  # entropy above which the teacher says nearly nothing


def check(config: ConfigDict, z_shape: tuple[int, int, int], image_shape: tuple[int, ...]) -> None:
    """Raises UserError on what a row of this config cannot have."""
    classify.check(config, z_shape, image_shape)
    objective(config)
    if not config.pretrain.steps:
        raise UserError("config.pretrain.steps is 0, but a row with method 'distill' is "
                        "pre-trained; give steps, or choose method 'classify'.")


def sees_pixels(config: ConfigDict) -> bool:
    """Always."""
    return True


def objective(config: ConfigDict) -> Distill:
    """The ViT of `config.backbone` with DINOv2's heads and crops.

    Raises UserError on a backbone that is no ViT and on crops that are no multiple of its patch.
    """
    d, steps = config.distill, config.pretrain.steps
    for name in ('global_size', 'local_size'):
        if d[name] % config.backbone.patch:
            raise UserError(f'config.distill.{name} is {d[name]}, but config.backbone.patch is '
                            f'{config.backbone.patch}; choose a multiple of it.')
    vit = classify.backbone(config, (d.global_size, d.global_size))
    if not isinstance(vit, ViT):
        raise UserError(f'config.backbone.kind is {config.backbone.kind!r}, but self-distillation '
                        "hides patches and needs 'vit'.")
    return Distill(
        vit=vit,
        head=PrototypeHead(d.hidden, d.bottleneck, d.prototypes, vit.dtype),
        views=Views(
            d.global_size, d.local_size, d.local_crops, tuple(d.global_scale),
            tuple(d.local_scale), d.jitter, d.blur,
        ),
        student_temperature=d.student_temperature,
        teacher_temperature=tuple(d.teacher_temperature),
        warmup=round(d.temperature_warmup * steps),
        freeze=round(d.freeze_last * steps),
        mask_ratio=tuple(d.mask_ratio),
        ibot_weight=d.ibot_weight,
        koleo_weight=d.koleo_weight,
    )


def pretrain_phase(config: ConfigDict, row: str, setting: Setting) -> Phase:
    """Self-distillation on the unlabelled split; its EMA is the teacher."""
    name, found = f'{config.pretrain.row or row}.pretrain', objective(config)
    return make_phase(
        config, config.pretrain, name, setting, found,
        fresh(name, setting, found.init, classify.image_shape(setting)), {}, split='pretrain',
        balanced=False, evaluate=_collapse_detector(config, name, found, setting), **course(config),
    )


def course(config: ConfigDict) -> dict[str, Any]:
    """What self-distillation has of its own for `make_phase`: schedules, the teacher it reads."""
    d, steps = config.distill, config.pretrain.steps
    return {'ema_decay': cosine(*d.momentum, steps), 'weight_decay': cosine(*d.weight_decay, steps),
            'reads': distill.reads}


def cosine(start: float, end: float, steps: int) -> optax.Schedule:
    """Half a cosine from `start` at step 0 to `end` at the last."""
    return lambda step: end + (start - end) * (1 + jnp.cos(jnp.pi * step / max(steps, 1))) / 2


def train(config: ConfigDict, row: str, setting: Setting, bench: Bench) -> TrainedRow:
    """Pre-trains, then tunes the teacher's ViT with labels.

    It has learned the positions of a large crop's patches and resizes them to whole images'.
    """
    pretrained = bench.run(pretrain_phase(config, row, setting), setting)
    phase = classify.tune_phase(
        config, row, setting, objective(config).vit, pretrained.params['backbone'])
    tuned = bench.run(phase, setting)
    phases = {'pretrain': pretrained, 'tune': tuned}
    return TrainedRow(phase.loss_fn, tuned.params, phases, tuned.parameters, True)


def choose(
    config: ConfigDict, row: str, setting: Setting, trained: TrainedRow, workdir: Path
) -> Chosen:
    """Calibration and cut of the logits."""
    return classify.choose(config, row, setting, trained, workdir)


def _collapse_detector(config: ConfigDict, name: str, found: Distill, setting: Setting):
    """Validation: how spread the teacher's features are, and how sure it is of its prototypes.

    Says it loudly where they are not spread, or it is not sure.
    """
    @jax.jit
    def says(params, images):  # (B, D + K)
        cls = Backbone(found.vit).features(params['backbone'], images)[:, :found.vit.width]
        return jnp.concatenate([cls, found.head.apply({'params': params['dino']}, cls)], 1)

    def evaluate(params: Any) -> tuple[None, dict[str, float]]:
        out = map_split(
            lambda batch: says(params, batch['image']), setting.splits['valid'],
            config.classify.batch, setting.mesh,
        )
        cls, logits = jnp.split(jnp.asarray(out), [found.vit.width], 1)
        std = float(distill.feature_std(cls))
        targets = distill.sinkhorn(logits, found.teacher_temperature[1], jnp.ones(len(logits)))
        entropy = float(distill.entropy(targets).mean())
        if std < COLLAPSED:
            note(f'warning: {name}: the features of all images are nearly the same (feature_std '
                 f'{std:.2g}); give more pretrain.steps, lower pretrain.learning_rate or raise '
                 'distill.koleo_weight')
        elif entropy > UNIFORM:
            note(f'warning: {name}: the teacher gives every image all prototypes alike (entropy '
                 f'{entropy:.4f} of 1), so nothing is learned from them; raise distill.freeze_last '
                 'or lower distill.teacher_temperature and distill.jitter')
        return None, {'valid_feature_std': std, 'valid_teacher_entropy': entropy}

    return evaluate
