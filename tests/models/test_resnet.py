"""ResNet: the published sizes, and what PyTorch computes with the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.models.resnet import SIZES, ResNet


@pytest.mark.parametrize('kind, parameters, width', [
    ('resnet18', 11_176_512, 512), ('resnet50', 23_508_032, 2048)])
def test_published_parameter_counts(kind, parameters, width):
    network, image = ResNet(**SIZES[kind]), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    shapes = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), image)
    assert shapes[0].shape == (1, width)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes[1])) == parameters


@pytest.mark.parametrize('bottleneck', [False, True])
def test_equals_pytorch(bottleneck):
    torch = pytest.importorskip('torch')
    network = ResNet((1, 1), bottleneck, width=16)
    x = np.random.default_rng(0).normal(size=(2, 21, 21, 3)).astype(np.float32)
    params = jax.tree.map(
        lambda a: a + 0.2 * jax.random.normal(jax.random.key(a.size), a.shape),
        network.init(jax.random.key(0), x)['params'])
    t = jax.tree.map(lambda a: torch.tensor(np.asarray(a)), params)
    f = torch.nn.functional

    def conv(h, part, stride):
        kernel = part['kernel'].permute(3, 2, 0, 1)
        flat = kernel.flatten(1)
        kernel = (kernel - flat.mean(1)[:, None, None, None]) / (
            flat.std(1, unbiased=False) * flat.shape[1] ** 0.5)[:, None, None, None]
        return f.conv2d(h, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(h, part):
        return f.group_norm(h, h.shape[1] // 16, part['scale'], part['bias'])

    h = torch.tensor(x).permute(0, 3, 1, 2)
    h = f.max_pool2d(torch.relu(norm(conv(h, t['stem'], 2), t['norm'])), 3, 2, 1)
    for stage in range(2):
        block, stride = t[f'stage{stage}_block0'], 1 + stage
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        y = h
        for i, s in enumerate(strides, 1):
            y = norm(conv(y, block[f'conv{i}'], s), block[f'norm{i}'])
            y = torch.relu(y) if i < len(strides) else y
        if 'conv_shortcut' in block:
            h = norm(conv(h, block['conv_shortcut'], stride), block['norm_shortcut'])
        h = torch.relu(h + y)
    np.testing.assert_allclose(
        network.apply({'params': params}, jnp.asarray(x)), h.mean((2, 3)).numpy(), atol=1e-4)
