"""DINOv2 conversions against stored outputs of the PyTorch original (make_goldens.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import layouts
from proven import HEADS, assert_close, assert_same, converted, golden
from repdiff.convert.dinov2 import HUGGING_FACE, META
from repdiff.models.vit import ViT

NAMES = ['dinov2', 'dinov2_registers']


def run(fields: dict, params: dict, x: np.ndarray) -> tuple[np.ndarray, dict]:
    """(normalised tokens (B, 1+R+N, D), everything) of the Flax module."""
    vit = ViT(**fields, unroll=True)
    out = jax.jit(lambda x: vit.apply({'params': params}, x, layers_out=range(vit.depth)))(x)
    return np.concatenate([out['cls'][:, None], out['registers'], out['patches']], axis=1), out


@pytest.mark.parametrize('name', NAMES)
def test_published_file_matches_the_original_at_two_sizes(tmp_path, name):
    weights, arrays = golden(name)
    fields, params = converted(tmp_path, 'dinov2', weights, HEADS)
    for i in range(2):
        tokens, out = run(fields, params, arrays[f'x{i}'])
        assert_close(tokens, arrays[f'tokens{i}'])
        assert_close(out['prenorm'], arrays[f'layers{i}'][-1])
        assert_close(jnp.stack(out['layers']), arrays[f'layers{i}'])


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('rename', [layouts.dinov2_new, layouts.dinov2_meta])
def test_the_other_layouts_give_the_same_parameters(tmp_path, name, rename):
    weights, _ = golden(name)
    for folder in 'ab':
        (tmp_path / folder).mkdir()
    _, published = converted(tmp_path / 'a', 'dinov2', weights, HEADS)
    _, other = converted(tmp_path / 'b', 'dinov2', rename(weights), HEADS)
    assert_same(other, published)


def test_meta_files_resize_positions_as_meta_does(tmp_path):
    weights, arrays = golden('dinov2')
    fields, params = converted(tmp_path, 'dinov2', layouts.dinov2_meta(weights), HEADS)
    assert_close(run(fields, params, arrays['x1'])[0], arrays['meta1'])


def test_architecture_is_read_from_the_shapes(tmp_path):
    fields, _ = converted(tmp_path, 'dinov2', golden('dinov2_registers')[0], HEADS)
    assert fields == {'width': 32, 'depth': 2, 'heads': 2, 'patch': 4, 'grid': (4, 4),
                      'registers': 4, 'ffn': 'swiglu', 'mlp_ratio': 4, 'antialias': True,
                      'offset': 0.0}


def test_no_two_rules_of_a_layout_share_a_pattern():
    for table in (META, HUGGING_FACE):
        patterns = [rule.pattern for rule in table]
        assert len(patterns) == len(set(patterns))
