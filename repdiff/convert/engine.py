"""One strict engine for every source: rename, relayout, check, fill.

A table is an ordered list of `Rule`. Every tensor of the source must match a rule and every slot
of the target must be filled exactly once, with the right shape; all of it is checked from shapes
alone, before any tensor is read.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from flax import traverse_util

from repdiff.errors import UserError

LISTED = 6  # names shown in a message before "and n more"

# How an axis order of PyTorch becomes Flax's.
RELAYOUT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'same': lambda w: w,
    'linear': lambda w: w.transpose(1, 0),  # O I -> I O
    'conv': lambda w: w.transpose(2, 3, 1, 0),  # O I H W -> H W I O
    'token': lambda w: w.reshape(w.shape[-1]),  # 1 1 D -> D
    'tokens': lambda w: w.reshape(w.shape[-2:]),  # 1 N D -> N D
}


class Source(Protocol):
    """What the engine needs of a file: names with shapes at once, values one at a time."""
    path: str
    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray: ...


@dataclass(frozen=True)
class Rule:
    """Where the tensors whose whole name matches `pattern` go.

    `target` is a '/'-joined parameter path, in which `\\1`... are groups of the pattern, or None
    for a tensor that the target has no use for. A group named `block` is the index along the
    target's leading L axis. `part` = (i, n) fills the i-th of n equal parts of the last axis, as
    when q, k and v are merged. `copies` marks a tensor that the source repeats for every block and
    the target holds once: the copies must be equal.
    """
    pattern: str
    target: str | None
    kind: str = 'same'
    part: tuple[int, int] = (0, 1)
    copies: bool = False


@dataclass(frozen=True)
class Slot:
    """One source tensor's place: a leaf, its block (or None) and its part of the last axis."""
    name: str
    path: str
    rule: Rule
    block: int | None

    def view(self, leaf: Any) -> Any:
        """The part of the array `leaf` that this tensor fills."""
        view = leaf if self.block is None else leaf[self.block]
        i, n = self.rule.part
        size = view.shape[-1] // n
        return view if n == 1 else view[..., i * size:(i + 1) * size]


def dense(source: str, target: str, kind: str = 'linear', **options) -> list[Rule]:
    """Rules for a layer with weight and bias; `source` is a pattern, `target` a module path."""
    return [Rule(rf'{source}\.weight', f'{target}/kernel', kind, **options),
            Rule(rf'{source}\.bias', f'{target}/bias', **options)]


def norm(source: str, target: str) -> list[Rule]:
    """Rules for a layer or group norm."""
    return [Rule(rf'{source}\.weight', f'{target}/scale'),
            Rule(rf'{source}\.bias', f'{target}/bias')]


def convert(source: Source, rules: Sequence[Rule], target: Any) -> dict[str, Any]:
    """Fills the tree `target` (of shapes, from `jax.eval_shape`) with float32 arrays of `source`.

    Raises:
      UserError: as `plan`, or naming copies that are not equal.
    """
    leaves = traverse_util.flatten_dict(target, sep='/')
    slots = plan(source, rules, leaves)
    filled = {path: np.empty(leaf.shape, np.float32) for path, leaf in leaves.items()}
    written = set()
    for slot in slots:
        value = RELAYOUT[slot.rule.kind](source.read(slot.name))
        view = slot.view(filled[slot.path])
        if slot.rule.copies and slot.path in written:
            if not np.array_equal(view, value):
                raise UserError(f'{source.path}: {slot.name} differs from the copy of it in '
                                'another block, but the model holds it once; use another file.')
            continue
        view[...] = value
        written.add(slot.path)
    return traverse_util.unflatten_dict(filled, sep='/')


def plan(source: Source, rules: Sequence[Rule], leaves: Mapping[str, Any]) -> list[Slot]:
    """The slot of every tensor of `source` in `leaves`, '/'-joined paths to shapes; reads no value.

    Raises:
      UserError: listing the source names without a place, the parameters left empty and the
        shapes that differ, if there are any; or naming two tensors for one slot.
    """
    slots, unknown = _assign(source.shapes, rules)
    _check(source, slots, unknown, leaves)
    return slots


def _assign(names: Mapping[str, tuple[int, ...]],
            rules: Sequence[Rule]) -> tuple[list[Slot], list[str]]:
    """Gives each source name the slot of the first rule that matches it."""
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    slots, unknown = [], []
    for name in names:
        for pattern, rule in compiled:
            if match := pattern.fullmatch(name):
                break
        else:
            unknown.append(name)
            continue
        if rule.target is not None:
            block = match.groupdict().get('block')
            index = None if block is None or rule.copies else int(block)
            slots.append(Slot(name, match.expand(rule.target), rule, index))
    return slots, unknown


def _check(source: Source, slots: list[Slot], unknown: list[str], leaves: Mapping[str, Any]):
    """Raises UserError unless the slots fill every leaf exactly, with the right shapes."""
    wrong, filled = [], {path: 0 for path in leaves}
    taken: dict[tuple, str] = {}
    for slot in slots:
        if slot.path not in leaves or (slot.block or 0) >= leaves[slot.path].shape[0]:
            unknown.append(slot.name)
            continue
        here, there = _shapes(slot, source.shapes[slot.name], leaves[slot.path])
        if here != there:
            wrong.append(f'{slot.name} {list(source.shapes[slot.name])} for '
                         f'{slot.path} {list(there)}')
        key = (slot.path, slot.block, slot.rule.part)
        if key in taken and not slot.rule.copies:
            raise UserError(f'{source.path}: {taken[key]} and {slot.name} are two values for the '
                            'same parameter; remove one of them.')
        if key not in taken:
            filled[slot.path] += int(np.prod(there))
        taken[key] = slot.name
    empty = [path for path, leaf in leaves.items() if filled[path] < int(np.prod(leaf.shape))]
    problems = [f'{what}: {_listed(names)}' for what, names in (
        ('names that the model does not have', unknown),
        ('parameters that the file does not fill', empty),
        ('wrong shapes', wrong)) if names]
    if problems:
        raise UserError(f'{source.path} does not fit the model; {"; ".join(problems)}.')


def _shapes(slot: Slot, shape: tuple[int, ...], leaf: Any) -> tuple[tuple, tuple]:
    """The tensor's shape after relayout (or as it is where that fails) and the slot's shape."""
    # Zero-stride stand-ins have the shapes without the memory.
    there = slot.view(np.broadcast_to(np.float32(0), leaf.shape)).shape
    try:
        return RELAYOUT[slot.rule.kind](np.broadcast_to(np.float32(0), shape)).shape, there
    except (ValueError, IndexError):
        return shape, there


def _listed(names: Sequence[str]) -> str:
    more = f' and {len(names) - LISTED} more' if len(names) > LISTED else ''
    return ', '.join(names[:LISTED]) + more
