"""The training step compiled ahead of time, for arrays or for their shapes alone, and its cost."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import Mesh

from repdiff.step import TrainState, jit_train_step


@dataclass(frozen=True)
class CompiledStep:
    """A compiled training step. Bytes are those of one device.

    call: (state, frozen, batch, key) -> (state, scalars), the state donated; seconds: of tracing,
    lowering and compiling; flops: of one step's matrix products over all devices, recomputation
    included; arguments: bytes of state, frozen, batch and key that the program reads; outputs: what
    it returns beyond the donated state; temporaries: activations, gradients, scratch.
    """

    call: Callable
    seconds: float
    flops: float
    arguments: int
    outputs: int
    temporaries: int

    @property
    def peak(self) -> int:
        """Bytes of one device while the step runs."""
        return self.arguments + self.outputs + self.temporaries

    def __str__(self) -> str:
        mib = {name: getattr(self, name) / 2**20 for name in ('peak', 'arguments', 'temporaries')}
        return (
            f'compiled in {self.seconds:.1f} s; {self.flops / 1e9:.4g} GFLOP a step; a device '
            f'holds {mib["peak"]:.4g} MiB ({mib["arguments"]:.4g} of state and batch, '
            f'{mib["temporaries"]:.4g} of temporaries)'
        )


def compile_step(
    train_step: Callable, state: TrainState, frozen, batch, mesh: Mesh
) -> CompiledStep:
    """Compiles `train_step` (of `make_train_step`) for the mesh, from arrays or ShapeDtypeStructs.

    `batch` has its shape over all hosts. Shapes alone take no memory, so the step of any model can
    be compiled anywhere (`repdiff.abstract` makes them from a config).
    """
    began = time.monotonic()
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced = jit_train_step(train_step, state, mesh).trace(state, frozen, batch, key)
    compiled = traced.lower().compile()
    seconds, memory = time.monotonic() - began, compiled.memory_analysis()
    return CompiledStep(
        call=compiled,
        seconds=seconds,
        flops=matmul_flops(traced.jaxpr),
        arguments=memory.argument_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
    )


def matmul_flops(jaxpr: ClosedJaxpr | Jaxpr) -> float:
    """Operations (2 for a multiplication and an addition) of all matrix products of a program.

    Counted here because XLA's own analysis counts the body of a loop once, and ours are scanned.
    Convolutions count as matrix products; everything else is left out.
    """
    if isinstance(jaxpr, ClosedJaxpr):
        jaxpr = jaxpr.jaxpr
    return sum(_flops(equation) for equation in jaxpr.eqns)


def _flops(equation) -> float:
    name, given = equation.primitive.name, equation.params
    if name == 'dot_general':
        (contracted, _), _ = given['dimension_numbers']
        inner = prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * equation.outvars[0].aval.size * inner
    if name == 'conv_general_dilated':
        kernel, numbers = equation.invars[1].aval, given['dimension_numbers']
        inner = kernel.size / kernel.shape[numbers.rhs_spec[0]]
        return 2.0 * equation.outvars[0].aval.size * inner
    if name == 'cond':
        return max(matmul_flops(branch) for branch in given['branches'])
    inside = sum(matmul_flops(part) for part in jax.tree.leaves(
        list(given.values()), is_leaf=_is_program) if _is_program(part))
    return inside * given['length'] if name == 'scan' else inside


def _is_program(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)
