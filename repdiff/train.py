"""The training loop, one for every phase and objective: restore, step, log, evaluate, checkpoint."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from clu import metrics, parameter_overview
from jax.sharding import Mesh

from repdiff.checkpoint import Checkpoints
from repdiff.errors import UserError
from repdiff.logbook import Logbook
from repdiff.progress import Progress
from repdiff.sharding import replicated, state_shardings, to_devices
from repdiff.step import LossFn, TrainState, create_state, jit_train_step, make_train_step


@dataclass(frozen=True)
class Phase:
    """One phase of training, ready to run.

    name: directory and log name; loss_fn, tx, params (start), frozen (what the loss reads and never
    changes); iterator: endless host batches with get_state/set_state; evaluate: EMA parameters ->
    (validation score or None, scalars), called at every checkpoint; steps, batch (images a step
    over all hosts), accumulate, ema_decay, log_every and checkpoint_every in steps; keep: newest
    checkpoints kept.
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
    ema_decay: float
    log_every: int
    checkpoint_every: int
    keep: int


@dataclass(frozen=True)
class Trained:
    """What a phase leaves: the EMA parameters of its best checkpoint, that step, and its cost."""

    params: Any
    step: int
    seconds: float
    parameters: int


def train(phase: Phase, *, workdir: Path, mesh: Mesh, key: jax.Array) -> Trained:
    """Runs `phase` to its last step, from its newest checkpoint if there is one.

    A phase that has reached its last step is only read back. Raises UserError when the loss stops
    being finite; the last good checkpoint stays.
    """
    shapes = _like(phase, mesh)
    shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
    state = jax.jit(lambda params: create_state(params, phase.tx), out_shardings=shardings)(
        phase.params
    )
    parameters = int(parameter_overview.count_parameters(state.params))
    seconds = 0.0
    # Closing waits for what is still being written, also when the run is stopped by an error.
    directory = workdir / 'checkpoints' / phase.name
    with contextlib.closing(Checkpoints(directory, phase.keep)) as checkpoints:
        restored = checkpoints.restore(shapes)
        if restored is not None:
            state, progress = restored
            phase.iterator.set_state(progress['iterator'])
            seconds = progress['seconds']
        if int(state.step) < phase.steps:
            seconds = _run(phase, state, seconds, checkpoints, workdir, mesh, key)
        elif restored is None:  # no steps at all: the start is the result
            checkpoints.save(
                0, state, {'iterator': phase.iterator.get_state(), 'seconds': seconds}, None
            )
            checkpoints.wait()
        best = checkpoints.best_step()
        state, _ = checkpoints.restore(shapes, best)
    return Trained(state.ema, best, seconds, parameters)


def _like(phase: Phase, mesh: Mesh) -> TrainState:
    """The shapes and shardings of the phase's state, without its memory."""
    shapes = jax.eval_shape(lambda params: create_state(params, phase.tx), phase.params)
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes, state_shardings(shapes, mesh),
    )


def _run(
    phase: Phase, state: TrainState, seconds: float, checkpoints: Checkpoints, workdir: Path,
    mesh: Mesh, key: jax.Array,
) -> float:
    """The loop itself. Returns the phase's seconds, earlier runs of it included."""
    first = int(state.step)
    if first == 0:
        overview = parameter_overview.get_parameter_overview(state.params, include_stats=False)
        (workdir / f'parameters.{phase.name}.txt').write_text(overview + '\n')
    step_fn = jit_train_step(
        make_train_step(
            phase.loss_fn, phase.tx, ema_decay=phase.ema_decay, accumulate=phase.accumulate
        ),
        state, mesh,
    )
    frozen = jax.device_put(phase.frozen, replicated(mesh))
    key = jax.device_put(key, replicated(mesh))
    log = Logbook(workdir, phase.name, first)
    progress = Progress(phase.steps, phase.name, 'steps', done=first)
    pending: list[dict] = []
    began, earlier = time.monotonic(), seconds
    logged, logged_at = first, began
    for step in range(first + 1, phase.steps + 1):
        state, scalars = step_fn(state, frozen, to_devices(next(phase.iterator), mesh), key)
        if pending:
            jax.block_until_ready(pending[-1])  # at most one step runs ahead of the host
        pending.append(scalars)
        last = step == phase.steps
        if step % phase.log_every == 0 or step % phase.checkpoint_every == 0 or last:
            means = _means(pending, phase, step)
            pending = []
            now = time.monotonic()
            rate = (step - logged) * phase.batch / (now - logged_at)
            log.write(step, **means, images_per_second=rate)
            progress.update(step - progress.done, loss=means['loss'])
            logged, logged_at = step, now
        if step % phase.checkpoint_every == 0 or last:
            score, values = phase.evaluate(state.ema)
            log.write(step, **values)
            seconds = earlier + time.monotonic() - began
            record = {'iterator': phase.iterator.get_state(), 'seconds': seconds}
            checkpoints.save(step, state, record, score)
            logged_at = time.monotonic()
    checkpoints.wait()
    log.close()
    return seconds


def _means(pending: list[dict], phase: Phase, step: int) -> dict[str, float]:
    """The mean of each scalar over the steps since the last log; stops the run at a NaN."""
    steps = jax.device_get(pending)
    means = {}
    for name in steps[0]:
        values = np.array([scalars[name] for scalars in steps])
        means[name] = float(metrics.Average.from_model_output(values).compute())
    if not np.isfinite(means['loss']):
        raise UserError(
            f'{phase.name}: the loss is not finite at or before step {step}; the checkpoint before '
            'it is kept. Lower the learning rate, clip harder or compute in float32, and use a new '
            'workdir.'
        )
    return means
