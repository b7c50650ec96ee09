"""What the two phases of a row are made of: networks, objectives, batches and evaluations."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from repdiff import optim
from repdiff.data import pipeline
from repdiff.diffusion import schedule as schedules
from repdiff.latents.frontend import PatchBasis
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT
from repdiff.objectives.denoise import Pretrain, Tune, represent
from repdiff.objectives.switch import start_tuning, tuned_denoiser
from repdiff.progress import Progress
from repdiff.sharding import to_devices
from repdiff.train import Phase
from repdiff.zeroshot import rules
from repdiff.zeroshot.score import draw_noise, image_keys, make_scorer


@dataclass(frozen=True)
class Setting:
    """What every row shares: mesh, data splits by name, classes, front end, the run's key."""

    mesh: Mesh
    splits: dict[str, Any]
    classes: tuple[str, ...]
    frontend: PatchBasis
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
    conditioning, encoder = config.pretrain.condition, None
    if conditioning == 'representation':
        grid = tuple(size // config.model.patch for size in z_shape[:2])
        encoder = ViT(
            **sizes, **compute, grid=grid, registers=config.encoder.registers,
            layer_scale=config.encoder.layer_scale,
        )
    denoiser = DiT(
        **sizes, **compute, channels=z_shape[-1], conditioning=conditioning,
        representation=config.representation.kind,
    )
    schedule = schedules.linear(config.diffusion.steps)
    return Pretrain(schedule, denoiser, encoder, config.representation.drop_rate)


def tune_objective(config: ConfigDict, pretrain: Pretrain, classes: int) -> Tune:
    """The label-conditioned denoiser and the loss of tuning."""
    denoiser = tuned_denoiser(pretrain.denoiser, classes, config.tune.switch)
    tune = config.tune
    return Tune(
        pretrain.schedule, denoiser, tuple(tune.t_range), tune.paired_weight, tune.paired_scale
    )


def pretrain_phase(config: ConfigDict, row: str, setting: Setting) -> Phase:
    """Pre-training on the unlabelled split."""
    objective, name = pretrain_objective(config, setting.z_shape), f'{row}.pretrain'
    z0 = jnp.zeros((1, *setting.z_shape))
    params = jax.jit(objective.init)(setting.purpose(f'{name}.init'), z0)
    return _phase(
        config, config.pretrain, name, setting, objective, params, split='pretrain',
        balanced=False, evaluate=_leak_meter(config, objective, setting),
    )


def tune_phase(config: ConfigDict, row: str, setting: Setting, pretrained: dict | None) -> Phase:
    """Tuning on the labelled split, from pre-trained parameters or, with None, from random ones."""
    source, name = pretrain_objective(config, setting.z_shape), f'{row}.tune'
    objective = tune_objective(config, source, len(setting.classes))
    z0 = jnp.zeros((1, *setting.z_shape))
    params = jax.jit(objective.init)(setting.purpose(f'{name}.init'), z0)
    if pretrained is not None:
        means = None
        if config.tune.label_start == 'class_means':
            means = _class_means(config, source, pretrained, setting)
        params = {'denoiser': start_tuning(
            source.denoiser, pretrained['denoiser'], params['denoiser'],
            switch=config.tune.switch, label_start=config.tune.label_start, class_means=means,
        )}
    return _phase(
        config, config.tune, name, setting, objective, params, split='train',
        balanced=config.tune.balanced, evaluate=_validator(config, objective, setting),
    )


def _phase(
    config: ConfigDict, section: ConfigDict, name: str, setting: Setting, objective: Callable,
    params: dict, *, split: str, balanced: bool, evaluate: Callable,
) -> Phase:
    schedule = optim.learning_rate(
        section.learning_rate, section.warmup_steps, section.steps, section.decay
    )
    o = config.optim
    return Phase(
        name=name,
        loss_fn=objective,
        tx=optim.adamw(
            schedule, b1=o.b1, b2=o.b2, weight_decay=o.weight_decay, clip_norm=o.clip_norm
        ),
        params=params,
        frozen={'frontend': setting.frontend},
        iterator=pipeline.train_iterator(
            setting.splits[split], batch=section.batch // jax.process_count(), seed=config.seed,
            flip=config.data.flip, shift=config.data.shift, balanced=balanced,
            shard_index=jax.process_index(), shard_count=jax.process_count(),
        ),
        evaluate=evaluate,
        steps=section.steps,
        batch=section.batch,
        accumulate=o.accumulate,
        ema_decay=section.ema_decay,
        log_every=config.log_every,
        checkpoint_every=section.checkpoint_every,
        keep=config.keep_checkpoints,
    )


def map_split(function: Callable, split: Any, batch: int, mesh: Mesh, what: str = '') -> np.ndarray:
    """function(images, ids) over a split, in batches on the mesh, without the padding; stacked."""
    batch = -(-batch // mesh.size) * mesh.size  # every device gets equally many
    progress = Progress(len(split), what, 'images') if what else None
    outputs = []
    for host in pipeline.eval_batches(split, batch=batch):
        device = to_devices({'image': host['image'], 'id': host['id']}, mesh)
        outputs.append(np.asarray(function(device['image'], device['id']))[host['valid']])
        if progress:
            progress.update(int(host['valid'].sum()))
    return np.concatenate(outputs)


def _leak_meter(config: ConfigDict, objective: Pretrain, setting: Setting) -> Callable:
    """Validation losses with r kept and with r dropped: the gap is what r leaks of z0."""
    noise_key = setting.purpose('leak')

    @jax.jit
    def losses(params, images, ids):
        z0, keys = setting.frontend.encode(images), image_keys(noise_key, ids)
        eps = draw_noise(keys, jnp.int32(0), z0.shape[1:])
        steps = objective.schedule.steps
        t = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, steps))(keys)
        flags = jnp.zeros(z0.shape[:1], bool)
        kept = objective.losses(params, z0, t, eps, flags)
        return jnp.stack([kept, objective.losses(params, z0, t, eps, ~flags)], -1)  # (B, 2)

    def evaluate(params):
        def on_batch(images, ids):
            return losses(params, images, ids)

        values = map_split(
            on_batch, setting.splits['valid'], config.classify.batch, setting.mesh
        ).mean(0)
        if objective.encoder is None:
            return None, {'loss_dropped': values[1]}
        return None, {'loss_kept': values[0], 'loss_dropped': values[1]}

    return evaluate


def split_scorer(
    config: ConfigDict, objective: Tune, setting: Setting, draws: int
) -> tuple[np.ndarray, Callable]:
    """The step t of each draw (S,), and (params, split, what) -> errors (B, K, S) of a split.

    Every t of the config is drawn `draws` times; a score is a function of (image id, draw) alone.
    """
    t = np.tile(np.asarray(config.classify.t, np.int32), draws)
    scorer = make_scorer(objective.denoise, objective.schedule, t, config.classify.chunk)
    encode = jax.jit(lambda images: setting.frontend.encode(images))
    labels, noise_key = jnp.arange(len(setting.classes)), setting.purpose('score')

    def score(params, split: str, what: str = '') -> np.ndarray:
        def on_batch(images, ids):
            return scorer(params, labels, encode(images), ids, noise_key)

        return map_split(
            on_batch, setting.splits[split], config.classify.batch, setting.mesh, what
        )

    return t, score


def _validator(config: ConfigDict, objective: Tune, setting: Setting) -> Callable:
    """The tuning checkpoint's score: validation AUROC under the `inverse_sd` rule."""
    t, score = split_scorer(config, objective, setting, config.classify.select_draws)
    labels = labels_of(setting.splits['valid'])

    def evaluate(params):
        errors = score(params, 'valid')
        named = {rule.name: rule for rule in rules.candidates(objective.schedule, t, errors)}
        auroc = rules.auroc(named['inverse_sd'].scores(errors), labels)
        return auroc, {'valid_auroc': auroc}

    return evaluate


def labels_of(split: Any) -> np.ndarray:
    """The labels (B,) of a split in its own order."""
    return np.array([split[i]['label'] for i in range(len(split))])


def _class_means(
    config: ConfigDict, objective: Pretrain, params: dict, setting: Setting
) -> np.ndarray:
    """The mean pooled r of each class over the labelled training split, (K, D)."""

    @jax.jit
    def pooled(images):
        z0 = setting.frontend.encode(images)
        return represent(objective.encoder, params['encoder'], z0, 'pooled')

    split = setting.splits['train']
    r = map_split(
        lambda images, ids: pooled(images), split, config.classify.batch, setting.mesh
    )
    labels = labels_of(split)
    return jnp.stack([r[labels == k].mean(0) for k in range(len(setting.classes))])
