"""Runs a conversion on tensors and compares what the module computes with the original."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from repdiff.convert import store

HEADS = {'num_attention_heads': 2}
DIT = HEADS | {'sample_size': 8}
TOLERANCE = 1e-4  # of the output's scale, max abs error


def converted(tmp_path: Path, kind: str, state: dict[str, np.ndarray],
              config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(fields, params) of `state` after a safetensors file, the command's work and `load`."""
    source, out = tmp_path / 'source' / 'model.safetensors', tmp_path / 'out'
    source.parent.mkdir()
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, source)
    source.with_name('config.json').write_text(json.dumps(config))
    store.convert(kind, str(source), out)
    return store.load(out, kind)


def assert_close(mine: Any, reference: np.ndarray):
    """Max abs error within TOLERANCE of the reference's largest value."""
    mine = np.asarray(mine)
    assert mine.shape == reference.shape
    error, scale = np.abs(mine - reference).max(), np.abs(reference).max()
    assert error <= TOLERANCE * scale, f'error {error} at scale {scale}'


def golden(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(published tensors, inputs and outputs) of a stored golden."""
    with np.load(Path(__file__).parents[1] / 'goldens' / f'convert_{name}.npz') as file:
        arrays = dict(file)
    prefix = 'weights/'
    weights = {key.removeprefix(prefix): value for key, value in arrays.items()
               if key.startswith(prefix)}
    return weights, {key: value for key, value in arrays.items() if not key.startswith(prefix)}


def assert_same(mine: Any, other: Any):
    """Two parameter trees are equal to the bit."""
    jax.tree.map(np.testing.assert_array_equal, mine, other)
