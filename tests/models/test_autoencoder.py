import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.models.autoencoder import Attention, AutoencoderKL, Norm

TINY = AutoencoderKL(widths=(4, 6, 8), layers=1, groups=2)


@pytest.fixture(scope='module')
def params():
    shapes = jax.eval_shape(TINY.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)


def test_latents_are_smaller_by_the_factor_and_decode_back(params):
    image = jnp.zeros((2, 16, 8, 3))
    assert TINY.factor == 4 and AutoencoderKL().factor == 8
    mean, std = jax.eval_shape(lambda x: TINY.apply({'params': params}, x, method='encode'), image)
    assert mean.shape == std.shape == (2, 4, 2, 4)
    assert jax.eval_shape(lambda x: TINY.apply({'params': params}, x), image).shape == image.shape


def test_deviation_is_the_exponential_of_half_the_clipped_log_variance(params):
    """With a quant convolution that ignores its input, mean and deviation are closed forms."""
    log_variance = np.array([0, 2, 100, -100], np.float32)
    bias = np.concatenate([np.array([1, 2, 3, 4], np.float32), log_variance])
    quant = {'kernel': jnp.zeros_like(params['quant']['kernel']), 'bias': bias}
    mean, std = jax.jit(lambda params, x: TINY.apply({'params': params}, x, method='encode'))(
        params | {'quant': quant}, jnp.ones((1, 8, 8, 3)))
    np.testing.assert_allclose(mean[0, 0, 0], 0.18215 * np.array([1, 2, 3, 4]), rtol=1e-6)
    np.testing.assert_allclose(std[0, 0, 0], 0.18215 * np.exp([0, 1, 10, -15]), rtol=1e-5)


def test_half_precision_keeps_moments_and_images_in_float32(params):
    half = TINY.clone(dtype=jnp.bfloat16)
    for method, shape in (('encode', (1, 8, 8, 3)), ('decode', (1, 2, 2, 4))):
        out = jax.eval_shape(lambda x: half.apply({'params': params}, x, method=method),
                             jnp.zeros(shape))
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(out))


def test_norm_survives_a_large_mean():
    """E[x²] - E[x]² would lose all digits here."""
    x = 1e4 + np.random.default_rng(0).normal(size=(1, 4, 4, 4)).astype(np.float32)
    norm = Norm(groups=2)
    y = norm.apply(norm.init(jax.random.key(0), x), x)
    grouped = x.astype(np.float64).reshape(16, 2, 2)
    want = (grouped - grouped.mean((0, 2), keepdims=True)) / np.sqrt(
        grouped.var((0, 2), keepdims=True) + 1e-6)
    np.testing.assert_allclose(np.asarray(y).reshape(16, 2, 2), want, atol=5e-3)


def test_attention_mixes_positions_as_the_softmax_says():
    """Against explicit loops over positions, with random weights everywhere."""
    attention = Attention(groups=2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 2, 3, 4)).astype(np.float32)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32),
                          attention.init(jax.random.key(0), x)['params'])
    out = attention.apply({'params': params}, x)
    normed = np.asarray(Norm(groups=2).apply({'params': params['norm']}, x)).reshape(6, 4)
    q, k, v = (normed @ params[name]['kernel'] + params[name]['bias'] for name in 'qkv')
    for i in range(6):
        weights = np.exp([q[i] @ k[j] / 2 for j in range(6)])
        mixed = weights / weights.sum() @ v
        want = x.reshape(6, 4)[i] + mixed @ params['out']['kernel'] + params['out']['bias']
        np.testing.assert_allclose(np.asarray(out).reshape(6, 4)[i], want, atol=1e-4)
