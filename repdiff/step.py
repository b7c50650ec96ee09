"""The train state and the one jitted training step, the same for every objective."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from repdiff.optim import ema_update
from repdiff.sharding import batch_sharding, on_mesh, replicated, state_shardings

Batch = dict[str, jax.Array]
# (params, frozen, batch, key) -> (scalar loss, scalars to log)
LossFn = Callable[[Any, Any, Batch, jax.Array], tuple[jax.Array, dict]]
# (key, batch as it was read) -> batch as the loss sees it
Augment = Callable[[jax.Array, Batch], Batch]


@flax.struct.dataclass
class TrainState:
    """All that training changes: step () int32, params, their EMA, the optimizer's state."""

    step: jax.Array
    params: Any
    ema: Any
    opt_state: Any


def create_state(params, tx: optax.GradientTransformation) -> TrainState:
    """The state at step 0; the EMA starts as a copy of the parameters."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.copy, params),
        opt_state=tx.init(params),
    )


def make_train_step(
    loss_fn: LossFn, tx: optax.GradientTransformation, *, ema_decay: float | optax.Schedule,
    accumulate: int, augment: Augment | None = None,
    reads: Callable[[TrainState], dict] | None = None,
) -> Callable:
    """(state, frozen, batch, key) -> (state, scalars), pure.

    The key of a step is fold_in(key, step), so a resumed run draws what an uninterrupted one would.
    `augment` changes the whole batch before the loss sees it. With `accumulate` > 1 the batch is
    then cut into that many equal parts whose gradients are averaged; the optimizer and the EMA move
    once. A part takes every `accumulate`-th row, so that each device has its share of it without
    moving images. What `reads` takes from the state, its EMA as a teacher, say, the loss finds in
    `frozen`.
    """

    def gradients(params, frozen, batch, key):
        (_, scalars), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, frozen, batch, key)
        return grads, scalars

    def accumulated(params, frozen, batch, key):
        parts = jax.tree.map(
            lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def add(total, part):
            index, part = part
            new = gradients(params, frozen, part, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, new), None

        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(gradients, params, frozen, first, key)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = jax.lax.scan(add, zero, (jnp.arange(accumulate), parts))
        return jax.tree.map(lambda x: x / accumulate, total)

    def train_step(state: TrainState, frozen, batch, key):
        key = jax.random.fold_in(key, state.step)
        if augment is not None:
            augment_key, key = jax.random.split(key)
            batch = augment(augment_key, batch)
        if reads is not None:
            frozen = frozen | reads(state)
        compute = gradients if accumulate == 1 else accumulated
        grads, scalars = compute(state.params, frozen, batch, key)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        scalars = scalars | {'gradient_norm': optax.tree.norm(grads)}
        return TrainState(
            step=state.step + 1,
            params=params,
            ema=ema_update(state.ema, params, state.step, ema_decay),
            opt_state=opt_state,
        ), scalars

    return train_step


def jit_train_step(train_step: Callable, state: TrainState, mesh: Mesh) -> Callable:
    """`train_step` for the mesh, to compile: state sharded and donated, batch split, rest whole."""
    shardings, whole = state_shardings(state, mesh), replicated(mesh)
    return jax.jit(
        on_mesh(train_step, mesh),
        in_shardings=(shardings, whole, batch_sharding(mesh), whole),
        out_shardings=(shardings, whole),
        donate_argnums=0,
    )
