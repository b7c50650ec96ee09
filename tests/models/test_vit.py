import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_transformer import (
    attention,
    block_params,
    convolve,
    dense,
    gelu,
    mlp,
    norm,
    random_params,
    silu,
)

from repdiff.models import vit
from repdiff.models.vit import SIZES, ViT

FIELDS = {'width': 12, 'depth': 2, 'heads': 2, 'patch': 2, 'grid': (3, 2), 'registers': 2}
IMAGES = np.random.default_rng(0).normal(size=(2, 6, 4, 3)).astype(np.float32)


def reference(model: ViT, params, image) -> np.ndarray:
    """(H, W, C) -> tokens before the final norm (1+R+N, D), in plain NumPy."""
    p = params['params']
    patches = convolve(p['patch_embed'], image.astype(np.float64)) + p['pos_embed'][1:]
    first = (p['cls_token'] + p['pos_embed'][0])[None]
    x = np.concatenate([first, p['register_tokens'], patches])
    for index in range(model.depth):
        b = block_params(p, index)
        x = x + b['ls1'] * attention(b['attn'], norm(x, b['norm1']), model.heads)
        y = norm(x, b['norm2'])
        if model.ffn == 'swiglu':
            gate, value = np.split(dense(b['mlp']['w12'], y), 2, axis=-1)
            x = x + b['ls2'] * dense(b['mlp']['w3'], silu(gate) * value)
        else:
            x = x + b['ls2'] * mlp(b['mlp'], y, gelu)
    return x


@pytest.mark.parametrize('ffn', ['mlp', 'swiglu'])
def test_equals_the_plain_reference(ffn):
    model = ViT(**FIELDS, ffn=ffn)
    params = random_params(model, 1, IMAGES)
    got = jax.jit(model.apply)(params, IMAGES)
    for index, image in enumerate(IMAGES):
        tokens = reference(model, params, image)
        normed = norm(tokens, params['params']['norm'])
        np.testing.assert_allclose(got['prenorm'][index], tokens, atol=2e-5)
        np.testing.assert_allclose(got['cls'][index], normed[0], atol=2e-5)
        np.testing.assert_allclose(got['registers'][index], normed[1:3], atol=2e-5)
        np.testing.assert_allclose(got['patches'][index], normed[3:], atol=2e-5)


def test_unrolled_and_rematerialised_equal_the_scan():
    params = random_params(ViT(**FIELDS), 2, IMAGES)

    def loss_and_gradient(**fields):
        model = ViT(**FIELDS, **fields)
        return jax.jit(jax.value_and_grad(
            lambda p: jnp.square(model.apply(p, IMAGES)['patches']).sum() / 100))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        loss_and_gradient(unroll=True, remat='full'), loss_and_gradient())


def test_layers_out_are_the_outputs_of_those_blocks():
    params = random_params(ViT(**FIELDS), 3, IMAGES)
    got = ViT(**FIELDS).apply(params, IMAGES, layers_out=(0, 1))
    np.testing.assert_array_equal(got['layers'][1], got['prenorm'])
    shallow = {'params': params['params'] | {
        'blocks': jax.tree.map(lambda leaf: leaf[:1], params['params']['blocks'])}}
    first = ViT(**(FIELDS | {'depth': 1})).apply(shallow, IMAGES)['prenorm']
    np.testing.assert_allclose(got['layers'][0], first, atol=1e-6)


def test_masked_patches_do_not_show():
    model = ViT(**FIELDS)
    params, apply = random_params(model, 4, IMAGES), jax.jit(model.apply)
    mask = np.zeros((2, 6), bool)
    mask[:, 1] = True
    changed = IMAGES.copy()
    changed[:, 0:2, 2:4] += 1  # the second patch
    np.testing.assert_array_equal(
        apply(params, changed, mask)['prenorm'], apply(params, IMAGES, mask)['prenorm'])
    other = ~mask  # the second patch alone is seen
    assert np.abs(
        apply(params, changed, other)['cls'] - apply(params, IMAGES, other)['cls']).max() > 1e-3


def test_bfloat16_stays_near_float32_with_float32_parameters():
    params = random_params(ViT(**FIELDS), 5, IMAGES)
    exact = jax.jit(ViT(**FIELDS).apply)(params, IMAGES)['patches']
    model = ViT(**FIELDS, dtype=jnp.bfloat16)
    got = jax.jit(model.apply)(params, IMAGES)['patches']
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(np.float32), exact, atol=0.15)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(
        jax.eval_shape(model.init, jax.random.key(0), IMAGES))}
    assert dtypes == {jnp.dtype('float32')}


def test_starts_as_dinov2():
    params = jax.jit(ViT(**FIELDS).init)(jax.random.key(0), IMAGES)['params']
    np.testing.assert_array_equal(params['blocks']['ls1'], np.full((2, 12), 1e-5, np.float32))
    assert 0.01 < np.std(params['blocks']['attn']['qkv']['kernel']) < 0.03
    without = jax.eval_shape(ViT(**FIELDS, layer_scale=None).init, jax.random.key(0), IMAGES)
    assert 'ls1' not in without['params']['blocks']


@pytest.mark.parametrize(('antialias', 'offset'), [(False, 0.0), (False, 0.1), (True, 0.0)])
@pytest.mark.parametrize(('source', 'target'), [(7, 4), (4, 9)])
def test_resize_keeps_constants_and_inner_lines(source, target, antialias, offset):
    matrix = vit.resize_matrix(source, target, antialias, offset)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    step = source / (target + offset)
    inner = slice(target // 3, target - target // 3)
    # A cubic kernel of coefficient -0.5 reproduces a line; -0.75 misses it by a few hundredths.
    wanted = (np.arange(target) + 0.5) * step - 0.5
    np.testing.assert_allclose(matrix[inner] @ np.arange(source), wanted[inner], atol=0.12)


def test_resize_by_a_half_has_the_known_weights():
    # Bicubic with a = -0.75 at the midpoint: (-3, 19, 19, -3) / 32.
    matrix = vit.resize_matrix(8, 4, antialias=False, offset=0.0)
    np.testing.assert_allclose(matrix[1], np.array([0, -3, 19, 19, -3, 0, 0, 0]) / 32, atol=1e-7)
    # At the border the first sample stands in for the one before it.
    np.testing.assert_allclose(matrix[0], np.array([16, 19, -3, 0, 0, 0, 0, 0]) / 32, atol=1e-7)


def test_other_image_sizes_resize_the_positions():
    model = ViT(**FIELDS)
    params = random_params(model, 6, IMAGES)
    images = np.zeros((1, 8, 6, 3), np.float32)  # a grid of (4, 3), not (3, 2)
    assert model.apply(params, images)['patches'].shape == (1, 12, 12)
    got = vit.resize_positions(params['params']['pos_embed'][1:], (3, 2), (4, 3), True, 0.0)
    rows, columns = (vit.resize_matrix(s, t, True, 0.0) for s, t in ((3, 4), (2, 3)))
    wanted = np.kron(rows, columns) @ params['params']['pos_embed'][1:]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize(('name', 'millions'), [('S', 22.1), ('B', 86.6), ('L', 304.4), ('g', 1136.5)])
def test_published_parameter_counts(name, millions):
    model = ViT(**SIZES[name], patch=14, grid=(37, 37))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert round(count / 1e6, 1) == millions
