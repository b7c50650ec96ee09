"""Transformer parts in plain float64 NumPy, one example at a time, for the model tests."""

import jax
import numpy as np
from scipy.special import erf


def randomise(shapes, seed: int):
    """A tree of these shapes with every parameter random, zero-initialised gates included."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


def random_params(model, seed: int, *inputs):
    """Random parameters of a linen model for these inputs."""
    return randomise(jax.eval_shape(model.init, jax.random.key(0), *inputs), seed)


def dense(p, x):
    return x @ p['kernel'] + p['bias']


def norm(x, p=None):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x if p is None else x * p['scale'] + p['bias']


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def gelu_tanh(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def attention(p, x, heads):
    """x (N, D) -> (N, D), one head at a time."""
    q, k, v = np.split(dense(p['qkv'], x), 3, axis=-1)
    outputs = []
    for q, k, v in zip(*(np.split(part, heads, axis=-1) for part in (q, k, v))):
        weights = np.exp(q @ k.T / np.sqrt(q.shape[-1]))
        outputs.append(weights / weights.sum(-1, keepdims=True) @ v)
    return dense(p['proj'], np.concatenate(outputs, -1))


def mlp(p, x, activation):
    return dense(p['fc2'], activation(dense(p['fc1'], x)))


def convolve(p, image):
    """A convolution whose stride is its kernel's size: (H, W, C) -> (N, D), patch by patch."""
    patch = p['kernel'].shape[0]
    return np.stack([
        np.einsum('hwc,hwcd->d', image[i:i + patch, j:j + patch], p['kernel']) + p['bias']
        for i in range(0, image.shape[0], patch) for j in range(0, image.shape[1], patch)
    ])


def block_params(params, index: int):
    """The parameters of one block out of the stack."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[index], np.float64), params['blocks'])
