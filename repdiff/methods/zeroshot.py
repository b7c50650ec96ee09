"""Phase 3, zero-shot classification: choose on the validation split, then decide the test split."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repdiff import scores
from repdiff.diffusion.loss import PENALTIES
from repdiff.errors import UserError
from repdiff.latents.frontend import PatchBasis, to_unit
from repdiff.methods.row import Chosen, TrainedRow
from repdiff.objectives.denoise import Tune, latent
from repdiff.phases import Setting, map_split
from repdiff.zeroshot import rules, sequential
from repdiff.zeroshot.decision import Decision, decide
from repdiff.zeroshot.evaluator import Evaluator
from repdiff.zeroshot.sequential import Settings


def choose(
    config: ConfigDict, row: str, setting: Setting, trained: TrainedRow, workdir: Path
) -> Chosen:
    """The rule, the calibration and the cut of a tuned denoiser, chosen on validation.

    A sweep over t on validation gives the rule, and a first calibration and cut. With those the
    evaluator decides the validation images as it will decide the test images, and calibration and
    cut are fitted again, to scores made in the same way. What is computed is kept in
    scores/ROW.part until the row is done.
    """
    parts, params = scores.parts(workdir, row), trained.params
    evaluator = make_evaluator(config, trained.objective, setting)
    conditions, labels = np.arange(len(setting.classes)), setting.splits['valid'].labels()
    z0 = latents(config, setting, 'valid')

    def run(split: str, z0: tuple, decision: Decision) -> dict[str, np.ndarray]:
        found = evaluator.decide(
            params, conditions, *z0, decision, f'{row}.classify {split}', parts / split
        )
        return {f'{split}_{name}': value for name, value in vars(found).items()}

    arrays: dict[str, np.ndarray] = {'t': sweep_steps(config, config.classify.draws)}
    arrays['sweep_errors'] = evaluator.sweep(
        params, conditions, *z0, arrays['t'], f'{row}.classify sweep', parts / 'sweep'
    )
    rule, cross_fitted = rules.choose(
        trained.objective.schedule, arrays['t'], arrays['sweep_errors'], evaluator.kinds, labels,
        setting.patients,
        _training_errors(config, setting, evaluator, params, arrays['t'],
                         f'{row}.classify sweep of training images', parts / 'train'),
    )
    arrays['valid_readings'] = readings(config, setting, evaluator, params, 'valid', *z0)
    arrays |= run('valid', z0, decide(rule, cross_fitted, labels))
    decision = decide(rule, arrays['valid_scores'], labels)

    def answer(setting: Setting) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        found = run('test', latents(config, setting, 'test'), decision)
        curves = _auroc_over_draws(evaluator, decision, arrays | found, {
            split: setting.splits[split].labels() for split in ('valid', 'test')
        })
        return found, {'auroc_over_draws': curves}

    facts = {
        'dimensions': int(np.prod(setting.z_shape)),
        'draws': {'budget': config.classify.budget, 'alpha': config.classify.alpha},
    }
    return Chosen(decision, arrays, facts, answer)


def _training_errors(
    config: ConfigDict, setting: Setting, evaluator: Evaluator, params: Any, t: np.ndarray,
    what: str, record: Path,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Sweep errors and labels of evenly spaced labelled training images, where asked for."""
    labels = setting.splits['train'].labels()
    usable = np.flatnonzero(labels >= 0)
    count = min(config.classify.train_images, usable.size)
    if not count:
        return None
    chosen = usable[np.linspace(0, usable.size - 1, count).astype(int)]
    z0, ids = (part[chosen] for part in latents(config, setting, 'train'))
    conditions = np.arange(len(setting.classes))
    return evaluator.sweep(params, conditions, z0, ids, t, what, record), labels[chosen]


def _auroc_over_draws(
    evaluator: Evaluator, decision: Decision, arrays: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
) -> dict[str, list]:
    """AUROC on both splits had no image had more draws than this: {'draws', 'valid', 'test'}.

    Read from the one pass of each split: an image that was decided earlier keeps its score.
    """
    plan, most = evaluator.plan(decision), int(arrays['test_draws'].max())
    looks = [int(n) for n in (*plan.looks, plan.t.size) if n <= most]
    curves = {'draws': looks}
    for split in ('valid', 'test'):
        errors, drawn = arrays[f'{split}_errors'], arrays[f'{split}_draws']
        curves[split] = [
            rules.auroc(sequential.scores(
                decision.rule, plan, decision.offsets, errors, np.minimum(drawn, n)
            ), labels[split])
            for n in looks
        ]
    return curves


def readings(
    config: ConfigDict, setting: Setting, evaluator: Evaluator, params: Any, split: str,
    z0: np.ndarray, ids: np.ndarray,
) -> np.ndarray:
    """What `zeroshot.typicality` compares of a split's images with latents z0: (B, J) float32.

    The log error under the null class at each t of the config; before these, where the front end is
    a projection, the log of what it leaves out of the image.
    """
    null = np.array([len(setting.classes)])
    t = np.unique(sweep_steps(config, 1))
    errors = evaluator.sweep(params, null, z0, ids, t)[:, 0, :, 0]
    if not isinstance(setting.frontend, PatchBasis):
        return np.log(errors)
    lost = map_split(
        functools.partial(_left_out, setting.frontend), setting.splits[split],
        config.classify.batch, setting.mesh,
    )
    return np.log(np.concatenate([lost[:, None], errors], 1))


@jax.jit
def _left_out(front: PatchBasis, batch: dict) -> jax.Array:
    """Mean square of what z0 leaves out of each image (B,), on the scale [−1, 1], kept above 0."""
    lost = front.decode(front.encode(batch['image'])) - to_unit(batch['image'])
    return jnp.square(lost).mean((1, 2, 3)) + 1e-5


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
