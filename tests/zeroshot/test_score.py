"""The evaluator against a loop, and its independence of batch, chunk and order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.diffusion.schedule import add_noise, linear
from repdiff.zeroshot.score import draw_noise, image_keys, make_scorer

SCHEDULE = linear(1000)
T = np.array([10, 200, 10, 500, 200])
KEY = jax.random.key(4)


def denoise(params, z_t, t, condition):
    return jnp.tanh(z_t * params['w'] + condition[:, None, None, None] * t[:, None, None, None] / 1e3)


def inputs(count=6):
    z0 = jax.random.normal(jax.random.key(0), (count, 2, 2, 3))
    ids = np.random.default_rng(0).integers(0, 2**32, (count, 2), dtype=np.uint32)
    return {'w': jnp.float32(0.7)}, jnp.array([0.0, 1.0, -2.0]), z0, ids


@pytest.mark.parametrize('chunk', [1, 2, 5])
def test_errors_equal_a_loop_over_images_classes_and_draws(chunk):
    params, conditions, z0, ids = inputs()
    found = make_scorer(denoise, SCHEDULE, T, chunk)(params, conditions, z0, ids, KEY)
    assert found.shape == (6, 3, 5)
    for b in range(6):
        key = jax.random.fold_in(jax.random.fold_in(KEY, ids[b, 0]), ids[b, 1])
        for s, t in enumerate(T):
            eps = jax.random.normal(jax.random.fold_in(key, s), (1, 2, 2, 3))
            t = jnp.array([t])
            z_t = add_noise(SCHEDULE, z0[b : b + 1], t, eps)
            for k in range(3):
                eps_k = denoise(params, z_t, t, conditions[k : k + 1])
                np.testing.assert_allclose(found[b, k, s], jnp.mean((eps - eps_k) ** 2), rtol=1e-4)


def test_a_score_depends_on_image_id_and_draw_alone():
    params, conditions, z0, ids = inputs()
    scorer = make_scorer(denoise, SCHEDULE, T, 1)
    whole = scorer(params, conditions, z0, ids, KEY)
    order = np.array([3, 0, 5])
    some = scorer(params, conditions, z0[order], ids[order], KEY)
    np.testing.assert_allclose(some, whole[order], rtol=1e-5)
    np.testing.assert_allclose(
        make_scorer(denoise, SCHEDULE, T[:3], 1)(params, conditions, z0, ids, KEY), whole[..., :3],
        rtol=1e-5)
    other = ids.copy()
    other[0, 1] += 1
    moved = scorer(params, conditions, z0, other, KEY)
    assert not np.allclose(moved[0], whole[0]) and np.allclose(moved[1:], whole[1:])


def test_draws_differ_between_images_and_draws():
    keys = image_keys(KEY, inputs()[3])
    first, second = draw_noise(keys, 0, (4, 4, 3)), draw_noise(keys, 1, (4, 4, 3))
    assert abs(float(jnp.corrcoef(first[0].ravel(), first[1].ravel())[0, 1])) < 0.5
    assert not np.allclose(first, second)


def test_scorer_is_compiled_once():
    traces = []

    def counted(params, z_t, t, condition):
        traces.append(1)
        return denoise(params, z_t, t, condition)

    params, conditions, z0, ids = inputs()
    scorer = make_scorer(counted, SCHEDULE, T, 1)
    scorer(params, conditions, z0, ids, KEY)
    first = len(traces)
    scorer(params, conditions, z0 + 1, ids + 1, KEY)
    assert len(traces) == first
