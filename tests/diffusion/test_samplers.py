"""DDIM against Gaussian data, for which the exact denoiser is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.diffusion import schedule as s
from repdiff.diffusion.samplers import ddim, even_steps


def test_ddim_reaches_the_mean_and_spread_of_gaussian_data():
    schedule, mean, sd = s.linear(1000), 1.5, 0.4

    def exact(z_t, t):
        gamma, delta = (s.at(a, t, z_t) for a in (schedule.gamma, schedule.delta))
        return delta * (z_t - gamma * mean) / (gamma**2 * sd**2 + delta**2)

    z_t = jax.random.normal(jax.random.key(0), (4000, 1, 1, 1))
    z0 = ddim(exact, schedule, z_t, even_steps(999, 200))
    assert abs(float(z0.mean()) - mean) < 0.03
    assert abs(float(z0.std()) - sd) < 0.02


def test_ddim_is_compiled_once_for_all_steps():
    schedule, traces = s.linear(1000), []

    def denoise_fn(z_t, t):
        traces.append(t)
        return z_t

    ddim(denoise_fn, schedule, jnp.ones((1, 1, 1, 1)), even_steps(999, 50))
    assert len(traces) <= 2


@pytest.mark.parametrize('steps', [[5, 5, 0], [0, 5], [1000, 0], [3, -1]])
def test_ddim_refuses_steps_that_do_not_fall_within_range(steps):
    with pytest.raises(ValueError, match='must fall strictly'):
        ddim(lambda z, t: z, s.linear(1000), jnp.ones((1, 1, 1, 1)), steps)


def test_even_steps_start_and_end():
    np.testing.assert_array_equal(even_steps(10, 3), [10, 5, 0])
