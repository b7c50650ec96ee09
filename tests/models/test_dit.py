import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_transformer import (
    attention,
    block_params,
    convolve,
    dense,
    gelu_tanh,
    mlp,
    norm,
    random_params,
    silu,
)

from repdiff.compile import matmul_flops
from repdiff.errors import UserError
from repdiff.models.dit import SIZES, DiT, position_table

RNG = np.random.default_rng(0)
FIELDS = {'width': 16, 'depth': 2, 'heads': 2, 'patch': 2, 'channels': 3}
Z_T = RNG.normal(size=(3, 4, 6, 3)).astype(np.float32)
T = np.array([0, 17, 999])
KINDS = {  # the field `conditioning` and what comes with it, and one condition for the batch
    'none': ({}, None),
    'label': ({'conditioning': 'label', 'classes': 2}, np.array([0, 1, 2])),
    'pooled': ({'conditioning': 'representation', 'representation': 'pooled',
                'representation_width': 5}, RNG.normal(size=(3, 5)).astype(np.float32)),
    'tokens': ({'conditioning': 'representation', 'representation_width': 5},
               RNG.normal(size=(3, 6, 5)).astype(np.float32)),
}


def make(kind: str, seed: int = 1, **more):
    """A model of this conditioning with random parameters, and its jitted apply."""
    fields, condition = KINDS[kind]
    model = DiT(**FIELDS, **fields, **more)
    return model, random_params(model, seed, Z_T, T, condition), jax.jit(model.apply), condition


def reference(model: DiT, params, z_t, t, condition) -> np.ndarray:
    """One example in plain NumPy: (H, W, C), t, its condition -> (H, W, C or 2C)."""
    p = params['params']
    grid = (z_t.shape[0] // model.patch, z_t.shape[1] // model.patch)
    z_t = z_t.astype(np.float64)
    r = condition if model.conditioning == 'representation' else None
    tokens_r = r is not None and r.ndim == 2
    if tokens_r:
        decoded = dense(p['decode']['linear'], norm(r.astype(np.float64), p['decode']['norm']))
        z_t = np.concatenate([z_t, place(decoded, model.patch, grid)], -1)
    x = convolve(p['patch_embed'], z_t) + position_table(model.width, grid)
    angles = t * np.exp(-np.log(10000) * np.arange(128) / 128)
    waves = np.concatenate([np.cos(angles), np.sin(angles)])
    c = dense(p['t_embed']['fc2'], silu(dense(p['t_embed']['fc1'], waves)))
    if model.conditioning == 'label':
        c = c + p['label_embed']['embedding'][condition]
    elif r is not None and not tokens_r:
        c = c + dense(p['r_embed'], r)
    for index in range(model.depth):
        b = block_params(p, index)
        if tokens_r:
            x = dense(b['mix'], silu(np.concatenate([x, r], -1)))
        elif model.mix:
            x = dense(b['mix'], silu(x))
        shift1, scale1, gate1, shift2, scale2, gate2 = np.split(dense(b['adaln'], silu(c)), 6)
        x = x + gate1 * attention(b['attn'], norm(x) * (1 + scale1) + shift1, model.heads)
        x = x + gate2 * mlp(b['mlp'], norm(x) * (1 + scale2) + shift2, gelu_tanh)
    shift, scale = np.split(dense(p['final']['adaln'], silu(c)), 2)
    return place(dense(p['final']['linear'], norm(x) * (1 + scale) + shift), model.patch, grid)


def place(tokens, patch, grid) -> np.ndarray:
    """(N, patch * patch * C) -> (H, W, C), patch by patch."""
    channels = tokens.shape[-1] // patch**2
    image = np.zeros((grid[0] * patch, grid[1] * patch, channels))
    for index, token in enumerate(tokens):
        i, j = patch * (index // grid[1]), patch * (index % grid[1])
        image[i:i + patch, j:j + patch] = token.reshape(patch, patch, channels)
    return image


@pytest.mark.parametrize(('kind', 'more'), [
    ('none', {}), ('none', {'mix': True}), ('label', {'learn_sigma': True}), ('pooled', {}),
    ('tokens', {}),
])
def test_equals_the_plain_reference(kind, more):
    model, params, apply, condition = make(kind, **more)
    got = apply(params, Z_T, T, condition)
    assert got.shape == (3, 4, 6, 6 if model.learn_sigma else 3)
    for index in range(3):
        given = None if condition is None else condition[index]
        wanted = reference(model, params, Z_T[index], T[index], given)
        np.testing.assert_allclose(got[index], wanted, atol=3e-4 * np.abs(wanted).max())


@pytest.mark.parametrize('kind', ['label', 'pooled', 'tokens'])
def test_drop(kind):
    _, params, apply, condition = make(kind)
    nothing = apply(params, Z_T, T, None)
    every = np.ones(3, bool)
    np.testing.assert_allclose(apply(params, Z_T, T, condition, every), nothing, atol=1e-5)
    np.testing.assert_allclose(
        apply(params, Z_T, T, condition, ~every), apply(params, Z_T, T, condition), atol=1e-5)

    drop = np.array([True, False, True])
    other = 1 - condition if kind == 'label' else condition + 1
    here, there = apply(params, Z_T, T, condition, drop), apply(params, Z_T, T, other, drop)
    np.testing.assert_array_equal(here[drop], there[drop])
    np.testing.assert_allclose(here[drop], nothing[drop], atol=1e-5)
    assert np.abs(here[~drop] - there[~drop]).max() > 1e-2


def test_the_null_class_is_the_last_row():
    model, params, apply, _ = make('label')
    null = np.full(3, model.classes)
    np.testing.assert_allclose(apply(params, Z_T, T, null), apply(params, Z_T, T), atol=1e-6)


@pytest.mark.parametrize('injection', ['input', 'blocks'])
def test_each_injection_of_token_r_matters_alone(injection):
    _, params, apply, r = make('tokens')
    if injection == 'input':  # silence r's half of every block's mix
        kernel = params['params']['blocks']['mix']['kernel']
        params['params']['blocks']['mix']['kernel'] = kernel * (np.arange(21) < 16)[:, None]
    else:  # silence r's half of the patch embedding
        kernel = params['params']['patch_embed']['kernel']
        params['params']['patch_embed']['kernel'] = kernel * (np.arange(6) < 3)[:, None]
    changed = apply(params, Z_T, T, r + RNG.normal(size=r.shape).astype(np.float32))
    assert np.abs(changed - apply(params, Z_T, T, r)).max() > 1e-2


def test_unrolled_and_rematerialised_equal_the_scan():
    fields, r = KINDS['tokens']
    _, params, _, _ = make('tokens')

    def loss_and_gradient(**more):
        model = DiT(**FIELDS, **fields, **more)
        return jax.jit(jax.value_and_grad(
            lambda p: jnp.square(model.apply(p, Z_T, T, r)).mean()))(params)

    scanned = loss_and_gradient()
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(scanned))
    for more in ({'unroll': True, 'remat': 'full'}, {'remat': 'dots'}):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * scale),
                     loss_and_gradient(**more), scanned)


def test_remat_repeats_what_it_does_not_keep():
    fields, r = KINDS['tokens']
    _, params, _, _ = make('tokens')

    def flops(remat):
        model = DiT(**FIELDS, **fields, remat=remat)
        return matmul_flops(jax.make_jaxpr(jax.grad(
            lambda p: jnp.square(model.apply(p, Z_T, T, r)).mean()))(params))

    forward = matmul_flops(jax.make_jaxpr(
        lambda p: DiT(**FIELDS, **fields).apply(p, Z_T, T, r))(params))
    # Attention alone has products without weights; 'full' repeats nearly the whole forward pass.
    assert flops('none') < flops('dots') < flops('none') + 0.3 * forward
    assert flops('none') + 0.7 * forward < flops('full')


def test_unknown_remat_is_refused():
    with pytest.raises(UserError, match="config.model.remat is 'some'; choose from none, dots"):
        DiT(**FIELDS, remat='some').init(jax.random.key(0), Z_T, T)


def test_starts_by_predicting_zero():
    fields, r = KINDS['tokens']
    model = DiT(**FIELDS, **fields)
    output, params = jax.jit(model.init_with_output)(jax.random.key(0), Z_T, T, r)
    assert not np.any(output)
    assert not np.any(params['params']['blocks']['adaln']['kernel'])


def test_bfloat16_stays_near_float32_with_float32_parameters():
    _, params, apply, r = make('tokens')
    exact = apply(params, Z_T, T, r)
    model = DiT(**FIELDS, **KINDS['tokens'][0], dtype=jnp.bfloat16)
    got = jax.jit(model.apply)(params, Z_T, T, r)
    assert got.dtype == jnp.float32
    assert np.abs(got - exact).max() < 0.1 * np.abs(exact).max()
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(
        jax.eval_shape(model.init, jax.random.key(0), Z_T, T, r))}
    assert dtypes == {jnp.dtype('float32')}


def test_vmap_over_labels_equals_one_label_at_a_time():
    _, params, apply, _ = make('label')
    labels = np.array([[0, 0, 0], [1, 1, 1]])
    got = jax.vmap(lambda label: apply(params, Z_T, T, label))(labels)
    for index, label in enumerate(labels):
        np.testing.assert_allclose(got[index], apply(params, Z_T, T, label), atol=1e-5)


def test_position_table():
    table = position_table(8, (2, 3))
    assert table.shape == (6, 8)
    x, y = 2, 1  # the last token
    wanted = [np.sin(x), np.sin(x / 100), np.cos(x), np.cos(x / 100),
              np.sin(y), np.sin(y / 100), np.cos(y), np.cos(y / 100)]
    np.testing.assert_allclose(table[-1], wanted, atol=1e-6)


@pytest.mark.parametrize(('name', 'millions'), [('S', 33), ('B', 130), ('L', 458), ('XL', 675)])
def test_published_parameter_counts(name, millions):
    model = DiT(**SIZES[name], patch=2, channels=4, conditioning='label', classes=1000,
                learn_sigma=True)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros(1))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert round(count / 1e6) == millions
