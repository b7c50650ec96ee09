"""A finished row read back from its workdir, to answer new images: no training data needed.

The main job leaves here what a checkpoint does not hold: how images were prepared
(`preparation.json`) and the front end that was fitted on them (`frontend.npz`).
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from repdiff import config as configs
from repdiff import phases, published, scores, sharding
from repdiff.checkpoint import best_ema
from repdiff.data import arrange, pipeline
from repdiff.data.settings import RENDERED, DataSettings
from repdiff.errors import UserError
from repdiff.files import read_json, read_npz, write_json, write_npz
from repdiff.latents.frontend import PatchBasis
from repdiff.latents.vae import Vae
from repdiff.methods import denoise, zeroshot
from repdiff.objectives.denoise import Tune
from repdiff.zeroshot.decision import Decision
from repdiff.zeroshot.typicality import Typicality

RESUMABLE = ('mesh', 'cache', 'keep_checkpoints')  # keys that may change when a run is resumed
PREPARATION, FRONTEND = 'preparation.json', 'frontend.npz'
_ANEW = 'run the main job again, which writes it anew'
_ABOUT = ('name', 'simulated', 'classes', 'image_size', 'channels')


def keep(workdir: Path, info: dict, front: PatchBasis | Vae) -> None:
    """Writes how the images of a data set were prepared, and a fitted front end."""
    write_json(workdir / PREPARATION, preparation(info))
    if isinstance(front, PatchBasis):
        write_npz(workdir / FRONTEND, mean=front.mean, basis=front.basis, scale=front.scale,
                  patch=front.patch)


def preparation(info: dict) -> dict[str, Any]:
    """How the images of a data set were prepared, of its `prepare.json`."""
    return {key: info[key] for key in _ABOUT} | {key: info['settings'][key] for key in RENDERED}


def data_settings(about: dict[str, Any], seed: int, window: str = '') -> DataSettings:
    """What prepares new files as a `preparation` tells, as the data room takes it.

    `window`, of HU, stands in for the preparation's own.
    """
    data = configs.base().data.to_dict()
    for name in arrange.KEYS:
        del data[name]
    data |= {name: about[name] for name in ('image_size', 'channels', *RENDERED)}
    data |= {'window': window} if window else {}
    return DataSettings(**data | {'simulated': None, 'source': '/'}, name=about['name'], files=(),
                        seed=seed)


@dataclass(frozen=True)
class FinishedRow:
    """One row, ready for new images.

    config: the row's. preparation: name, classes, image_size, channels, window, ... of its data.
    setting: mesh, classes, front end and the run's key; no splits. objective, params, step: the
    tuned denoiser of that step. decision: what was chosen on validation. typicality: of images.
    """

    name: str
    config: ConfigDict
    preparation: dict[str, Any]
    setting: phases.Setting
    objective: Tune
    params: dict
    step: int
    decision: Decision
    typicality: Typicality

    def about(self) -> dict[str, Any]:
        """What predictions say of the row, as JSON."""
        return {
            'row': self.name, 'step': self.step, 'data': self.preparation['name'],
            'simulated': self.preparation['simulated'], 'classes': list(self.setting.classes),
            'rule': self.decision.rule.name, 'threshold': self.decision.cut,
            'seed': self.config.seed,
        }

    def identity(self) -> dict[str, Any]:
        """What tells this row's answers from any other's, as JSON."""
        config = json.loads(self.config.to_json())
        config = {key: value for key, value in config.items() if key not in RESUMABLE}
        parts = [config, self.preparation, self.decision.to_json()]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        for leaf in jax.tree.leaves((self.params, self.setting.frontend)):
            digest.update(np.ascontiguousarray(leaf))
        return self.about() | {'fingerprint': digest.hexdigest()}


def config_of(workdir: Path) -> ConfigDict:
    """The config of a run. Raises UserError where `workdir` is none, or all folds', or is old."""
    path = workdir / 'config.json'
    try:
        found = read_json(path, 'run the main job again in a new workdir')
    except OSError:
        raise UserError(f'--workdir: {str(workdir)!r} has no config.json; give the workdir of a '
                        'run of python -m repdiff.main.') from None
    known = configs.base().to_dict()
    for key in [key for section in known for key in _odd(section, known, found)]:
        raise UserError(f'{path} is of another version of repdiff, with other keys ({key}); use '
                        'that version, or run the main job again in a new workdir.')
    if found['eval']['folds'] and found['eval']['fold'] < 0:
        raise UserError(f'--workdir: {str(workdir)!r} pools the folds of a run and has no rows of '
                        f'its own; give one fold, such as --workdir={workdir / "fold-0"}.')
    return ConfigDict(found)


def _odd(section: str, known: dict, found: dict) -> list[str]:
    """The keys of a section, and the section itself, that one of two configs lacks."""
    if section not in found:
        return [section]
    if section == 'recipes' or not isinstance(known[section], dict):
        return []  # recipes hold what they change
    return [f'{section}.{key}' for key in sorted(known[section].keys() ^ found[section].keys())]


def load(workdir: Path, row: str, mesh: Mesh) -> FinishedRow:
    """What `row` of a finished run became; '' is the first of its rows.

    Raises UserError where the workdir lacks a part, is of another version or has no such row.
    """
    whole = config_of(workdir)
    row = row or whole.rows[0]
    if row not in whole.rows:
        raise UserError(f'--row: {workdir} has no row {row!r}; it has {", ".join(whole.rows)}.')
    config, about = configs.recipe(whole, row), _json(workdir / PREPARATION)
    if config.method != 'denoise':
        raise UserError(f'--row: {row!r} is no denoiser but a row to compare with '
                        f'(method {config.method!r}); choose a row that denoises.')
    front = sharding.to_all(_frontend(workdir, config, about['channels']), mesh)
    shape = (1, about['image_size'], about['image_size'], about['channels'])
    z_shape = jax.eval_shape(front.encode, jax.ShapeDtypeStruct(shape, np.uint8)).shape[1:]
    classes = tuple(about['classes'])
    setting = phases.Setting(mesh, {}, classes, front, z_shape, jax.random.key(config.seed),
                             np.zeros(0, str))
    objective = denoise.tune_objective(
        config, denoise.pretrain_objective(config, z_shape), len(classes)
    )
    params, step = _params(workdir, row, objective, z_shape, mesh)
    if not scores.is_done(workdir, row):
        raise _unfinished(workdir / 'scores' / f'{row}.json')
    arrays, decision, _ = scores.read(workdir, row)
    return FinishedRow(row, config, about, setting, objective, params, step, decision,
                       Typicality(arrays['valid_readings']))


class Desk:
    """Answers of a finished row to records: dicts with image (H, W, C) uint8, label, and id str."""

    def __init__(self, row: FinishedRow):
        self._row, self._splits = row, {}
        self._setting = dataclasses.replace(row.setting, splits=self._splits)
        self._evaluator = zeroshot.make_evaluator(row.config, row.objective, self._setting)

    def answer(self, records: Sequence[dict]) -> list[dict[str, Any]]:
        """Of each record its class, probabilities, draws, seconds and typicality, as JSON."""
        row, began = self._row, time.monotonic()
        self._splits['new'] = pipeline.examples(records)
        z0, ids = zeroshot.latents(row.config, self._setting, 'new')
        conditions = np.arange(len(row.setting.classes))
        found = self._evaluator.decide(row.params, conditions, z0, ids, row.decision)
        readings = zeroshot.readings(
            row.config, self._setting, self._evaluator, row.params, 'new', z0, ids
        )
        probabilities = row.decision.calibration.probabilities(found.scores)
        called, draws = row.decision.classify(found.scores), found.draws.max(1)
        odd, far = row.typicality.p_values(readings), row.typicality.far(readings)
        # An image's share of the time is its share of the draws.
        seconds = (time.monotonic() - began) * found.draws.sum(1) / found.draws.sum()
        return [{
            'content': record['id'],
            'prediction': int(called[i]),
            'class': row.setting.classes[called[i]],
            'probabilities': [_rounded(p) for p in probabilities[i]],
            'draws': int(draws[i]),
            'seconds': round(float(seconds[i]), 4),
            'typicality': _rounded(odd[i]),
            'far': bool(far[i]),
            'evidence_pixels': None,
            'overlay': None,
        } for i, record in enumerate(records)]


def _rounded(value: float) -> float:
    return float(f'{value:.6g}')


def _params(
    workdir: Path, row: str, objective: Tune, z_shape: tuple[int, int, int], mesh: Mesh
) -> tuple[dict, int]:
    """The EMA parameters of the row's best tuning checkpoint, and its step."""
    shapes = jax.eval_shape(
        objective.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *z_shape), np.float32)
    )
    directory = workdir / 'checkpoints' / f'{row}.tune'
    found = best_ema(directory, shapes, mesh)
    if found is None:
        raise _unfinished(directory)
    return found


def _frontend(workdir: Path, config: ConfigDict, channels: int) -> PatchBasis | Vae:
    if config.latents.kind == 'sd_vae':
        return published.vae(config, channels)
    path = workdir / FRONTEND
    if not path.exists():
        raise _unfinished(path)
    arrays = read_npz(path, _ANEW)
    return PatchBasis(
        *(jax.numpy.asarray(arrays[name]) for name in ('mean', 'basis', 'scale')),
        patch=int(arrays['patch']),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, _ANEW)
    except OSError:
        raise _unfinished(path) from None


def _unfinished(path: Path) -> UserError:
    return UserError(
        f'--workdir: {str(path)!r} is missing; give the workdir of a finished run of '
        'python -m repdiff.main, or let that run finish.'
    )
