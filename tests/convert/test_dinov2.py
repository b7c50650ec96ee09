"""DINOv2 conversions against stored outputs of the PyTorch original (make_goldens.py)."""

import jax.numpy as jnp
import numpy as np
import pytest

import layouts
from proven import HEADS, assert_close, converted, golden
from repdiff.convert.dinov2 import HUGGING_FACE, META
from repdiff.models.vit import ViT

LAYOUTS = {'published': dict, 'new': layouts.dinov2_new, 'meta': layouts.dinov2_meta}


def tokens(out: dict) -> np.ndarray:
    return np.concatenate([out['cls'][:, None], out['registers'], out['patches']], axis=1)


@pytest.mark.parametrize('name', ['dinov2', 'dinov2_registers'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_matches_the_original_at_two_sizes(tmp_path, name, layout):
    weights, arrays = golden(name)
    fields, params = converted(tmp_path, 'dinov2', LAYOUTS[layout](weights), HEADS)
    vit = ViT(**fields)
    for i in range(2):
        out = vit.apply({'params': params}, jnp.asarray(arrays[f'x{i}']),
                        layers_out=range(vit.depth))
        lineage = layout == 'meta' and name == 'dinov2' and i == 1
        assert_close(tokens(out), arrays['meta1' if lineage else f'tokens{i}'])
        assert_close(out['layers'][0], arrays[f'layers{i}'][0]) if not lineage else None
        assert_close(out['prenorm'], arrays[f'layers{i}'][-1]) if not lineage else None


def test_architecture_is_read_from_the_shapes(tmp_path):
    fields, _ = converted(tmp_path, 'dinov2', golden('dinov2_registers')[0], HEADS)
    assert fields == {'width': 32, 'depth': 2, 'heads': 2, 'patch': 4, 'grid': (4, 4),
                      'registers': 4, 'ffn': 'swiglu', 'mlp_ratio': 4, 'antialias': True,
                      'offset': 0.0}


def test_no_two_rules_of_a_layout_share_a_pattern():
    for table in (META, HUGGING_FACE):
        patterns = [rule.pattern for rule in table]
        assert len(patterns) == len(set(patterns))
