"""Rows that denoise: pre-trained with r or without, tuned with labels, and then the evaluator.

The paper's method (arXiv 2505.06890) and its relatives.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repdiff import exhibits, published
from repdiff.diffusion import schedule as schedules
from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.errors import UserError
from repdiff.methods import zeroshot
from repdiff.methods.row import Bench, Chosen, TrainedRow
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT
from repdiff.objectives.denoise import Pretrain, Tune, latent
from repdiff.objectives.switch import start_tuning, tuned_denoiser
from repdiff.phases import Setting, fresh, make_phase, map_split
from repdiff.sharding import to_all
from repdiff.train import Phase
from repdiff.zeroshot import rules

FIGURE_T = (50, 100, 200, 300, 400, 600, 800)  # steps of the z0' figure


def check(config: ConfigDict, z_shape: tuple[int, int, int], image_shape: tuple[int, ...]) -> None:
    """Raises UserError on what a row of this config cannot have."""
    pretrain_objective(config, z_shape)


def sees_pixels(config: ConfigDict) -> bool:
    """Whether the row's encoder is DINOv2, which sees images."""
    return published.on_pixels(config)


def train(config: ConfigDict, row: str, setting: Setting, bench: Bench) -> TrainedRow:
    """Pre-trains and tunes."""
    found, pretrained, figures = {}, None, {}
    if config.pretrain.steps:
        phase = pretrain_phase(config, row, setting)
        found['pretrain'] = bench.run(phase, setting)
        pretrained = found['pretrain'].params
        if not config.pretrain.row:
            figures = _figures(row, phase, pretrained, setting, bench.shown)
    phase = tune_phase(config, row, setting, pretrained)
    tuned = found['tune'] = bench.run(phase, setting)
    return TrainedRow(
        phase.loss_fn, tuned.params, found, tuned.parameters,
        pretrained is not None or bool(config.model.weights), figures,
    )


def choose(
    config: ConfigDict, row: str, setting: Setting, trained: TrainedRow, workdir: Path
) -> Chosen:
    """The evaluator's rule and all that goes with it."""
    return zeroshot.choose(config, row, setting, trained, workdir)


def _figures(
    row: str, phase: Phase, params: Any, setting: Setting, shown: np.ndarray
) -> dict[str, np.ndarray]:
    """z0' of one image over t, with r and with r dropped."""
    z0 = exhibits.z0_over_t(
        phase.loss_fn, params, phase.frozen, shown, np.array(FIGURE_T), setting.purpose('figure'),
    )
    found = {row: z0.get('kept', z0['dropped'])[..., 0]}
    return found | ({f'{row}_dropped': z0['dropped'][..., 0]} if 'kept' in z0 else {})


def pretrain_objective(config: ConfigDict, z_shape: tuple[int, int, int]) -> Pretrain:
    """The networks and the loss of pre-training for one row's config."""
    sizes = {name: config.model[name] for name in ('width', 'depth', 'heads', 'patch')}
    compute = {
        'dtype': jnp.dtype(config.model.dtype),
        'unroll': config.model.unroll,
        'remat': config.model.remat,
    }
    conditioning, encoder, pixels = config.pretrain.condition, None, None
    grid = tuple(size // config.model.patch for size in z_shape[:2])
    if published.on_pixels(config):
        encoder, pixels = published.encoder(config, grid, compute)
    elif conditioning == 'representation':
        encoder = ViT(
            **sizes, **compute, grid=grid, registers=config.encoder.registers,
            layer_scale=config.encoder.layer_scale,
        )
    denoiser = DiT(
        **sizes, **compute, **published.denoiser_fields(config, z_shape[-1]),
        channels=z_shape[-1], conditioning=conditioning,
        representation=config.representation.kind,
        representation_width=_given(config, encoder) if encoder else None,
    )
    r = config.representation
    schedule = schedules.linear(config.diffusion.steps)
    return Pretrain(schedule, denoiser, encoder, r.drop_rate, r.noise, pixels)


def _given(config: ConfigDict, encoder: ViT) -> int:
    """How many numbers of r the denoiser is given. Raises UserError where r has fewer."""
    width = config.representation.width
    if width > encoder.width:
        raise UserError(f'config.representation.width is {width}, but r has {encoder.width} '
                        'numbers; choose at most as many, or 0 for all.')
    return width or encoder.width


def tune_objective(config: ConfigDict, pretrain: Pretrain, classes: int) -> Tune:
    """The label-conditioned denoiser and the loss of tuning."""
    denoiser = tuned_denoiser(pretrain.denoiser, classes, config.tune.switch)
    tune = config.tune
    return Tune(
        pretrain.schedule, denoiser, tuple(tune.t_range), tune.paired_weight, tune.paired_scale
    )


def pretrain_phase(config: ConfigDict, row: str, setting: Setting) -> Phase:
    """Pre-training on the unlabelled split."""
    objective = pretrain_objective(config, setting.z_shape)
    name = f'{config.pretrain.row or row}.pretrain'
    params = fresh(name, setting, objective.init, setting.z_shape)
    frozen = frozen_parts(config, setting)
    params['denoiser'] = published.denoiser_params(config, params['denoiser'])
    if objective.pixels and config.encoder.kind == 'dinov2_tuned':
        params['encoder'] = published.encoder_params(config)
    return make_phase(
        config, config.pretrain, name, setting, objective, params, frozen, split='pretrain',
        balanced=False, evaluate=_leak_meter(config, objective, setting, frozen),
    )


def tune_phase(config: ConfigDict, row: str, setting: Setting, pretrained: dict | None) -> Phase:
    """Tuning on the labelled split, from pre-trained parameters or, with None, without those."""
    source, name = pretrain_objective(config, setting.z_shape), f'{row}.tune'
    objective = tune_objective(config, source, len(setting.classes))
    params = fresh(name, setting, objective.init, setting.z_shape)
    if pretrained is None:
        params['denoiser'] = published.denoiser_params(config, params['denoiser'])
    else:
        means = None
        if config.tune.label_start == 'class_means':
            if source.encoder is None or source.denoiser.representation != 'pooled':
                raise UserError(
                    "config.tune.label_start is 'class_means', which needs pre-training with "
                    "config.representation.kind='pooled'; choose 'null' or 'random'."
                )
            means = _class_means(config, source, pretrained, setting)
        params = {'denoiser': start_tuning(
            source.denoiser, pretrained['denoiser'], params['denoiser'],
            switch=config.tune.switch, label_start=config.tune.label_start, class_means=means,
        )}
    return make_phase(
        config, config.tune, name, setting, objective, params, {'frontend': setting.frontend},
        split='train', balanced=config.tune.balanced,
        evaluate=_validator(config, objective, setting),
    )


def frozen_parts(config: ConfigDict, setting: Setting) -> dict:
    """What pre-training reads beside its parameters, on every device: front end, frozen DINOv2."""
    frozen = {'frontend': setting.frontend}
    if published.on_pixels(config) and config.encoder.kind == 'dinov2_frozen':
        frozen['encoder'] = published.encoder_params(config)
    return to_all(frozen, setting.mesh)


def _leak_meter(
    config: ConfigDict, objective: Pretrain, setting: Setting, frozen: dict
) -> Callable:
    """Validation losses with r kept and with r dropped: the gap is what r leaks of z0."""
    noise_key = setting.purpose('leak')

    @jax.jit
    def losses(params, frozen, batch):
        z0, keys = latent(frozen, batch), image_keys(noise_key, batch['id'])
        eps = draw_noise(keys, 0, z0.shape[1:])
        steps = objective.schedule.steps
        t = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, steps))(keys)
        flags = jnp.zeros(z0.shape[:1], bool)
        r = objective.represent(params, frozen, batch, z0)
        kept = objective.losses(params, r, z0, t, eps, flags)
        return jnp.stack([kept, objective.losses(params, r, z0, t, eps, ~flags)], -1)  # (B, 2)

    def evaluate(params):
        values = map_split(
            lambda batch: losses(params, frozen, batch), setting.splits['valid'],
            config.classify.batch, setting.mesh,
        ).mean(0)
        if objective.encoder is None:
            return None, {'loss_dropped': values[1]}
        return None, {'loss_kept': values[0], 'loss_dropped': values[1]}

    return evaluate


def _validator(config: ConfigDict, objective: Tune, setting: Setting) -> Callable:
    """The tuning checkpoint's score: validation AUROC under the `inverse_sd` rule."""
    evaluator = zeroshot.make_evaluator(config, objective, setting)
    t = zeroshot.sweep_steps(config, config.classify.select_draws)
    labels, conditions = setting.splits['valid'].labels(), np.arange(len(setting.classes))
    given = functools.cache(lambda: zeroshot.latents(config, setting, 'valid'))

    def evaluate(params):
        errors = evaluator.sweep(params, conditions, *given(), t)[..., 0]
        found = rules.candidates(objective.schedule, t, errors, evaluator.kinds[0])
        rule = next(rule for rule in found if rule.name.startswith('inverse_sd'))
        auroc = rules.auroc(rule.scores(t, errors), labels)
        return auroc, {'valid_auroc': auroc}

    return evaluate


def _class_means(
    config: ConfigDict, objective: Pretrain, params: dict, setting: Setting
) -> np.ndarray:
    """The mean pooled r (K, Dr) of each class over `tune.shots` of its labelled images, or all.

    The few are evenly spaced in the split, whose slices lie patient by patient.
    """
    frozen, split = frozen_parts(config, setting), setting.splits['train']

    @jax.jit
    def pooled(params, frozen, batch):
        return objective.represent(params, frozen, batch, latent(frozen, batch))

    r = map_split(
        lambda batch: pooled(params, frozen, batch), split, config.classify.batch, setting.mesh
    )
    labels, means = split.labels(), []
    for k in range(len(setting.classes)):
        members = np.flatnonzero(labels == k)
        shots = min(config.tune.shots or members.size, members.size)
        chosen = members[np.linspace(0, members.size - 1, shots).astype(int)]
        means.append(r[chosen].mean(0))
    return jnp.stack(means)
