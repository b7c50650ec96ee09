"""The training loop of every phase and objective: restore, step, log, evaluate, checkpoint."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import optax
from clu import metrics, parameter_overview
from jax.sharding import Mesh

from repdiff import cluster, interrupt
from repdiff.checkpoint import Checkpoints
from repdiff.compile import compile_step
from repdiff.errors import UserError
from repdiff.files import write_atomic
from repdiff.logbook import Logbook
from repdiff.progress import Progress, note
from repdiff.sharding import state_shardings, to_all, to_devices
from repdiff.step import Augment, LossFn, TrainState, create_state, make_train_step


@dataclass(frozen=True)
class Phase:
    """One phase of training, ready to run.

    name: directory and log name; loss_fn, tx, params (start), frozen (what the loss reads and never
    changes); iterator: endless host batches with get_state/set_state; evaluate: EMA parameters ->
    (validation score or None, scalars), called at every checkpoint; steps, batch (images a step
    over all hosts), accumulate, ema_decay, log_every and checkpoint_every in steps; keep: newest
    checkpoints kept; augment and reads: see `make_train_step`.
    """

    name: str
    loss_fn: LossFn
    tx: optax.GradientTransformation
    params: Any
    frozen: Any
    iterator: Iterator
    evaluate: Callable[[Any], tuple[float | None, dict[str, float]]]
    steps: int
    batch: int
    accumulate: int
    ema_decay: float | optax.Schedule
    log_every: int
    checkpoint_every: int
    keep: int
    augment: Augment | None = None
    reads: Callable[[TrainState], dict] | None = None


@dataclass(frozen=True)
class Trained:
    """What a phase leaves: the EMA parameters of its best checkpoint, that step, and its cost.

    parameters: how many it trained. images: how many it saw, repeats counted. flops: operations of
    all steps' matrix products; None where an earlier version of repdiff left them out.
    """

    params: Any
    step: int
    seconds: float
    parameters: int
    images: int
    flops: float | None


def train(phase: Phase, *, workdir: Path, mesh: Mesh, key: jax.Array) -> Trained:
    """Runs `phase` to its last step, from its newest checkpoint if there is one.

    A phase that has reached its last step is only read back. Raises UserError when the loss stops
    being finite, the last good checkpoint staying, and `Interrupted` after a signal
    (`repdiff.interrupt`), with a checkpoint of the step that it came in.
    """
    shapes = _like(phase, mesh)
    # Closing waits for what is still being written, also when the run is stopped by an error.
    directory = workdir / 'checkpoints' / phase.name
    with contextlib.closing(Checkpoints(directory, phase.keep)) as checkpoints:
        run = _Run(phase, shapes, checkpoints, workdir, mesh)
        if not run.finished():
            with interrupt.deferred():
                run.to_the_end(key)
        best = checkpoints.best_step()
        state, _ = checkpoints.restore(shapes, best)
    parameters = int(parameter_overview.count_parameters(shapes.params))
    return Trained(
        state.ema, best, run.seconds, parameters, phase.steps * phase.batch,
        None if run.flops is None else run.flops * phase.steps,
    )


def _like(phase: Phase, mesh: Mesh) -> TrainState:
    """The shapes and shardings of the phase's state, without its memory."""
    shapes = jax.eval_shape(lambda params: create_state(params, phase.tx), phase.params)
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes, state_shardings(shapes, mesh),
    )


class _Run:
    """One phase on its way: its state, its place in the data, and what is not logged yet."""

    def __init__(self, phase: Phase, shapes: TrainState, checkpoints: Checkpoints, workdir: Path,
                 mesh: Mesh):
        self.phase, self.checkpoints, self.workdir, self.mesh = phase, checkpoints, workdir, mesh
        self.step, self.seconds, self.flops = 0, 0.0, 0.0  # flops of one step
        self.evaluated = phase.steps > 0  # without steps the start is evaluated
        self.pending: list[dict] = []  # scalars of the steps since the last log line
        if checkpoints.newest is None:
            shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
            start = jax.jit(lambda params: create_state(params, phase.tx), out_shardings=shardings)
            self.state = start(phase.params)
            self.position = phase.iterator.get_state()
        else:
            self.step = checkpoints.newest
            self.state, record = checkpoints.restore(shapes, self.step)
            self.seconds, self.evaluated = record['seconds'], record['evaluated']
            self.flops = record.get('flops')
            self.pending, self.position = record['pending'], record['iterator']
            phase.iterator.set_state(self.position)

    def finished(self) -> bool:
        """Whether the last step is done and evaluated."""
        return self.step == self.phase.steps and self.evaluated

    def to_the_end(self, key: jax.Array) -> None:
        """The loop: a batch ahead on the devices, at most one step ahead of the host."""
        phase, mesh = self.phase, self.mesh
        if self.step == 0 and cluster.is_first():
            overview = parameter_overview.get_parameter_overview(
                self.state.params, include_stats=False
            )
            write_atomic(self.workdir / f'parameters.{phase.name}.txt', overview + '\n')
        self.progress = Progress(phase.steps, phase.name, 'steps', done=self.step)
        self.began, self.earlier = time.monotonic(), self.seconds
        frozen = to_all(phase.frozen, mesh)
        key = to_all(key, mesh)
        self.logged, self.logged_at = self.step - len(self.pending), self.began
        with Logbook(self.workdir, phase.name, self.step) as self.log:
            if not self.evaluated:
                self.evaluate()
            if self.step < phase.steps:
                self.take_steps(frozen, key)
            self.checkpoints.wait()

    def take_steps(self, frozen: Any, key: jax.Array) -> None:
        """The steps that are left."""
        phase, following = self.phase, self.read()
        step_fn = self.compiled(frozen, following[0])
        while self.step < phase.steps:
            batch, position = following
            self.state, scalars = step_fn(self.state, frozen, batch, key)
            self.step, self.position = self.step + 1, position
            following = self.read()
            if self.pending:
                jax.block_until_ready(self.pending[-1])
            self.pending.append(scalars)
            self.after_step()

    def read(self) -> tuple[dict[str, jax.Array], dict]:
        """The next batch, on its way to the devices, and the iterator's state after it."""
        batch = to_devices(next(self.phase.iterator), self.mesh)
        return batch, self.phase.iterator.get_state()

    def compiled(self, frozen: Any, batch: dict[str, jax.Array]) -> Callable:
        """The step, compiled; says what that took and what a step costs."""
        phase = self.phase
        train_step = make_train_step(
            phase.loss_fn, phase.tx, ema_decay=phase.ema_decay, accumulate=phase.accumulate,
            augment=phase.augment, reads=phase.reads,
        )
        compiled = compile_step(train_step, self.state, frozen, batch, self.mesh)
        note(f'{phase.name}: {compiled}')
        self.flops = compiled.flops
        self.logged_at = time.monotonic()
        return compiled.call

    def after_step(self) -> None:
        """Logs, evaluates and checkpoints where it is time to, and stops where that is asked."""
        phase, step = self.phase, self.step
        stop, last = interrupt.requested(), step == phase.steps
        due = step % phase.checkpoint_every == 0 or last
        if due or step % phase.log_every == 0:
            means = _means(self.pending, phase, step)
            self.pending, now = [], time.monotonic()
            rate = (step - self.logged) * phase.batch / (now - self.logged_at)
            self.log.write(step, **means, images_per_second=rate)
            self.progress.update(step - self.progress.done, loss=means['loss'])
            self.logged, self.logged_at = step, now
        if due or stop:
            self.check_state()
        if due:
            self.evaluate()
            self.logged_at = time.monotonic()
        elif stop:
            self.stop()

    def check_state(self) -> None:
        """Raises UserError where an update of a finite loss left parameters that are not."""
        if not _finite((self.state.params, self.state.ema)):
            raise _not_finite(self.phase, 'a parameter', self.step)

    def evaluate(self) -> None:
        """Evaluates at this step and saves a checkpoint with the score."""
        try:
            score, values = self.phase.evaluate(self.state.ema)
        except interrupt.Interrupted:
            self.evaluated = False
            self.stop()
        self.evaluated = True
        self.log.write(self.step, **values)
        self.save(score)

    def save(self, score: float | None) -> None:
        """A checkpoint of all that the next step depends on, written in the background."""
        self.seconds = self.earlier + time.monotonic() - self.began
        pending = [{name: float(value) for name, value in scalars.items()}
                   for scalars in jax.device_get(self.pending)]
        self.checkpoints.save(self.step, self.state, {
            'iterator': self.position, 'seconds': self.seconds, 'evaluated': self.evaluated,
            'pending': pending, 'flops': self.flops,
        }, score)

    def stop(self) -> NoReturn:
        """Saves this step, waits until that is on disk, and leaves."""
        self.save(None)
        self.checkpoints.wait()
        note(f'{self.phase.name}: stopped after step {self.step}; the same command resumes')
        raise interrupt.Interrupted


def _means(pending: list[dict], phase: Phase, step: int) -> dict[str, float]:
    """The mean of each scalar over the steps since the last log; stops the run at a NaN."""
    steps = jax.device_get(pending)
    means = {}
    for name in steps[0]:
        values = np.array([scalars[name] for scalars in steps], np.float32)
        means[name] = float(metrics.Average.from_model_output(values).compute())
    if not np.isfinite(means['loss']):
        raise _not_finite(phase, 'the loss', step)
    return means


@jax.jit
def _finite(tree: Any) -> jax.Array:
    return jax.numpy.stack([jax.numpy.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _not_finite(phase: Phase, what: str, step: int) -> UserError:
    return UserError(
        f'{phase.name}: {what} is not finite at or before step {step}; the checkpoint before it is '
        'kept. Lower the learning rate, clip harder or compute in float32, and use a new workdir.'
    )
