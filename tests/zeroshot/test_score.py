"""The scorer against a loop, and its independence of batch, devices and order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.diffusion.schedule import add_noise, linear
from repdiff.models.dit import DiT
from repdiff.sharding import AXES
from repdiff.zeroshot.score import Scorer, all_errors

SCHEDULE = linear(1000)
T = np.array([10, 200, 10, 500, 200])
KEY = jax.random.key(4)
KINDS = ('l2', 'l1', 'huber')


def denoise(params, z_t, t, condition):
    return jnp.tanh(z_t * params['w'] + condition[:, None, None, None] * t[:, None, None, None] / 1e3)


def inputs(count=6):
    z0 = np.asarray(jax.random.normal(jax.random.key(0), (count, 2, 2, 3)))
    ids = np.random.default_rng(0).integers(0, 2**32, (count, 2), dtype=np.uint32)
    return {'w': jnp.float32(0.7)}, np.array([0.0, 1.0, -2.0], np.float32), z0, ids


def scorer(passes=7, devices=1, **options):
    mesh = Mesh(np.asarray(jax.devices()[:devices]).reshape(devices, 1, 1), AXES)
    options = {'kinds': ('l2',)} | options
    return Scorer(options.pop('denoise', denoise), SCHEDULE, passes=passes, mesh=mesh, **options)


def everything(made, params, conditions, z0, ids, t=T):
    return all_errors(made.on(params, conditions, KEY, z0, ids), len(z0), len(conditions), t)


def test_errors_equal_a_loop_over_images_classes_and_draws():
    params, conditions, z0, ids = inputs()
    found = everything(scorer(kinds=KINDS), params, conditions, z0, ids)
    assert found.shape == (6, 3, 5, 3)
    for b in range(6):
        key = jax.random.fold_in(jax.random.fold_in(KEY, ids[b, 0]), ids[b, 1])
        for s, t in enumerate(T):
            eps = jax.random.normal(jax.random.fold_in(key, s), (1, 2, 2, 3))
            t = jnp.array([t])
            z_t = add_noise(SCHEDULE, z0[b : b + 1], t, eps)
            for k in range(3):
                gap = np.abs(eps - denoise(params, z_t, t, conditions[k : k + 1]))
                huber = np.where(gap < 1, gap**2 / 2, gap - 0.5)
                expected = [(gap**2).mean(), gap.mean(), huber.mean()]
                np.testing.assert_allclose(found[b, k, s], expected, rtol=1e-4)


@pytest.fixture(scope='module')
def dit():
    """A small DiT with no weight at 0, what `everything` takes of it, and its errors."""
    made = DiT(width=16, depth=2, heads=2, patch=1, channels=3, conditioning='label', classes=2)
    _, _, z0, ids = inputs(3)
    shapes = jax.eval_shape(made.init, KEY, z0, jnp.zeros(3), jnp.zeros(3, int))['params']
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(x.dtype), shapes)

    def denoise(params, *given):
        return made.apply({'params': params}, *given)

    given = params, np.arange(2), z0, ids
    return denoise, given, everything(scorer(30, denoise=denoise), *given)


@pytest.mark.parametrize('passes, devices', [(64, 1), (7, 2), (1, 8)])
def test_passes_and_devices_never_change_a_score(dit, passes, devices):
    denoise, given, wanted = dit
    assert np.abs(wanted[:, 0] - wanted[:, 1]).max() > 0.01  # the classes do differ
    np.testing.assert_allclose(everything(scorer(passes, devices, denoise=denoise), *given), wanted,
                               rtol=1e-5)


def test_any_triples_in_any_order_have_the_errors_of_the_whole():
    params, conditions, z0, ids = inputs()
    whole = everything(scorer(), params, conditions, z0, ids)
    image, klass, draw = np.array([3, 0, 5, 3]), np.array([2, 0, 1, 0]), np.array([4, 0, 2, 1])
    errors = scorer().on(params, conditions, KEY, z0, ids)
    np.testing.assert_allclose(errors(image, klass, draw, T[draw]), whole[image, klass, draw],
                               rtol=1e-5)
    assert errors(*np.zeros((4, 0), int)).shape == (0, 1)
    other = ids.copy()
    other[0, 1] += 1
    moved = everything(scorer(), params, conditions, z0, other)
    assert not np.allclose(moved[0], whole[0])
    np.testing.assert_allclose(moved[1:], whole[1:], rtol=1e-5)


def test_draws_differ_between_images_and_draws_and_come_in_opposite_pairs():
    keys, n = image_keys(KEY, inputs()[3]), 6
    first, second = (draw_noise(keys, jnp.full(n, draw), (4, 4, 3)) for draw in (0, 1))
    assert abs(float(jnp.corrcoef(first[0].ravel(), first[1].ravel())[0, 1])) < 0.5
    assert not np.allclose(first, second)
    pairs = [draw_noise(keys, jnp.full(n, draw), (4, 4, 3), antithetic=True) for draw in range(4)]
    np.testing.assert_array_equal(pairs[1], -pairs[0])
    np.testing.assert_array_equal(pairs[3], -pairs[2])
    assert not np.allclose(pairs[0], pairs[2])


def test_scorer_is_compiled_once():
    traces = []

    def counted(params, z_t, t, condition):
        traces.append(1)
        return denoise(params, z_t, t, condition)

    made, given = scorer(denoise=counted), inputs()
    everything(made, *given)
    first = len(traces)
    everything(made, *given, T[:1])
    everything(made, *inputs(4))
    assert len(traces) == first
