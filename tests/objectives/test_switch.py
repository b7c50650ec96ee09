"""The switch to tuning: function-preserving by `null`, and exactly the paper's by `paper`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.models.dit import DiT
from repdiff.objectives.switch import start_tuning, tuned_denoiser

Z_SHAPE = (2, 4, 4, 3)


def randomised(params, key=jax.random.key(7)):
    """Every parameter random, so that no zero-initialised gate hides a part of the network."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])


def network(conditioning, representation='tokens', patch=2):
    return DiT(width=16, depth=3, heads=2, patch=patch, channels=3, conditioning=conditioning,
               representation=representation)


def r_like(denoiser):
    tokens = (2, (4 // denoiser.patch) ** 2, 16)
    return jax.random.normal(
        jax.random.key(3), tokens if denoiser.representation == 'tokens' else (2, 16)
    )


def start(denoiser, switch, label_start, class_means=None):
    z, t = jax.random.normal(jax.random.key(1), Z_SHAPE), jnp.array([3, 700])
    r = r_like(denoiser) if denoiser.conditioning == 'representation' else None
    params = randomised(denoiser.init(jax.random.key(0), z, t, r, jnp.zeros(2, bool))['params'])
    tuned = tuned_denoiser(denoiser, classes=3, switch=switch)
    fresh = randomised(tuned.init(jax.random.key(2), z, t, jnp.array([0, 1]))['params'],
                       jax.random.key(9))
    moved = start_tuning(denoiser, params, fresh, switch=switch, label_start=label_start,
                         class_means=class_means)
    assert jax.tree.structure(moved) == jax.tree.structure(fresh)
    assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, fresh)
    return z, t, r, params, tuned, moved


@pytest.mark.parametrize('conditioning, representation', [
    ('representation', 'tokens'), ('representation', 'pooled'), ('none', 'tokens')])
@pytest.mark.parametrize('patch', [1, 2])
def test_null_switch_starts_at_the_pretrained_network_with_r_dropped(
        conditioning, representation, patch):
    denoiser = network(conditioning, representation, patch)
    z, t, r, params, tuned, moved = start(denoiser, 'null', 'null')
    dropped = denoiser.apply({'params': params}, z, t, r, jnp.ones(2, bool))
    for label in range(4):
        found = tuned.apply({'params': moved}, z, t, jnp.full(2, label))
        np.testing.assert_allclose(found, dropped, atol=2e-5 * float(jnp.abs(dropped).max()))
    if conditioning == 'representation':
        kept = denoiser.apply({'params': params}, z, t, r, jnp.zeros(2, bool))
        assert float(jnp.abs(kept - dropped).max()) > 1e-2


def test_paper_switch_jumps_and_leaves_only_the_z_half():
    denoiser = network('representation', 'tokens')
    z, t, r, params, tuned, moved = start(denoiser, 'paper', 'null')
    assert not tuned.mix and 'mix' not in moved['blocks']
    np.testing.assert_array_equal(
        moved['patch_embed']['kernel'], params['patch_embed']['kernel'][:, :, :3])
    dropped = denoiser.apply({'params': params}, z, t, r, jnp.ones(2, bool))
    found = tuned.apply({'params': moved}, z, t, jnp.zeros(2, int))
    assert float(jnp.abs(found - dropped).max()) > 1e-2


def test_class_means_take_the_slot_of_pooled_r():
    denoiser = network('representation', 'pooled')
    means = jax.random.normal(jax.random.key(5), (3, 16))
    z, t, _, params, tuned, moved = start(denoiser, 'null', 'class_means', means)
    for label in range(3):
        as_label = tuned.apply({'params': moved}, z, t, jnp.full(2, label))
        as_r = denoiser.apply({'params': params}, z, t, means[jnp.full(2, label)],
                              jnp.zeros(2, bool))
        np.testing.assert_allclose(as_label, as_r, atol=1e-5 * float(jnp.abs(as_r).max()))


def test_random_start_keeps_fresh_label_embeddings():
    denoiser = network('none')
    moved = start(denoiser, 'null', 'random')[-1]
    assert float(jnp.std(moved['label_embed']['embedding'])) > 0.1
