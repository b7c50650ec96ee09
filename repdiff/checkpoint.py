"""Checkpoints of a phase: Orbax, state and data iterator together, sealed against damage."""

import contextlib
import errno
import fcntl
import functools
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from repdiff import cluster, manifest, progress
from repdiff.errors import UserError
from repdiff.sharding import param_shardings

LOCK = '.lock'  # held by the process that writes in the directory

# The errors of Orbax's threads and tasks are logged, each with its traceback, and raised, too.
logging.getLogger('absl').addFilter(
    lambda record: record.levelno < logging.ERROR or 'orbax' not in record.pathname
)
logging.getLogger('asyncio').addFilter(
    lambda record: record.levelno < logging.ERROR or 'orbax' not in record.getMessage()
)


class Checkpoints:
    """The checkpoints of one phase in `directory`, which all hosts share, for who writes them.

    Keeps the `keep` newest, to resume from, and with each the one that had the best validation
    score by then. A checkpoint is written in the background under a temporary name, renamed, and
    sealed with a manifest of its files. Opening checks every file: a checkpoint that was torn by a
    kill or damaged later, or whose best one was, is moved to `DIRECTORY.damaged` with a warning,
    and the one before it is the newest. What follows a damaged best one is trained again, for among
    the rest another would be the best: damage costs time and never changes what a phase ends with.
    `newest` is a step, None where there is none.
    Raises UserError where another process has the directory open: what that one is still writing
    would look torn. `best_ema` reads beside it.
    """

    def __init__(self, directory: Path, keep: int):
        self._directory = Path(directory).absolute()
        self._lock = _lock(self._directory) if cluster.is_first() else None
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
        self._facts[step] = self._best(step, score)
        with _refusal(self._directory):
            if cluster.is_first():
                _try(self._directory, state)
            if step in self._manager.all_steps():
                self._manager.delete(step)
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

    def best_step(self) -> int | None:
        """The first step with the highest score, or the newest where none was scored."""
        best = None if self.newest is None else self._facts[self.newest]['best']
        return self.newest if best is None else best

    def wait(self) -> None:
        """Returns when all saved is on disk and sealed. Raises OSError where it cannot be."""
        with _refusal(self._directory):
            self._manager.wait_until_finished()
            if self._sealing:
                self._sealing.result()

    def close(self) -> None:
        """Finishes what is being written."""
        try:
            with _refusal(self._directory):
                self._manager.close()
        finally:
            self._closed.set()
            self._sealer.shutdown()
            if self._lock:
                self._lock.close()

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
        """Writes the manifest of `step` once it has its final name, which says that it is whole."""
        directory = self._directory / str(step)
        while not directory.exists() and not self._closed.wait(0.02):
            pass
        if directory.exists():  # else writing it failed
            manifest.seal(directory, **self._facts[step])


def best_ema(directory: Path, shapes: Any, mesh: Mesh) -> tuple[Any, int] | None:
    """The EMA parameters of a phase's best checkpoint, placed on the mesh, and its step.

    `shapes` are those of the parameters. None where `directory` has no checkpoint. Only reads, and
    of a checkpoint only this part: a run may be writing there, and what it has not sealed yet does
    not count. One that was damaged is passed over with a warning.
    """
    directory = Path(directory).absolute()
    facts = _newest_sound(directory) if cluster.is_first() else None
    best = -1 if facts is None else facts['step'] if facts['best'] is None else facts['best']
    best = int(cluster.of_first(np.int32(best)))
    if best < 0:
        return None
    target = {'ema': jax.tree.map(
        lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
        shapes, param_shardings(shapes, mesh),
    )}
    with contextlib.closing(ocp.PyTreeCheckpointer()) as reader:
        restored = reader.restore(directory / str(best) / 'state', args=ocp.args.PyTreeRestore(
            item=target, partial_restore=True,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        ))
    return restored['ema'], best


def _try(directory: Path, state: Any) -> None:
    """Sees that the disk has room for the state and that directories as deep as a checkpoint's can
    be made: threads of Orbax would print tracebacks or wait for minutes. Raises OSError."""
    disk, need = shutil.disk_usage(directory), sum(x.nbytes for x in jax.tree.leaves(state))
    if disk.total and disk.free < need:  # some mounts do not tell their size
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with tempfile.TemporaryDirectory(prefix='.', dir=directory) as place:
        os.makedirs(os.path.join(place, *'1234'))


@contextlib.contextmanager
def _refusal(directory: Path) -> Iterator[None]:
    """Turns what Orbax raises where the disk refuses into one kind: OSError, with `directory`."""
    try:
        yield
    except (OSError, ValueError) as error:  # TensorStore's is a ValueError
        code = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(code[1]) if code else getattr(error, 'errno', None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(directory)) from None


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


def _lock(directory: Path) -> IO | None:
    """Keeps other processes from writing in `directory` while it is open. None where that is not
    to be had: some shared file systems lock nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    file = open(directory / LOCK, 'w')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(
            f'another process is training in {str(directory)!r}; let it end, or choose another '
            '--workdir.'
        ) from None
    except OSError:
        file.close()
        return None
    return file


def _sound(directory: Path) -> dict[int, dict]:
    """The manifests' facts of the checkpoints that can be trusted, by step; moves others away."""
    check, sound, damaged = functools.cache(manifest.check), {}, {}
    for step in _steps(directory):
        try:
            sound[step] = _facts(directory, step, check)
        except manifest.Damaged as reason:
            damaged[step] = reason
    before = f'step {max(sound)}' if sound else 'the start of the phase'
    for step, reason in sorted(damaged.items()):
        _move_away(directory / str(step))
        progress.note(
            f'warning: the checkpoint {directory / str(step)} cannot be used: {reason}; it '
            f'was moved to {directory.name}.damaged, and the run goes on from {before}'
        )
    return sound


def _newest_sound(directory: Path) -> dict | None:
    """The facts of the newest checkpoint that can be trusted; None where there is none."""
    for step in sorted(_steps(directory), reverse=True):
        try:
            return _facts(directory, step, manifest.check)
        except manifest.Unfinished:
            pass  # it may be being written
        except manifest.Damaged as reason:
            progress.note(f'warning: the checkpoint {directory / str(step)} cannot be used: '
                          f'{reason}; the one before it is read')
    return None


def _facts(directory: Path, step: int, check: Callable[[Path], dict]) -> dict:
    """What the checkpoint of `step` was sealed with. Raises `Damaged` where it, or the best one by
    then, is not what was sealed."""
    facts = check(directory / str(step))
    best = facts['best']
    if facts['step'] != step:
        raise manifest.Damaged(f'it is that of step {facts["step"]}')
    if best not in (None, step):
        try:
            _facts(directory, best, check)
        except manifest.Damaged:
            raise manifest.Damaged(
                f'the best one by then, of step {best}, is missing or damaged') from None
    return facts


def _steps(directory: Path) -> list[int]:
    return [int(path.name) for path in directory.glob('[0-9]*') if path.name.isdigit()]


def _sealed(directory: Path) -> dict[int, dict]:
    """The facts of all checkpoints there are, once the first process has moved the others away."""
    return {step: manifest.facts(directory / str(step)) for step in _steps(directory)}


def _move_away(path: Path) -> None:
    place = path.parent.with_name(path.parent.name + '.damaged') / path.name
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
