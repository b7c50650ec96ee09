"""Counterfactuals against DDIM by hand, and what the label does in them."""

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.diffusion.samplers import ddim, even_steps
from repdiff.diffusion.schedule import add_noise, linear
from repdiff.zeroshot.counterfactual import MOVES, make_counterfactuals

SCHEDULE = linear(1000)
KEY = jax.random.key(6)


def given(count=3):
    ids = np.random.default_rng(0).integers(0, 2**32, (count, 2), dtype=np.uint32)
    return jax.random.normal(jax.random.key(1), (count, 2, 2, 3)), ids


def denoise(params, z_t, t, label):
    return jnp.tanh(params * z_t + label[:, None, None, None] * 0.2)


def test_a_counterfactual_is_ddim_from_the_noised_latent_under_each_label():
    z0, ids = given()
    rebuild = make_counterfactuals(denoise, SCHEDULE, 300, 2)
    found = rebuild(0.8, jnp.arange(2), z0, ids, KEY)
    assert found.shape == (3, 2, 2, 2, 3)
    for k in range(2):
        label, mean = jnp.full(3, k), 0
        for draw in range(2):
            eps = draw_noise(image_keys(KEY, ids), jnp.full(3, draw), z0.shape[1:])
            z_t = add_noise(SCHEDULE, z0, jnp.full(3, 300), eps)
            mean += ddim(lambda z, t: denoise(0.8, z, t, label), SCHEDULE, z_t,
                         even_steps(300, MOVES)) / 2
        np.testing.assert_allclose(found[:, k], mean, atol=1e-5)


def test_of_gaussian_classes_the_label_moves_the_mean():
    """Exact denoisers of N(±2, 1/16): from a high t each label rebuilds its own class."""
    gamma, delta = (np.asarray(part, np.float32) for part in (SCHEDULE.gamma, SCHEDULE.delta))

    def exact(params, z_t, t, label):
        g, d = (jnp.asarray(part)[t][:, None, None, None] for part in (gamma, delta))
        mean = jnp.where(label == 1, 2.0, -2.0)[:, None, None, None]
        return d * (z_t - g * mean) / (g**2 / 16 + d**2)

    z0, ids = given()
    found = make_counterfactuals(exact, SCHEDULE, 900, 1)(None, jnp.arange(2), z0 / 4 - 2, ids, KEY)
    assert found[:, 0].max() < 0 < found[:, 1].min()
    assert abs(float(found[:, 1].mean()) - 2) < 0.2
