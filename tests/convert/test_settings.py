"""config.json beside the weights: what it says is honoured, or refused in a sentence."""

import pytest

from proven import DIT, HEADS, converted, golden
from repdiff.errors import UserError

GIVEN = {'dinov2': HEADS, 'dinov2_registers': HEADS, 'dit': DIT, 'sd_vae': {'norm_num_groups': 2}}

# What transformers and diffusers write beside the weights of the goldens.
WHOLE = {
    'dinov2': {
        'hidden_size': 32, 'num_hidden_layers': 2, 'patch_size': 4, 'num_channels': 3,
        'mlp_ratio': 4, 'use_swiglu_ffn': False, 'hidden_act': 'gelu', 'layer_norm_eps': 1e-6,
        'qkv_bias': True, 'drop_path_rate': 0.1, 'model_type': 'dinov2', 'image_size': 16},
    'dinov2_registers': {'num_register_tokens': 4, 'use_swiglu_ffn': True},
    'dit': {
        'num_layers': 2, 'patch_size': 2, 'in_channels': 4, 'out_channels': 8,
        'num_embeds_ada_norm': 5, 'attention_head_dim': 16, 'activation_fn': 'gelu-approximate',
        'norm_type': 'ada_norm_zero', 'norm_elementwise_affine': False, 'norm_eps': 1e-5,
        'cross_attention_dim': None, 'double_self_attention': False, 'dropout': 0.0},
    'sd_vae': {
        'block_out_channels': [4, 6, 8, 8], 'layers_per_block': 1, 'in_channels': 3,
        'out_channels': 3, 'latent_channels': 4, 'act_fn': 'silu', 'shift_factor': None,
        'latents_mean': None, 'latents_std': None, 'scaling_factor': 0.18215,
        'down_block_types': ['DownEncoderBlock2D'] * 4,
        'up_block_types': ['UpDecoderBlock2D'] * 4},
}


def fields(tmp_path, name: str, **settings) -> dict:
    kind = name.removesuffix('_registers')
    return converted(tmp_path, kind, golden(name)[0], GIVEN[name] | settings)[0]


@pytest.mark.parametrize('name', WHOLE)
def test_a_whole_config_changes_nothing(tmp_path, name):
    for folder in 'ab':
        (tmp_path / folder).mkdir()
    assert fields(tmp_path / 'a', name, **WHOLE[name]) == fields(tmp_path / 'b', name)


@pytest.mark.parametrize('name,key,value', [
    ('dinov2', 'hidden_act', 'relu'), ('dinov2', 'layer_norm_eps', 1e-5),
    ('dinov2', 'hidden_size', 64), ('dinov2', 'num_register_tokens', 4),
    ('dinov2', 'use_swiglu_ffn', True), ('dinov2_registers', 'use_swiglu_ffn', False),
    ('dinov2', 'patch_size', [14, 14]), ('dit', 'activation_fn', 'geglu'),
    ('dit', 'num_layers', 28), ('dit', 'out_channels', None), ('dit', 'attention_head_dim', 72),
    ('sd_vae', 'shift_factor', 0.1159), ('sd_vae', 'latents_mean', [0.1, 0.2, 0.3, 0.4]),
    ('sd_vae', 'act_fn', 'mish'), ('sd_vae', 'block_out_channels', [128, 256, 512, 512]),
    ('sd_vae', 'down_block_types', ['AttnDownEncoderBlock2D'] * 4),
])
def test_what_cannot_be_honoured_is_refused(tmp_path, name, key, value):
    with pytest.raises(UserError, match=f'config.json beside .* as "{key}", but these weights'):
        fields(tmp_path, name, **{key: value})
    assert not (tmp_path / 'out').exists()


def test_the_scaling_factor_may_be_an_integer(tmp_path):
    found = fields(tmp_path, 'sd_vae', scaling_factor=1)['scale']
    assert found == 1.0 and type(found) is float


@pytest.mark.parametrize('value', ['big', True, 0, -1.0, float('inf'), float('nan'), [1]])
@pytest.mark.parametrize('name,key', [('sd_vae', 'scaling_factor'), ('dit', 'norm_eps')])
def test_numbers_must_be_positive_numbers(tmp_path, name, key, value):
    with pytest.raises(UserError, match=f'as "{key}", which is no positive number'):
        fields(tmp_path, name, **{key: value})


def test_dit_takes_epsilon_and_the_grid_of_training_from_it(tmp_path):
    found = fields(tmp_path, 'dit', norm_eps=1e-3, sample_size=64)
    assert found['mlp_epsilon'] == 1e-3 and found['base_grid'] == 32
