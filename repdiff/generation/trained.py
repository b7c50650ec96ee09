"""A trained row read back from its workdir: its networks, and the denoisers that samplers call."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from repdiff import config as configs
from repdiff import phases, published
from repdiff.checkpoint import best_ema
from repdiff.diffusion.guidance import guided, within
from repdiff.diffusion.loss import DenoiseFn
from repdiff.errors import UserError
from repdiff.methods import denoise
from repdiff.objectives.denoise import Pretrain, Tune, latent

# (params, condition (B, ...)) -> DenoiseFn
Conditioned = Callable[[Any, jax.Array | None], DenoiseFn]


@dataclass(frozen=True)
class Trained:
    """One row. `params` and `steps`: those of 'pretrain' (None where there was none) and 'tune'.

    `frozen` is what the networks read beside their parameters: front end, frozen DINOv2.
    """

    row: str
    config: ConfigDict
    pretrain: Pretrain
    tune: Tune
    params: dict[str, Any]
    steps: dict[str, int | None]
    frozen: dict[str, Any]

    @property
    def learned_r(self) -> bool:
        """Whether the row's denoiser takes r."""
        return self.params['pretrain'] is not None and self.pretrain.encoder is not None

    @property
    def learned_nothing_given(self) -> bool:
        """Whether the row's pre-trained denoiser works without a condition."""
        free = self.pretrain.encoder is None or self.pretrain.drop_rate > 0
        return self.params['pretrain'] is not None and free

    def represent(self, params: Any, frozen: dict, batch: dict[str, jax.Array]) -> jax.Array:
        """r of a batch of images (B, ...)."""
        return self.pretrain.represent(params['pretrain'], frozen, batch, latent(frozen, batch))

    def free(self, params: Any, condition: jax.Array | None = None) -> DenoiseFn:
        """The pre-trained denoiser without a condition, r dropped; `condition` is not looked at."""
        weights = params['pretrain']['denoiser']
        return lambda z_t, t: self.pretrain.denoiser.apply({'params': weights}, z_t, t)

    def given_r(self, scale: float) -> Conditioned:
        """The pre-trained denoiser under r, guided."""

        def conditioned(params, r):
            def conditional(z_t, t):
                weights = params['pretrain']['denoiser']
                return self.pretrain.denoiser.apply({'params': weights}, z_t, t, r)

            return guided(conditional, self.free(params), scale)

        return conditioned

    def given_label(self, scale: float) -> Conditioned:
        """The tuned denoiser under labels (B,), guided, at the steps that it was tuned on.

        At other steps, where tuning let it drift, the pre-trained denoiser without a condition;
        the tuned one where there is none.
        """
        t_range, steps = self.tune.t_range, self.pretrain.schedule.steps

        def conditioned(params, label):
            def conditional(z_t, t):
                return self.tune.denoise(params['tune'], z_t, t, label)

            if not self.learned_nothing_given:
                return conditional
            steered = guided(conditional, self.free(params), scale)
            if t_range[0] <= 0 and t_range[1] >= steps:
                return steered
            return within(t_range, steered, self.free(params))

        return conditioned


def load(workdir: Path, config: ConfigDict, row: str, setting: phases.Setting) -> Trained:
    """A row with the EMA parameters of its phases' best checkpoints.

    Raises UserError where the workdir has no such row or the row is not trained yet.
    """
    if row not in config.rows:
        raise UserError(f'--row: {workdir} has no row {row!r}; it has {", ".join(config.rows)}.')
    recipe = configs.recipe(config, row)
    if recipe.method != 'denoise':
        raise UserError(f'--row: {row!r} generates nothing (method {recipe.method!r}); choose a '
                        'row that denoises.')
    pretrain = denoise.pretrain_objective(recipe, setting.z_shape)
    tune = denoise.tune_objective(recipe, pretrain, len(setting.classes))
    frozen = denoise.frozen_parts(recipe, setting)
    params, steps = {}, {}
    for name, objective in (('pretrain', pretrain), ('tune', tune)):
        if recipe[name].steps:
            source = recipe.pretrain.get('row') or row if name == 'pretrain' else row
            params[name], steps[name] = _ema(
                workdir / 'checkpoints' / f'{source}.{name}', objective, recipe, setting)
        else:
            params[name], steps[name] = None, None
    return Trained(row, recipe, pretrain, tune, params, steps, frozen)


def _ema(
    directory: Path, objective: Pretrain | Tune, config: ConfigDict, setting: phases.Setting
) -> tuple[Any, int]:
    """The EMA parameters of a phase's best checkpoint, on the mesh, and its step."""
    shapes = jax.eval_shape(objective.init, jax.random.key(0), jnp.zeros((1, *setting.z_shape)))
    if isinstance(objective, Pretrain) and objective.pixels and (
            config.encoder.kind == 'dinov2_tuned'):
        shapes['encoder'] = published.encoder_params(config)
    found = best_ema(directory, shapes, setting.mesh)
    if found is not None:
        return found
    raise UserError(f'{directory} has no checkpoint; let python -m repdiff.main finish the run '
                    'first.')
