"""A row's training steps and evaluator as shapes alone, for `plan` and checks of large models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from repdiff import methods, phases
from repdiff.compile import CompiledStep, compile_step, matmul_flops
from repdiff.latents.frontend import PatchBasis
from repdiff.methods import classify, denoise, distill
from repdiff.models.autoencoder import AutoencoderKL
from repdiff.objectives.augment import Augmentation
from repdiff.objectives.classify import Classify
from repdiff.step import TrainState, create_state, make_train_step
from repdiff.zeroshot.score import Scorer

LATENT_CHANNELS = 4  # of the Stable Diffusion VAE


@dataclass(frozen=True)
class AbstractPhase:
    """One phase's step and what it is called with, as ShapeDtypeStructs of all hosts together."""

    train_step: Callable
    tx: optax.GradientTransformation
    state: TrainState
    frozen: Any
    batch: dict[str, jax.ShapeDtypeStruct]

    def compile(self, mesh: Mesh) -> CompiledStep:
        """Compiles the step for a mesh; takes no memory for parameters or images."""
        return compile_step(self.train_step, self.state, self.frozen, self.batch, mesh)

    def flops(self) -> float:
        """Operations of the matrix products of one step, as traced."""
        return matmul_flops(
            jax.make_jaxpr(self.train_step)(self.state, self.frozen, self.batch, _key())
        )


def phase(config: ConfigDict, name: str, classes: int = 2) -> AbstractPhase:
    """`name` is 'pretrain' or 'tune'; `config` is one row's (`config.recipe`) that trains.

    DINOv2 encoders need `encoder.weights`, whose sizes are read. Raises UserError like `phases`.
    """
    section, z_shape = config[name], latent_shape(config)
    parts = _denoising if config.method == 'denoise' else _on_pixels
    objective, params, frozen = parts(config, name, classes)
    course = distill.course(config) if (config.method, name) == ('distill', 'pretrain') else {}
    tx = phases.optimizer(config, section, course.get('weight_decay'))
    return AbstractPhase(
        train_step=make_train_step(
            objective, tx, ema_decay=course.get('ema_decay', section.ema_decay),
            accumulate=config.optim.accumulate, reads=course.get('reads'),
            augment=Augmentation(**config.augmentation),
        ),
        tx=tx,
        state=jax.eval_shape(lambda params: create_state(params, tx), params),
        frozen=frozen,
        batch=_batch(config, section.batch, z_shape),
    )


def _denoising(config: ConfigDict, name: str, classes: int) -> tuple[Callable, dict, dict]:
    """Objective, parameters and frozen parts of a row that denoises."""
    z_shape = latent_shape(config)
    objective = denoise.pretrain_objective(config, z_shape)
    frozen = {'frontend': _frontend(config, z_shape)}
    params = jax.eval_shape(objective.init, _key(), _array((1, *z_shape)))
    if objective.pixels:
        shown = _array((1, objective.pixels.size, objective.pixels.size, 3))
        encoder = jax.eval_shape(objective.encoder.init, _key(), shown)['params']
        place = params if config.encoder.kind == 'dinov2_tuned' else frozen
        place['encoder'] = encoder
    if name == 'tune':
        objective = denoise.tune_objective(config, objective, classes)
        params = jax.eval_shape(objective.init, _key(), _array((1, *z_shape)))
        frozen.pop('encoder', None)
    return objective, params, frozen


def _on_pixels(config: ConfigDict, name: str, classes: int) -> tuple[Callable, dict, dict]:
    """Objective, parameters and frozen parts (none) of a row that classifies images."""
    objective = distill.objective(config) if name == 'pretrain' else _classifier(config, classes)
    shown = _array((1, *image_shape(config)))
    return objective, jax.eval_shape(objective.init, _key(), shown), {}


def _classifier(config: ConfigDict, classes: int) -> Classify:
    distilled = config.method == 'distill'
    network = (distill.objective(config).vit if distilled
               else classify.backbone(config, image_shape(config)[:2]))
    return classify.tune_objective(config, network, classes)


def logits_flops(config: ConfigDict, classes: int = 2) -> float:
    """Operations of the matrix products of one image's logits, in a row that classifies images."""
    objective, params, _ = _on_pixels(config, 'tune', classes)
    once = matmul_flops(
        jax.make_jaxpr(objective.logits)(params, _array((1, *image_shape(config)), jnp.uint8)))
    return 2 * once if config.augmentation.flip else once  # the mirror image answers, too


@dataclass(frozen=True)
class AbstractScorer:
    """The evaluator's program and what it is called with; a call is `passes` forward passes."""

    scorer: Callable
    arguments: tuple
    passes: int

    def flops(self) -> float:
        """Operations of the matrix products of one call, as traced."""
        return matmul_flops(jax.make_jaxpr(self.scorer)(*self.arguments))


def scorer(config: ConfigDict, mesh: Mesh, classes: int = 2) -> AbstractScorer:
    """The evaluator of a row's tuned denoiser, for one call. Raises UserError like `phases`."""
    z_shape, passes = latent_shape(config), config.classify.passes
    objective = denoise.tune_objective(config, denoise.pretrain_objective(config, z_shape), classes)
    made = Scorer(objective.denoise, objective.schedule, kinds=config.classify.kinds,
                  passes=passes, mesh=mesh)
    rows = {name: _array((passes,), jnp.int32) for name in ('class', 'draw', 't')}
    return AbstractScorer(
        made.program,
        (jax.eval_shape(objective.init, _key(), _array((1, *z_shape))),
         _array((classes,), jnp.int32), _key(), _array((passes, *z_shape)),
         rows | {'id': _array((passes, 2), jnp.uint32)}),
        passes,
    )


def latent_shape(config: ConfigDict) -> tuple[int, int, int]:
    """z0's (H, W, C) in a config."""
    latents, data = config.latents, config.data
    if latents.kind == 'sd_vae':
        side = data.image_size // AutoencoderKL().factor
        return side, side, LATENT_CHANNELS
    side = data.image_size // latents.patch
    kept = latents.patch**2 * data.channels if latents.kind == 'haar' else latents.channels
    return side, side, kept


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """An image's (H, W, C) in a config."""
    return config.data.image_size, config.data.image_size, config.data.channels


def _frontend(config: ConfigDict, z_shape: tuple[int, int, int]) -> PatchBasis | None:
    """None where z0 comes from the latent cache."""
    if config.latents.kind == 'sd_vae':
        return None
    pixels = config.latents.patch**2 * config.data.channels
    return PatchBasis(
        mean=_array((pixels,)), basis=_array((pixels, z_shape[2])), scale=_array(z_shape[2:]),
        patch=config.latents.patch,
    )


def _batch(config: ConfigDict, size: int, z_shape: tuple[int, int, int]) -> dict:
    batch = {'label': _array((size,), jnp.int32), 'id': _array((size, 2), jnp.uint32)}
    if config.latents.kind == 'sd_vae':
        batch['moments'] = _array((size, 2, 2, *z_shape))
    if config.latents.kind != 'sd_vae' or methods.room(config).sees_pixels(config):
        batch['image'] = _array((size, *image_shape(config)), jnp.uint8)
    return batch


def _array(shape: tuple[int, ...], dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))
