"""Checkpoints of a phase: Orbax, state and data iterator together, sealed against damage."""

import contextlib
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from repdiff import cluster, manifest, progress
from repdiff.sharding import param_shardings


class Checkpoints:
    """The checkpoints of one phase in `directory`, which all hosts share.

    Keeps the `keep` newest, to resume from, and with each the one that had the best validation
    score by then. A checkpoint is written in the background under a temporary name, renamed, and
    sealed with a manifest of its files. Opening checks every file: a checkpoint that was torn by a
    kill or damaged later, or whose best one was, is moved to `DIRECTORY.damaged` with a warning,
    and the one before it is the newest. `newest` is a step, None where there is none.
    """

    def __init__(self, directory: Path, keep: int):
        self._directory = Path(directory).absolute()
        found = _sound(self._directory) if cluster.is_first() else {}
        cluster.wait_for_all('checkpoints')
        self._facts = found if cluster.is_first() else _sealed(self._directory)
        newest = int(cluster.of_first(np.int32(max(self._facts, default=-1))))
        self.newest = None if newest < 0 else newest
        self._manager = _Manager(
            self._directory,
            item_names=('state', 'progress'),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_Newest(keep, self._facts), cleanup_tmp_directories=True,
            ),
        )
        self._sealer = ThreadPoolExecutor(1)
        self._sealing: Future | None = None
        self._closed = threading.Event()

    def save(self, step: int, state: Any, progress: dict, score: float | None) -> None:
        """Saves after `step` steps; `progress` is JSON (iterator state, seconds), `score` ranks.

        Returns once the state is copied; writing goes on in the background.
        """
        self.wait()
        if step in self._manager.all_steps():
            self._manager.delete(step)
        self._facts[step] = self._best(step, score)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
            ),
        )
        self.newest = step
        if cluster.is_first():
            self._sealing = self._sealer.submit(self._seal, step)

    def restore(self, like: Any, step: int) -> tuple[Any, dict]:
        """(state, progress) of `step`, with the shapes and shardings of `like`, on any mesh."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(like), progress=ocp.args.JsonRestore()
            ),
        )
        return restored['state'], restored['progress']

    def restore_ema(self, like: Any) -> Any:
        """The EMA parameters alone of the best checkpoint, placed as `like`; None where there is none.

        The optimizer's state, twice as large, is not read.
        """
        step = self.best_step()
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, {'ema': like})
        restored = self._manager.restore(step, args=ocp.args.Composite(
            state=ocp.args.PyTreeRestore(
                item=target, partial_restore=True,
                restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            )
        ))
        return restored['state']['ema']

    def best_step(self) -> int | None:
        """The first step with the highest score, or the newest where none was scored."""
        best = None if self.newest is None else self._facts[self.newest]['best']
        return self.newest if best is None else best

    def wait(self) -> None:
        """Returns when everything saved is on disk and sealed."""
        self._manager.wait_until_finished()
        if self._sealing:
            self._sealing.result()

    def close(self) -> None:
        """Finishes what is being written."""
        try:
            self._manager.close()
        finally:
            self._closed.set()
            self._sealer.shutdown()

    def _best(self, step: int, score: float | None) -> dict:
        """What the manifest of `step` tells: the best step so far and its score."""
        facts = {'step': step, 'best': None, 'score': None}
        before = [known for known in self._facts if known < step]
        if before:
            facts |= {name: self._facts[max(before)][name] for name in ('best', 'score')}
        if score is not None and (facts['best'] is None or score > facts['score']):
            facts |= {'best': step, 'score': score}
        return facts

    def _seal(self, step: int) -> None:
        """Writes the manifest of `step` once it has its final name, which means that it is whole."""
        directory = self._directory / str(step)
        while not directory.exists() and not self._closed.wait(0.02):
            pass
        if directory.exists():  # else writing it failed
            manifest.seal(directory, **self._facts[step])


def best_ema(directory: Path, shapes: Any, mesh: Mesh) -> tuple[Any, int] | None:
    """The EMA parameters of a phase's best checkpoint, placed on the mesh, and its step.

    `shapes` are those of the parameters. None where `directory` has no checkpoint.
    """
    if not directory.is_dir():
        return None
    like = jax.tree.map(
        lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
        shapes, param_shardings(shapes, mesh),
    )
    with contextlib.closing(Checkpoints(directory, 1)) as checkpoints:
        found = checkpoints.restore_ema(like)
        return None if found is None else (found, checkpoints.best_step())


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which leaves it to `repdiff.interrupt` to ask about preemption."""

    def reached_preemption(self, step: int) -> bool:
        return False


class _Newest(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the `keep` newest checkpoints, and the best one that each of them refers to."""

    def __init__(self, keep: int, facts: dict[int, dict]):
        self._keep, self._facts = keep, facts

    def should_preserve(self, checkpoints: Sequence, *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(sorted(steps)[-self._keep:])
        kept |= {self._facts[step]['best'] for step in kept if step in self._facts}
        return [step in kept for step in steps]


def _sound(directory: Path) -> dict[int, dict]:
    """The manifests' facts of the checkpoints that can be trusted, by step; moves others away."""
    found, damaged = {}, {}
    for path in directory.glob('[0-9]*'):
        if path.name.isdigit():
            try:
                found[int(path.name)] = manifest.check(path)
            except manifest.Damaged as reason:
                damaged[int(path.name)] = str(reason)
    for step, facts in sorted(found.items()):
        if facts['step'] != step:
            damaged[step] = f'it is that of step {facts["step"]}'
        elif facts['best'] is not None and (facts['best'] not in found or facts['best'] in damaged):
            damaged[step] = f'the best one by then, of step {facts["best"]}, is missing or damaged'
    sound = {step: found[step] for step in found if step not in damaged}
    for step in sorted(damaged):
        _move_away(directory / str(step))
        before = f'step {max(sound)}' if sound else 'the start of the phase'
        progress.note(
            f'warning: the checkpoint {directory / str(step)} cannot be used: {damaged[step]}; it '
            f'was moved to {directory.name}.damaged, and the run goes on from {before}'
        )
    return sound


def _sealed(directory: Path) -> dict[int, dict]:
    """The facts of all checkpoints there are, once the first process has moved the others away."""
    return {
        int(path.name): manifest.facts(path)
        for path in directory.glob('[0-9]*') if path.name.isdigit()
    }


def _move_away(path: Path) -> None:
    place = path.parent.with_name(path.parent.name + '.damaged') / path.name
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
