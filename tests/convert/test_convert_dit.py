"""DiT conversions against stored outputs of the PyTorch original (make_goldens.py)."""

import jax
import numpy as np
import pytest

import layouts
from proven import DIT, HEADS, assert_close, converted, golden
from repdiff.diffusion.noise import draw_noise
from repdiff.diffusion.samplers import ddpm
from repdiff.diffusion.schedule import linear
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
    fields, params = converted(tmp_path, 'dit', weights, DIT)
    for i in range(2):
        out = run(fields, params, arrays[f'x{i}'], arrays['t'], arrays['labels'])
        assert_close(out, arrays[f'{layout}{i}'])


def test_dropped_label_is_the_null_class_of_the_original(tmp_path):
    weights, arrays = golden('dit')
    fields, params = converted(tmp_path, 'dit', weights, DIT)
    out = run(fields, params, arrays['x0'], arrays['t'], np.array([1, 0]),
              np.array([False, True]))
    assert_close(out, arrays['diffusers0'])  # whose second label is 5 of 5 classes


def test_samples_with_the_variance_half_of_the_original(tmp_path):
    """Two ancestral steps, with what the original computes at the first of them."""
    weights, arrays = golden('dit')
    fields, params = converted(tmp_path, 'dit', weights, DIT)
    dit, schedule = DiT(**fields, unroll=True), linear(1000)
    keys = jax.random.split(jax.random.key(0))

    @jax.jit
    def sample(z_t, labels):
        def denoise_fn(z_t, t):
            return dit.apply({'params': params}, z_t, t, labels)

        return ddpm(denoise_fn, schedule, z_t, (970, 3), keys, 'learned')

    found = sample(arrays['x0'], arrays['labels'])
    z, t = arrays['x0'], np.full(2, 970)
    gamma, delta = (np.asarray(a, np.float64)[[970, 3]] for a in (schedule.gamma, schedule.delta))
    eps, v = np.split(np.asarray(run(fields, params, z, t, arrays['labels'])), 2, axis=-1)
    np.testing.assert_allclose(eps[1], arrays['diffusers0'][1, ..., :4], atol=1e-4)
    beta = 1 - (gamma[0] / gamma[1]) ** 2
    log = (1 + v) / 2 * np.log(beta) + (1 - v) / 2 * np.log(beta * (delta[1] / delta[0]) ** 2)
    z = (z - beta / delta[0] * eps) * gamma[1] / gamma[0]
    z = z + np.exp(log / 2) * np.asarray(draw_noise(keys, 970, z.shape[1:]))
    eps = run(fields, params, z, np.full(2, 3), arrays['labels'])[..., :4]
    assert_close(found, (z - delta[1] * eps) / gamma[1])
    assert np.abs(v).max() > 0.1


def test_architecture_is_read_from_the_shapes(tmp_path):
    fields, _ = converted(tmp_path, 'dit', layouts.dit_meta(golden('dit')[0]), HEADS)
    assert fields == {'width': 32, 'depth': 2, 'heads': 2, 'patch': 2, 'channels': 4,
                      'conditioning': 'label', 'classes': 5, 'learn_sigma': True,
                      'frequency_shift': 0, 'mlp_epsilon': 1e-6, 'base_grid': None}


def test_embeddings_that_differ_between_blocks_are_refused(tmp_path):
    weights, _ = golden('dit')
    weights[f'transformer_blocks.1.{T_BIAS}'] = weights[f'transformer_blocks.1.{T_BIAS}'] + 1
    with pytest.raises(UserError, match='differs from the copy'):
        converted(tmp_path, 'dit', weights, HEADS)


def test_positions_that_are_not_dits_are_refused(tmp_path):
    state = layouts.dit_meta(golden('dit')[0])
    with pytest.raises(UserError, match='pos_embed is not'):
        converted(tmp_path, 'dit', state | {'pos_embed': np.ones((1, 16, 32), np.float32)}, HEADS)
