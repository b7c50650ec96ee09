"""Samplers against Gaussian data, for which the exact denoiser is known, and against a loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.diffusion import schedule as s
from repdiff.diffusion.noise import draw_noise
from repdiff.diffusion.samplers import ddim, ddpm, even_steps

SCHEDULE = s.linear(1000)
MEAN, SD = np.array([1.5, -0.5]), np.array([0.4, 0.9])  # of two channels, independent


def keys(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(7), count)


def exact(z_t: jax.Array, t: jax.Array) -> jax.Array:
    """E[ε | z_t] of the Gaussian data."""
    gamma, delta = (s.at(a, t, z_t) for a in (SCHEDULE.gamma, SCHEDULE.delta))
    return delta * (z_t - gamma * MEAN) / (gamma**2 * SD**2 + delta**2)


def exact_with_variance(steps: np.ndarray):
    """`exact` and the v at which the reverse step's variance is that of q(z_s | z_t)."""
    gamma, delta, beta, posterior = respaced(steps)
    noise = delta[:-1, None] ** 2 / (gamma[:-1, None] ** 2 * SD**2 + delta[:-1, None] ** 2)
    shift = gamma[1:] * beta / delta[:-1] ** 2  # of z0 in the mean of q(z_s | z_t, z0)
    variance = posterior[:, None] + shift[:, None] ** 2 * SD**2 * noise
    with np.errstate(divide='ignore', invalid='ignore'):
        low, high = np.log(posterior)[:, None], np.log(beta)[:, None]
        v = 2 * (np.log(variance) - low) / (high - low) - 1
    table = jnp.zeros((1000, 2)).at[steps].set(np.where(np.isfinite(v), v, 0))

    def denoise_fn(z_t, t):
        v = jnp.broadcast_to(table[t][:, None, None], z_t.shape)
        return jnp.concatenate([exact(z_t, t), v], -1)

    return denoise_fn


def respaced(steps: np.ndarray) -> tuple[np.ndarray, ...]:
    """(gamma, delta) of `steps` and of z0, (β, β̃) between them, from the definition in float64."""
    beta = np.linspace(1e-4, 0.02, 1000)
    kept = np.append(np.cumprod(1 - beta)[steps], 1.0)
    beta = 1 - kept[:-1] / kept[1:]
    return kept**0.5, (1 - kept) ** 0.5, beta, beta * (1 - kept[1:]) / (1 - kept[:-1])


def assert_moments(z0: jax.Array, mean: np.ndarray, covariance: np.ndarray):
    """The sample's mean and covariance, within 4 standard errors of the given ones."""
    z0 = np.asarray(z0, np.float64).reshape(-1, 2)
    variances = np.diag(covariance)
    assert (np.abs(z0.mean(0) - mean) < 4 * np.sqrt(variances / len(z0))).all()
    error = np.sqrt((np.outer(variances, variances) + covariance**2) / len(z0))
    assert (np.abs(np.cov(z0.T) - covariance) < 4 * error).all()


def z_999(count: int) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (count, 1, 1, 2))


def test_ddim_reaches_the_mean_and_covariance_of_gaussian_data():
    z0 = ddim(exact, SCHEDULE, z_999(4000), even_steps(999, 200))
    # Its last digits are the discretisation's: the closed form holds for many steps.
    assert np.abs(z0.mean((0, 1, 2)) - MEAN).max() < 0.03
    assert np.abs(np.cov(z0.reshape(-1, 2).T) - np.diag(SD**2)).max() < 0.05


def test_ddpm_of_all_steps_reaches_the_mean_and_covariance_of_gaussian_data():
    z0 = ddpm(exact, SCHEDULE, z_999(4000), range(999, -1, -1), keys(4000), 'posterior')
    assert np.abs(z0.mean((0, 1, 2)) - MEAN).max() < 0.05
    assert np.abs(np.cov(z0.reshape(-1, 2).T) - np.diag(SD**2)).max() < 0.05


def test_ddpm_on_few_steps_has_the_moments_that_its_variance_implies():
    """With the exact denoiser every step is linear, so mean and variance follow a recursion."""
    steps = even_steps(999, 12)
    gamma, delta, beta, posterior = respaced(steps)
    mean, variance = np.zeros(2), np.ones(2)
    for i in range(len(steps)):
        gain = delta[i] / (gamma[i] ** 2 * SD**2 + delta[i] ** 2)  # ε' = gain (z - gamma MEAN)
        ratio = gamma[i + 1] / gamma[i]
        slope = ratio * (1 - beta[i] / delta[i] * gain)
        mean = slope * mean + ratio * beta[i] / delta[i] * gain * gamma[i] * MEAN
        variance = slope**2 * variance + posterior[i]
    assert (variance < 0.9 * SD**2).all()  # so few steps of β̃ fall short of the data's spread
    z0 = ddpm(exact, SCHEDULE, z_999(4000), steps, keys(4000), 'posterior')
    assert_moments(z0, mean, np.diag(variance))


def test_the_right_learned_variance_makes_few_steps_exact():
    steps = np.array([999, 700, 400, 200, 80, 20, 0])
    z0 = ddpm(exact_with_variance(steps), SCHEDULE, z_999(4000), steps, keys(4000), 'learned')
    assert_moments(z0, MEAN, np.diag(SD**2))


@pytest.mark.parametrize('steps', [[999, 998, 997], [999, 500, 3, 0], [40, 0], [6]])
@pytest.mark.parametrize('variance', ['posterior', 'learned'])
def test_ddpm_is_a_loop_over_its_definition(steps, variance):
    """Nichol & Dhariwal 2021, eq. 10, 11 and 15, through z0', in float64."""
    z = np.asarray(jax.random.normal(jax.random.key(1), (3, 2, 2, 2)))

    def denoise_fn(z, t):
        return jnp.concatenate([0.5 * z + t[:, None, None, None] / 1000, 1.2 * jnp.sin(z)], -1)

    found = ddpm(denoise_fn, SCHEDULE, z, steps, keys(3), variance)
    gamma, delta, beta, posterior = respaced(np.array(steps))
    for i, t in enumerate(steps):
        eps, v = 0.5 * z + t / 1000, 1.2 * np.sin(z)
        z0 = (z - delta[i] * eps) / gamma[i]
        z = (gamma[i + 1] * beta[i] * z0
             + gamma[i] / gamma[i + 1] * delta[i + 1] ** 2 * z) / delta[i] ** 2
        if i < len(steps) - 1:
            share = (v + 1) / 2 if variance == 'learned' else 0
            log = share * np.log(beta[i]) + (1 - share) * np.log(posterior[i])
            z = z + np.exp(log / 2) * np.asarray(draw_noise(keys(3), t, z.shape[1:]))
    np.testing.assert_allclose(found, z, atol=2e-4 * np.abs(z).max())


def test_a_sample_does_not_depend_on_its_batch():
    steps = even_steps(999, 20)
    whole = ddpm(exact, SCHEDULE, z_999(6), steps, keys(6), 'posterior')
    parts = [ddpm(exact, SCHEDULE, z_999(6)[i], steps, keys(6)[i], 'posterior')
             for i in (slice(0, 1), slice(1, 4), slice(4, 6))]
    np.testing.assert_allclose(whole, jnp.concatenate(parts), atol=1e-6)
    assert not np.allclose(whole, ddpm(exact, SCHEDULE, z_999(6), steps, keys(6)[::-1],
                                       'posterior'), atol=0.1)


SAMPLERS = pytest.mark.parametrize('sampler', [
    ddim, functools.partial(ddpm, keys=keys(1), variance='posterior')], ids=['ddim', 'ddpm'])


@SAMPLERS
def test_is_compiled_once_for_all_steps(sampler):
    traces = []

    def denoise_fn(z_t, t):
        traces.append(t)
        return z_t

    sampler(denoise_fn, SCHEDULE, jnp.ones((1, 1, 1, 1)), even_steps(999, 50))
    assert len(traces) <= 2


@SAMPLERS
@pytest.mark.parametrize('steps', [[5, 5, 0], [0, 5], [1000, 0], [3, -1], []])
def test_steps_that_do_not_fall_within_range_are_refused(sampler, steps):
    with pytest.raises(ValueError, match='must fall strictly'):
        sampler(lambda z, t: z, SCHEDULE, jnp.ones((1, 1, 1, 1)), steps)


def test_a_variance_that_is_not_there_is_refused():
    z_t = jnp.ones((1, 1, 1, 2))
    with pytest.raises(ValueError, match='takes 4 predicted channels, not 2'):
        ddpm(exact, SCHEDULE, z_t, [5], keys(1), 'learned')
    with pytest.raises(ValueError, match='posterior, learned'):
        ddpm(exact, SCHEDULE, z_t, [5], keys(1), 'large')


def test_even_steps_start_and_end():
    np.testing.assert_array_equal(even_steps(10, 3), [10, 5, 0])
