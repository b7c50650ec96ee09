"""Phase 3, zero-shot classification: choose on the validation split, then decide the test split."""

import functools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from repdiff import cluster, phases
from repdiff.files import write_json, write_npz
from repdiff.latents.frontend import PatchBasis, to_unit
from repdiff.objectives.denoise import Tune
from repdiff.zeroshot import rules, sequential
from repdiff.zeroshot.decision import Decision, decide
from repdiff.zeroshot.evaluator import Evaluator


def score(
    config: ConfigDict, row: str, setting: phases.Setting, dataset, workdir: Path, objective: Tune,
    params: Any, facts: dict,
) -> None:
    """Writes scores/ROW.npz and scores/ROW.rule.json, then scores/ROW.json: the row is scored.

    A sweep over t on validation gives the rule, and a first calibration and cut. With those the
    evaluator decides the validation images as it will decide the test images, and calibration and
    cut are fitted again, to scores made in the same way; then it decides the test images. What is
    computed is kept in scores/ROW.part until the end.
    """
    began, parts = time.monotonic(), workdir / 'scores' / f'{row}.part'
    evaluator = phases.make_evaluator(config, objective, setting)
    conditions = np.arange(len(setting.classes))
    arrays: dict[str, np.ndarray] = {'t': phases.sweep_steps(config, config.classify.draws)}
    z0 = {}
    for split in ('valid', 'test'):
        z0[split] = phases.latents(config, setting, split)
        loaded = dataset.load(split)
        for name in ('label', 'id', 'patient'):
            arrays[f'{split}_{name}s'] = loaded[name]

    def run(split: str, decision: Decision) -> np.ndarray:
        found = evaluator.decide(
            params, conditions, *z0[split], decision, f'{row}.classify {split}', parts / split
        )
        arrays.update({f'{split}_{name}': value for name, value in vars(found).items()})
        return found.scores

    labels = arrays['valid_labels']
    arrays['sweep_errors'] = evaluator.sweep(
        params, conditions, *z0['valid'], arrays['t'], f'{row}.classify sweep', parts / 'sweep'
    )
    rule, cross_fitted = rules.choose(
        objective.schedule, arrays['t'], arrays['sweep_errors'], evaluator.kinds, labels,
        _training_errors(config, setting, evaluator, params, arrays['t'], parts / 'train'),
    )
    arrays['valid_readings'] = readings(
        config, setting, evaluator, params, 'valid', *z0['valid']
    )
    decision = decide(rule, cross_fitted, labels)
    decision = decide(rule, run('valid', decision), labels)
    run('test', decision)
    if not cluster.is_first():
        return
    write_npz(workdir / 'scores' / f'{row}.npz', **arrays)
    write_json(workdir / 'scores' / f'{row}.rule.json', decision.to_json())
    facts = facts | {
        'dimensions': int(np.prod(setting.z_shape)),
        'draws': {'budget': config.classify.budget, 'alpha': config.classify.alpha},
        'auroc_over_draws': _auroc_over_draws(evaluator, decision, arrays),
        'eval_seconds': time.monotonic() - began,
    }
    write_json(workdir / 'scores' / f'{row}.json', facts)
    shutil.rmtree(parts)


def _training_errors(
    config: ConfigDict, setting: phases.Setting, evaluator: Evaluator, params: Any, t: np.ndarray,
    record: Path,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Sweep errors and labels of evenly spaced labelled training images, where they are asked for."""
    labels = setting.splits['train'].labels()
    usable = np.flatnonzero(labels >= 0)
    count = min(config.classify.train_images, usable.size)
    if not count:
        return None
    chosen = usable[np.linspace(0, usable.size - 1, count).astype(int)]
    z0, ids = (part[chosen] for part in phases.latents(config, setting, 'train'))
    conditions = np.arange(len(setting.classes))
    return evaluator.sweep(params, conditions, z0, ids, t, record=record), labels[chosen]


def _auroc_over_draws(
    evaluator: Evaluator, decision: Decision, arrays: dict[str, np.ndarray]
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
            ), arrays[f'{split}_labels'])
            for n in looks
        ]
    return curves


def read_decision(workdir: Path, row: str) -> Decision:
    """The decision that `score` chose for a row."""
    return Decision.from_json(json.loads((workdir / 'scores' / f'{row}.rule.json').read_text()))


def readings(
    config: ConfigDict, setting: phases.Setting, evaluator: Evaluator, params: Any, split: str,
    z0: np.ndarray, ids: np.ndarray,
) -> np.ndarray:
    """What `zeroshot.typicality` compares of a split's images with latents z0: (B, J) float32.

    The log error under the null class at each t of the config; before these, where the front end is
    a projection, the log of what it leaves out of the image.
    """
    null = np.array([len(setting.classes)])
    errors = evaluator.sweep(params, null, z0, ids, np.unique(phases.sweep_steps(config, 1)))[:, 0, :, 0]
    if not isinstance(setting.frontend, PatchBasis):
        return np.log(errors)
    lost = phases.map_split(
        functools.partial(_left_out, setting.frontend), setting.splits[split],
        config.classify.batch, setting.mesh,
    )
    return np.log(np.concatenate([lost[:, None], errors], 1))


@jax.jit
def _left_out(front: PatchBasis, batch: dict) -> jax.Array:
    """Mean square of what z0 leaves out of each image (B,), on the scale [−1, 1], kept above 0."""
    lost = front.decode(front.encode(batch['image'])) - to_unit(batch['image'])
    return jnp.square(lost).mean((1, 2, 3)) + 1e-5
