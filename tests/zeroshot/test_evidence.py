"""Evidence maps: their sums, their standard error, and the level of their test."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.diffusion.schedule import add_noise, linear
from repdiff.latents.frontend import fit_haar, fit_pca
from repdiff.zeroshot import evidence

SCHEDULE = linear(1000)
KEY = jax.random.key(5)
T = np.tile([20, 200, 600], 8)
WEIGHTS = np.tile([0.5, 0.3, 0.2], 8) / 8


def images(count, size=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 1), np.uint8)


def differences(denoise, front, shown, pairs, params=None, t=T):
    ids = np.random.default_rng(1).integers(0, 2**32, (len(shown), 2), dtype=np.uint32)
    z0 = front.encode(shown)
    mapper = evidence.make_mapper(denoise, SCHEDULE, t, 4, front.pixel_energy)
    return np.asarray(mapper(params, jnp.asarray(pairs), z0, ids, KEY)), z0, ids


def guess(z_t, t):
    """The noise, as a denoiser that knows nothing of the image would have it."""
    return z_t * SCHEDULE.delta[t][:, None, None, None]


@pytest.mark.parametrize('fit', [
    lambda x: fit_haar(x, 4, 0.5), lambda x: fit_pca(x, 4, 5, 0.0)])
def test_a_map_is_the_difference_of_two_errors_laid_out_over_the_pixels(fit):
    """Against a loop, for two different pairs of three classes."""
    front, shown = fit(images(32)), images(2, seed=3)
    pairs = np.array([[2, 0], [1, 2]])

    def denoise(params, z_t, t, label):
        return guess(z_t, t) * params * (1 + label)[:, None, None, None] / 3

    found, z0, ids = differences(denoise, front, shown, pairs, 0.9)
    assert found.shape == (2, 24, 16, 16)
    keys = image_keys(KEY, ids)
    for b, s in itertools.product(range(2), (0, 7, 23)):
        eps = draw_noise(keys[b:b + 1], jnp.array([s]), z0.shape[1:])
        t = jnp.array([T[s]])
        z_t = add_noise(SCHEDULE, z0[b:b + 1], t, eps)
        errors = [np.mean(np.square(eps - denoise(0.9, z_t, t, jnp.array([k])))) for k in range(3)]
        first, second = pairs[b]
        np.testing.assert_allclose(found[b, s].sum(), errors[second] - errors[first], rtol=1e-4)


def test_mean_error_and_statistic_against_loops():
    rng = np.random.default_rng(0)
    given = rng.normal(0.1, 1, (24, 4, 5)) * (1 + T / 100)[:, None, None]
    found = evidence.weigh(given, T, WEIGHTS, 0.05, 200, 0, seed=1)
    for y, x in itertools.product(range(4), range(5)):
        terms = WEIGHTS * given[:, y, x]
        variance = sum(8 * np.var(terms[T == t], ddof=1) for t in np.unique(T))
        assert found.mean[y, x] == pytest.approx(terms.sum())
        assert found.error[y, x] == pytest.approx(np.sqrt(variance))
        assert found.statistic[y, x] == pytest.approx(terms.sum() / np.sqrt(np.sum(terms**2)))
    np.testing.assert_array_equal(found.shown, np.abs(found.statistic) > found.threshold)
    smooth = evidence.weigh(given, T, WEIGHTS, 0.05, 200, 1.5, seed=1)
    assert smooth.mean.sum() == pytest.approx(found.mean.sum())


def test_standard_error_is_the_spread_of_means_over_repetitions():
    rng = np.random.default_rng(1)
    given = rng.normal(0, 1, (1500, 24, 1, 1)) * (1 + T / 100)[:, None, None] + T[:, None, None]
    found = [evidence.weigh(each, T, WEIGHTS, 0.5, 2, 0, seed=1) for each in given]
    spread = np.std([each.mean[0, 0] for each in found])
    assert np.sqrt(np.mean([each.error[0, 0]**2 for each in found])) == pytest.approx(
        spread, rel=0.06)


def test_threshold_is_that_of_all_sign_flips():
    rng = np.random.default_rng(2)
    given = rng.normal(size=(8, 3, 3))
    t, weights = np.repeat([10, 20], 4), np.full(8, 1 / 8)
    scaled = given / np.sqrt(np.square(given).sum(0))
    largest = sorted((np.abs(np.tensordot(signs, scaled, 1)).max()
                      for signs in itertools.product([-1, 1], repeat=8)), reverse=True)
    found = evidence.weigh(given, t, weights, 0.1, 20_000, 0, seed=0).threshold
    assert largest[int(0.12 * 256)] <= found <= largest[int(0.08 * 256)]


def test_two_like_classes_show_something_at_most_as_often_as_the_level():
    """Symmetric, heavy-tailed, spatially dependent differences whose scale differs by step."""
    rng, images_, level = np.random.default_rng(3), 400, 0.1
    shown = 0
    for seed in range(images_):
        given = rng.standard_t(3, (24, 6, 6)) + 2 * rng.standard_t(3, (24, 1, 1))
        given *= (1 + T / 50)[:, None, None]
        shown += evidence.weigh(given, T, WEIGHTS, level, 100, 1.0, seed=seed).shown.any()
    slack = 3 * np.sqrt(level * (1 - level) / images_)
    assert level - slack <= shown / images_ <= level + slack  # neither too bold nor idle


def test_a_planted_difference_is_found_and_nothing_else():
    """Class 1 knows the image in one corner only: there, and only there, it denoises better."""
    shown = images(6, seed=4)
    front = fit_haar(images(32), 4, 0.0)
    known = np.zeros((1, 4, 4, 1))
    known[:, :2, :2] = 1  # latent positions

    def denoise(z0, z_t, t, label):
        gamma, delta = (part[t][:, None, None, None] for part in (SCHEDULE.gamma, SCHEDULE.delta))
        truth = (z_t - gamma * z0) / delta
        right = known * (label == 1)[:, None, None, None] * 0.8
        return guess(z_t, t) + right * (truth - guess(z_t, t))

    t, weights = np.tile(T, 3), np.tile(WEIGHTS, 3) / 3
    found, *_ = differences(
        denoise, front, shown, np.tile([1, 0], (6, 1)), front.encode(shown), t)
    for each in found:
        result = evidence.weigh(each, t, weights, 0.05, 400, 0, seed=0)
        assert not result.shown[8:].any() and not result.shown[:, 8:].any()
        assert result.shown[:8, :8].mean() > 0.6 and (result.mean[result.shown] > 0).all()


def test_a_null_denoiser_shows_nothing_beyond_the_level():
    """Two classes that err alike in size, each in its own way: real predictions, no evidence."""
    front, shown = fit_haar(images(32), 4, 0.0), images(60, seed=5)

    def denoise(params, z_t, t, label):
        own = jnp.where(label == 1, 1.0, -1.0)[:, None, None, None]
        return guess(z_t, t) + 0.3 * own * jnp.sin(40 * z_t)

    found, *_ = differences(denoise, front, shown, np.tile([1, 0], (60, 1)))
    count = sum(evidence.weigh(each, T, WEIGHTS, 0.05, 200, 0, seed=i).shown.any()
                for i, each in enumerate(found))
    assert count <= 60 * 0.05 + 3 * np.sqrt(60 * 0.05 * 0.95)


def test_overlay_is_red_for_blue_against_and_grey_elsewhere():
    statistic = np.array([[9.0, -9.0], [0.1, -0.1]])
    found = evidence.Evidence(statistic, np.ones((2, 2)), statistic, 3.0)
    drawn = evidence.overlay(np.full((2, 2), 100, np.uint8), found).astype(int)
    assert drawn.shape == (2, 2, 3)
    assert drawn[0, 0, 0] > drawn[0, 0, 2] and drawn[0, 1, 2] > drawn[0, 1, 0]
    assert (drawn[1:] == 100).all()
