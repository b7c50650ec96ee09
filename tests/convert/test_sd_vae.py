"""AutoencoderKL conversions against stored outputs of the PyTorch original (make_goldens.py)."""

import jax.numpy as jnp
import pytest

import layouts
from proven import assert_close, converted, golden
from repdiff.convert import store
from repdiff.errors import UserError
from repdiff.models.autoencoder import AutoencoderKL

GROUPS = {'norm_num_groups': 2}


@pytest.mark.parametrize('rename', [dict, layouts.vae_old], ids=['new', 'old'])
def test_matches_the_original_at_two_sizes(tmp_path, rename):
    weights, arrays = golden('sd_vae')
    fields, params = converted(tmp_path, 'sd_vae', rename(weights), GROUPS)
    vae, variables = AutoencoderKL(**fields), {'params': params}
    for i in range(2):
        mean, std = vae.apply(variables, jnp.asarray(arrays[f'x{i}']), method='encode')
        assert_close(mean / 0.18215, arrays[f'mean{i}'])
        assert_close(std / 0.18215, arrays[f'std{i}'])
        image = vae.apply(variables, 0.18215 * jnp.asarray(arrays[f'z{i}']), method='decode')
        assert_close(image, arrays[f'image{i}'])


def test_scaling_factor_comes_from_the_config_beside_the_file(tmp_path):
    fields, _ = converted(tmp_path, 'sd_vae', golden('sd_vae')[0],
                          GROUPS | {'scaling_factor': 0.13025})
    assert fields['scale'] == 0.13025
    assert fields['widths'] == (4, 6, 8, 8) and fields['layers'] == 2


def test_wrong_norm_groups_are_refused(tmp_path):
    with pytest.raises(UserError, match='32 norm groups do not divide'):
        converted(tmp_path, 'sd_vae', golden('sd_vae')[0], {})


def test_damaged_config_is_named(tmp_path):
    with pytest.raises(UserError, match='scaling_factor'):
        converted(tmp_path, 'sd_vae', golden('sd_vae')[0], GROUPS | {'scaling_factor': 'big'})
    with pytest.raises(UserError, match='no converted weights'):
        store.load(tmp_path / 'out', 'sd_vae')
