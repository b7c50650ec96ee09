"""DiT conversions against stored outputs of the PyTorch original (make_goldens.py)."""

import jax
import numpy as np
import pytest

import layouts
from proven import HEADS, assert_close, converted, golden
from repdiff.errors import UserError
from repdiff.models.dit import DiT, position_table

T_BIAS = 'norm1.emb.timestep_embedder.linear_1.bias'


def run(fields: dict, params: dict, *inputs: np.ndarray) -> jax.Array:
    dit = DiT(**fields, unroll=True)
    return jax.jit(lambda *inputs: dit.apply({'params': params}, *inputs))(*inputs)


@pytest.mark.parametrize('layout', ['diffusers', 'meta'])
def test_matches_the_original_at_two_sizes(tmp_path, layout):
    weights, arrays = golden('dit')
    if layout == 'meta':
        weights = layouts.dit_meta(weights) | {'pos_embed': position_table(32, (4, 4))[None]}
    fields, params = converted(tmp_path, 'dit', weights, HEADS)
    for i in range(2):
        out = run(fields, params, arrays[f'x{i}'], arrays['t'], arrays['labels'])
        assert_close(out, arrays[f'{layout}{i}'])


def test_dropped_label_is_the_null_class_of_the_original(tmp_path):
    weights, arrays = golden('dit')
    fields, params = converted(tmp_path, 'dit', weights, HEADS)
    out = run(fields, params, arrays['x0'], arrays['t'], np.array([1, 0]),
              np.array([False, True]))
    assert_close(out, arrays['diffusers0'])  # whose second label is 5 of 5 classes


def test_architecture_is_read_from_the_shapes(tmp_path):
    fields, _ = converted(tmp_path, 'dit', layouts.dit_meta(golden('dit')[0]), HEADS)
    assert fields == {'width': 32, 'depth': 2, 'heads': 2, 'patch': 2, 'channels': 4,
                      'conditioning': 'label', 'classes': 5, 'learn_sigma': True,
                      'frequency_shift': 0}


def test_embeddings_that_differ_between_blocks_are_refused(tmp_path):
    weights, _ = golden('dit')
    weights[f'transformer_blocks.1.{T_BIAS}'] = weights[f'transformer_blocks.1.{T_BIAS}'] + 1
    with pytest.raises(UserError, match='differs from the copy'):
        converted(tmp_path, 'dit', weights, HEADS)


def test_positions_that_are_not_dits_are_refused(tmp_path):
    state = layouts.dit_meta(golden('dit')[0])
    with pytest.raises(UserError, match='pos_embed is not'):
        converted(tmp_path, 'dit', state | {'pos_embed': np.ones((1, 16, 32), np.float32)}, HEADS)
