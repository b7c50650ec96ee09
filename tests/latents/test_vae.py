import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.errors import UserError
from repdiff.latents.vae import Vae
from repdiff.models.autoencoder import AutoencoderKL

MODULE = AutoencoderKL(widths=(4, 4), layers=1, groups=2)


@pytest.fixture(scope='module')
def params():
    shapes = jax.eval_shape(MODULE.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)


moments = jax.jit(lambda vae, images: vae.moments(images))
encode = jax.jit(lambda vae, images: vae.encode(images))
decode = jax.jit(lambda vae, z0: vae.decode(z0))


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (2, 8, 6, 1), np.uint8)


def test_pixels_reach_the_vae_between_minus_one_and_one(params, images):
    """Against the module itself, fed by hand."""
    mean, std = moments(Vae(params, MODULE, 1), images)
    by_hand = np.repeat(images.astype(np.float32) / 255 * 2 - 1, 3, axis=-1)
    want = jax.jit(lambda x: MODULE.apply({'params': params}, x, method='encode'))(by_hand)
    np.testing.assert_allclose(mean, want[0], atol=1e-5)
    np.testing.assert_allclose(std, want[1], atol=1e-5)
    assert mean.shape == std.shape == (2, 4, 3, 4) and (std > 0).all()
    np.testing.assert_allclose(encode(Vae(params, MODULE, 1), images), mean, atol=1e-5)


def test_grey_is_three_equal_channels(params, images):
    colour = encode(Vae(params, MODULE, 3), np.repeat(images, 3, axis=-1))
    np.testing.assert_allclose(encode(Vae(params, MODULE, 1), images), colour, atol=1e-5)


def test_decode_gives_back_the_channels(params):
    z0 = np.random.default_rng(2).normal(size=(2, 4, 3, 4)).astype(np.float32)
    colour = decode(Vae(params, MODULE, 3), z0)
    assert colour.shape == (2, 8, 6, 3)
    grey = decode(Vae(params, MODULE, 1), z0)
    np.testing.assert_allclose(grey[..., 0], np.asarray(colour).mean(-1), atol=1e-5)


def test_scale_is_applied_once_each_way(params, images):
    """Another scale multiplies z0, and leaves the decoded image as it was."""
    double = MODULE.clone(scale=2 * MODULE.scale)
    one, two = Vae(params, MODULE, 1), Vae(params, double, 1)
    np.testing.assert_allclose(encode(two, images), 2 * encode(one, images), atol=1e-5)
    np.testing.assert_allclose(decode(two, encode(two, images)), decode(one, encode(one, images)),
                               atol=1e-5)


def test_pixel_energy_shares_a_position_among_its_pixels(params):
    z = np.random.default_rng(3).normal(size=(2, 4, 3, 4)).astype(np.float32)
    found = np.asarray(Vae(params, MODULE, 1).pixel_energy(jnp.asarray(z)))
    assert found.shape == (2, 8, 6)
    np.testing.assert_allclose(found[:, 2:4, 4:6].sum((1, 2)), np.sum(z[:, 1, 2]**2, -1), rtol=1e-5)
    np.testing.assert_array_equal(found[:, 2, 4], found[:, 3, 5])


@pytest.mark.parametrize('shape,channels,says', [
    ((1, 7, 8, 1), 1, 'multiple of 2'), ((1, 8, 8, 2), 2, '1 or 3 channels'),
    ((1, 8, 8, 3), 1, '1 or 3 channels')])
def test_images_that_do_not_fit_are_refused(params, shape, channels, says):
    with pytest.raises(UserError, match=says):
        Vae(params, MODULE, channels).encode(np.zeros(shape, np.uint8))


def test_fingerprint_tells_weights_and_scale_apart(params):
    base = Vae(params, MODULE, 1).fingerprint()
    assert Vae(jax.tree.map(jnp.asarray, params), MODULE, 1).fingerprint() == base
    changed = jax.tree.map(np.copy, params)
    changed['quant']['bias'][0] += 1e-3
    assert Vae(changed, MODULE, 1).fingerprint() != base
    assert Vae(params, MODULE.clone(scale=1.0), 1).fingerprint() != base
