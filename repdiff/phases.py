"""What the two phases of a row are made of: networks, objectives, batches and evaluations."""

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from repdiff import interrupt, optim, published
from repdiff.data import pipeline
from repdiff.diffusion import schedule as schedules
from repdiff.diffusion.loss import PENALTIES
from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.errors import UserError
from repdiff.latents.frontend import PatchBasis
from repdiff.latents.vae import Vae
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT
from repdiff.objectives.denoise import Pretrain, Tune, latent
from repdiff.objectives.switch import start_tuning, tuned_denoiser
from repdiff.progress import Progress
from repdiff.sharding import (
    batch_parts, host_rows, param_shardings, to_all, to_devices, to_hosts,
)
from repdiff.train import Phase
from repdiff.zeroshot import rules
from repdiff.zeroshot.evaluator import Evaluator
from repdiff.zeroshot.sequential import Settings


@dataclass(frozen=True)
class Setting:
    """What every row shares: mesh, data splits by name, classes, front end, the run's key."""

    mesh: Mesh
    splits: dict[str, Any]
    classes: tuple[str, ...]
    frontend: PatchBasis | Vae
    z_shape: tuple[int, int, int]
    key: jax.Array

    def purpose(self, name: str) -> jax.Array:
        """The run's key folded with a purpose."""
        return jax.random.fold_in(self.key, zlib.crc32(name.encode()))


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
        representation_width=encoder.width if encoder else None,
    )
    schedule = schedules.linear(config.diffusion.steps)
    return Pretrain(schedule, denoiser, encoder, config.representation.drop_rate, pixels)


def tune_objective(config: ConfigDict, pretrain: Pretrain, classes: int) -> Tune:
    """The label-conditioned denoiser and the loss of tuning."""
    denoiser = tuned_denoiser(pretrain.denoiser, classes, config.tune.switch)
    tune = config.tune
    return Tune(
        pretrain.schedule, denoiser, tuple(tune.t_range), tune.paired_weight, tune.paired_scale
    )


def check_batches(config: ConfigDict, mesh: Mesh) -> None:
    """Raises UserError where a phase's batch does not divide over the mesh in every part of it."""
    parts = config.optim.accumulate * batch_parts(mesh)
    for name in ('pretrain', 'tune'):
        if config[name].batch % parts:
            raise UserError(
                f'config.{name}.batch is {config[name].batch}, which does not divide into '
                f'optim.accumulate × data × fsdp = {config.optim.accumulate} × '
                f'{mesh.shape["data"]} × {mesh.shape["fsdp"]} parts; choose a multiple of {parts} '
                'or another config.mesh.'
            )


def pretrain_phase(config: ConfigDict, row: str, setting: Setting) -> Phase:
    """Pre-training on the unlabelled split."""
    objective = pretrain_objective(config, setting.z_shape)
    name = f'{config.pretrain.row or row}.pretrain'
    params, frozen = _fresh(name, setting, objective), frozen_parts(config, setting)
    params['denoiser'] = published.denoiser_params(config, params['denoiser'])
    if objective.pixels and config.encoder.kind == 'dinov2_tuned':
        params['encoder'] = published.encoder_params(config)
    return _phase(
        config, config.pretrain, name, setting, objective, params, frozen, split='pretrain',
        balanced=False, evaluate=_leak_meter(config, objective, setting, frozen),
    )


def tune_phase(config: ConfigDict, row: str, setting: Setting, pretrained: dict | None) -> Phase:
    """Tuning on the labelled split, from pre-trained parameters or, with None, without those."""
    source, name = pretrain_objective(config, setting.z_shape), f'{row}.tune'
    objective = tune_objective(config, source, len(setting.classes))
    params = _fresh(name, setting, objective)
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
    return _phase(
        config, config.tune, name, setting, objective, params, {'frontend': setting.frontend},
        split='train', balanced=config.tune.balanced,
        evaluate=_validator(config, objective, setting),
    )


def _fresh(name: str, setting: Setting, objective: Pretrain | Tune) -> dict:
    """Random parameters of a phase's networks, each device making its part."""
    key, z0 = setting.purpose(f'{name}.init'), jnp.zeros((1, *setting.z_shape))
    places = param_shardings(jax.eval_shape(objective.init, key, z0), setting.mesh)
    return jax.jit(objective.init, out_shardings=places)(key, z0)


def frozen_parts(config: ConfigDict, setting: Setting) -> dict:
    """What pre-training reads beside its parameters, on every device: front end, frozen DINOv2."""
    frozen = {'frontend': setting.frontend}
    if published.on_pixels(config) and config.encoder.kind == 'dinov2_frozen':
        frozen['encoder'] = published.encoder_params(config)
    return to_all(frozen, setting.mesh)


def optimizer(config: ConfigDict, section: ConfigDict) -> optax.GradientTransformation:
    """The optimizer of a phase; `section` is the config's `pretrain` or `tune`."""
    schedule = optim.learning_rate(
        section.learning_rate, section.warmup_steps, section.steps, section.decay
    )
    o = config.optim
    return optim.adamw(
        schedule, b1=o.b1, b2=o.b2, weight_decay=o.weight_decay, clip_norm=o.clip_norm
    )


def _phase(
    config: ConfigDict, section: ConfigDict, name: str, setting: Setting, objective: Callable,
    params: dict, frozen: dict, *, split: str, balanced: bool, evaluate: Callable,
) -> Phase:
    return Phase(
        name=name,
        loss_fn=objective,
        tx=optimizer(config, section),
        params=params,
        frozen=frozen,
        iterator=pipeline.train_iterator(
            setting.splits[split], batch=section.batch, rows=host_rows(setting.mesh, section.batch),
            seed=config.seed, augmentation=pipeline.Augmentation(**config.augmentation),
            balanced=balanced,
        ),
        evaluate=evaluate,
        steps=section.steps,
        batch=section.batch,
        accumulate=config.optim.accumulate,
        ema_decay=section.ema_decay,
        log_every=config.log_every,
        checkpoint_every=section.checkpoint_every,
        keep=config.keep_checkpoints,
    )


def map_split(function: Callable, split: Any, batch: int, mesh: Mesh, what: str = '') -> np.ndarray:
    """function(batch) over a split, in batches on the mesh, without the padding; stacked.

    Every host reads its own rows of each batch and gets the whole result.
    """
    batch = -(-batch // mesh.size) * mesh.size  # every device gets equally many
    progress = Progress(len(split), what, 'images') if what else None
    outputs, running = [], []

    def collect() -> None:
        output, valid = running.pop(0)
        outputs.append(to_hosts(output)[valid])
        if progress:
            progress.update(int(valid.sum()))

    for host in pipeline.eval_batches(split, batch=batch, rows=host_rows(mesh, batch)):
        interrupt.check()
        valid = host.pop('valid')
        with jax.set_mesh(mesh):
            running.append((function(to_devices(host, mesh)), valid))
        if len(running) > 1:  # the next batch is read while one is computed
            collect()
    collect()
    return np.concatenate(outputs)


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


def make_evaluator(config: ConfigDict, objective: Tune, setting: Setting) -> Evaluator:
    """The zero-shot evaluator of a tuned denoiser, as `config.classify` says."""
    c = config.classify
    names = ('alpha', 'budget', 'min_draws', 'growth', 'stratified', 'antithetic')
    unknown = sorted(set(c.kinds) - set(PENALTIES))
    if unknown or not c.kinds:
        raise UserError(f'config.classify.kinds: choose among {", ".join(PENALTIES)}, '
                        f'not {unknown or "none"}.')
    return Evaluator(
        objective.denoise, objective.schedule, mesh=setting.mesh, key=setting.purpose('score'),
        kinds=c.kinds, passes=c.passes,
        settings=Settings(**{name: c[name] for name in names}),
    )


def sweep_steps(config: ConfigDict, draws: int) -> np.ndarray:
    """The step t of each draw of a sweep (S,): every t of the config in turn, `draws` times."""
    return np.tile(np.asarray(config.classify.t, np.int32), draws)


def latents(config: ConfigDict, setting: Setting, split: str) -> tuple[np.ndarray, np.ndarray]:
    """z0 (B, H, W, C) float32 and id words (B, 2) uint32 of a split, on the host."""
    encode, frozen, examples = jax.jit(latent), {'frontend': setting.frontend}, setting.splits[split]
    z0 = map_split(
        lambda batch: encode(frozen, batch), examples, config.classify.batch, setting.mesh
    )
    return z0, np.stack([examples[index]['id'] for index in range(len(examples))])


def _validator(config: ConfigDict, objective: Tune, setting: Setting) -> Callable:
    """The tuning checkpoint's score: validation AUROC under the `inverse_sd` rule."""
    evaluator, t = make_evaluator(config, objective, setting), sweep_steps(
        config, config.classify.select_draws)
    labels, conditions = setting.splits['valid'].labels(), np.arange(len(setting.classes))
    given = functools.cache(lambda: latents(config, setting, 'valid'))

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
