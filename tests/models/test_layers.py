import types

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


def _heads(dtype, width: int = 8) -> list:
    return [jnp.asarray(RNG.normal(size=(2, 3, 5, width)), dtype) for _ in range(3)]


def _attention(query, key, value):
    """By its definition, in float64: (B, heads, N, D/heads)."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    weights = np.exp(np.einsum('bhnd,bhmd->bhnm', query, key) / np.sqrt(query.shape[-1]))
    return np.einsum('bhnm,bhmd->bhnd', weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float32', 1e-5), ('bfloat16', 3e-2)])
@pytest.mark.parametrize('attend', [layers.attend, layers._attend_plain, layers._attend_jax])
def test_attention_of_every_platform_is_its_definition(attend, dtype, tolerance):
    heads = _heads(dtype)
    found = attend(*heads)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), _attention(*heads), atol=tolerance)


def test_attention_has_the_same_gradients_on_every_platform():
    heads, weight = _heads('float32'), RNG.normal(size=(2, 3, 5, 8))
    plain, other = (
        jax.grad(lambda *x: jnp.vdot(attend(*x), weight), argnums=(0, 1, 2))(*heads)
        for attend in (layers._attend_plain, layers._attend_jax))
    for left, right in zip(plain, other):
        np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.fixture
def hopper(monkeypatch):
    """JAX as it is where there is an H100, as far as tracing and lowering go."""
    kernels = pytest.importorskip('jax._src.cudnn.fused_attention_stablehlo')
    if not hasattr(kernels, 'cuda_versions'):
        pytest.skip('this JAX looks for cuDNN elsewhere')
    found = types.SimpleNamespace(cudnn_get_version=lambda: 91200)
    monkeypatch.setattr(kernels, 'cuda_versions', found)
    monkeypatch.setattr(layers, '_gpu_generation', lambda: 9)


def _lowered(platform: str, dtype: str, width: int) -> str:
    heads = [jax.ShapeDtypeStruct((2, 3, 16, width), dtype)] * 3
    loss = jax.jit(jax.grad(lambda *x: layers.attend(*x).astype(jnp.float32).sum()))
    return loss.trace(*heads).lower(lowering_platforms=(platform,)).as_text()


def test_cuda_has_the_fused_kernel_forward_and_backward(hopper):
    found = _lowered('cuda', 'bfloat16', 72)
    assert '@__cudnn$fmhaSoftmax(' in found
    assert '__cudnn$fmhaSoftmaxBackward' in found


@pytest.mark.parametrize(('platform', 'dtype', 'width'), [
    ('cpu', 'bfloat16', 64), ('tpu', 'bfloat16', 64),
    ('cuda', 'float32', 64), ('cuda', 'bfloat16', 60), ('cuda', 'bfloat16', 136)])
def test_what_cudnn_does_not_take_is_computed_without_it(hopper, platform, dtype, width):
    assert 'cudnn' not in _lowered(platform, dtype, width)
