"""AutoencoderKL conversions against stored outputs of the PyTorch original (make_goldens.py)."""

import jax
import pytest

import layouts
from proven import assert_close, assert_same, converted, golden
from repdiff.errors import UserError
from repdiff.models.autoencoder import AutoencoderKL

GROUPS = {'norm_num_groups': 2}


def test_matches_the_original_at_two_sizes(tmp_path):
    weights, arrays = golden('sd_vae')
    fields, params = converted(tmp_path, 'sd_vae', weights, GROUPS)
    vae = AutoencoderKL(**fields)
    encode, decode = (jax.jit(lambda x, method=method: vae.apply({'params': params}, x,
                                                                 method=method))
                      for method in ('encode', 'decode'))
    for i in range(2):
        mean, std = encode(arrays[f'x{i}'])
        assert_close(mean / 0.18215, arrays[f'mean{i}'])
        assert_close(std / 0.18215, arrays[f'std{i}'])
        assert_close(decode(0.18215 * arrays[f'z{i}']), arrays[f'image{i}'])


def test_old_attention_names_give_the_same_parameters(tmp_path):
    weights, _ = golden('sd_vae')
    for folder in 'ab':
        (tmp_path / folder).mkdir()
    _, new = converted(tmp_path / 'a', 'sd_vae', weights, GROUPS)
    _, old = converted(tmp_path / 'b', 'sd_vae', layouts.vae_old(weights), GROUPS)
    assert_same(old, new)


def test_scaling_factor_comes_from_the_config_beside_the_file(tmp_path):
    fields, _ = converted(tmp_path, 'sd_vae', golden('sd_vae')[0],
                          GROUPS | {'scaling_factor': 0.13025})
    assert fields['scale'] == 0.13025
    assert fields['widths'] == (4, 6, 8, 8) and fields['layers'] == 1


def test_wrong_norm_groups_are_refused(tmp_path):
    with pytest.raises(UserError, match='32 norm groups do not divide'):
        converted(tmp_path, 'sd_vae', golden('sd_vae')[0], {})
