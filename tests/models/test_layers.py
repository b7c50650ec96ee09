import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_transformer import gelu

from repdiff.models import layers

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(('inputs', 'features'), [(3, 8), (8, 3)])  # a wide and a tall kernel
def test_dense_and_its_gradients(inputs, features):
    x, kernel, bias, weight = (
        RNG.normal(size=shape) for shape in
        ((2, 5, inputs), (inputs, features), (features,), (2, 5, features)))
    value, gradients = jax.value_and_grad(
        lambda *args: jnp.vdot(layers.dense(*args), weight), argnums=(0, 1, 2))(x, kernel, bias)
    np.testing.assert_allclose(value, ((x @ kernel + bias) * weight).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradients[0], weight @ kernel.T, atol=1e-5)
    np.testing.assert_allclose(gradients[1], np.einsum('bni,bno->io', x, weight), atol=1e-5)
    np.testing.assert_allclose(gradients[2], weight.sum((0, 1)), atol=1e-5)


def test_exact_gelu():
    x = np.linspace(-8, 8, 101)
    np.testing.assert_allclose(layers.exact_gelu(x.astype(np.float32)), gelu(x), atol=2e-6)


def test_unpatchify_undoes_patchify():
    image = RNG.normal(size=(2, 6, 4, 3))
    patches = layers.patchify(image, 2)
    np.testing.assert_array_equal(patches[:, 1], image[:, 0:2, 2:4].reshape(2, -1))
    np.testing.assert_array_equal(layers.unpatchify(patches, 2, (3, 2)), image)
