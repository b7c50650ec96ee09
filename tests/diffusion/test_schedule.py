"""The schedule against its definition, and ε, z0, v against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.diffusion import schedule as s


def test_linear_schedule_is_the_cumulative_product_of_one_minus_beta():
    schedule = s.linear(1000)
    product, expected = 1.0, []
    for i in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
        expected.append(product**0.5)
    np.testing.assert_allclose(schedule.gamma, expected, rtol=1e-6)
    np.testing.assert_allclose(schedule.gamma**2 + schedule.delta**2, 1, atol=1e-6)
    # 1/SNR of DiT's schedule, computed independently of this code.
    inverse_snr = np.asarray(schedule.delta / schedule.gamma, np.float64) ** 2
    np.testing.assert_allclose(inverse_snr[[100, 300, 500, 900]], [.117, 1.54, 11.9, 3.7e3],
                               rtol=0.02)


def test_other_lengths_end_equally_noisy():
    assert float(s.linear(100).gamma[-1]) == pytest.approx(float(s.linear(1000).gamma[-1]), abs=2e-3)


def test_conversions_invert_and_agree():
    schedule = s.linear(1000)
    z0, eps = jax.random.normal(jax.random.key(0), (2, 5, 4, 4, 3))
    t = jnp.array([0, 10, 200, 500, 900])
    z_t = s.add_noise(schedule, z0, t, eps)
    scale = np.asarray(schedule.delta / schedule.gamma)[t][:, None, None, None]
    error = np.abs(s.z0_from_eps(schedule, z_t, t, eps) - z0) / np.maximum(scale, 1)
    assert error.max() < 1e-5
    np.testing.assert_allclose(s.eps_from_z0(schedule, z_t, t, z0)[2:], eps[2:], atol=1e-4)
    v = s.v_from_eps(schedule, z_t, t, eps)
    gamma, delta = (a[t][:, None, None, None] for a in (schedule.gamma, schedule.delta))
    np.testing.assert_allclose(v[:4], (gamma * eps - delta * z0)[:4], atol=1e-4)
    np.testing.assert_allclose(s.eps_from_v(schedule, z_t, t, gamma * eps - delta * z0), eps,
                               atol=1e-5)


def test_z0_error_is_the_eps_error_rescaled():
    schedule = s.linear(1000)
    z0, eps, wrong = jax.random.normal(jax.random.key(1), (3, 4, 2, 2, 3))
    t = jnp.array([50, 100, 300, 600])
    z_t = s.add_noise(schedule, z0, t, eps)
    z0_error = jnp.square(s.z0_from_eps(schedule, z_t, t, wrong) - z0).sum((1, 2, 3))
    eps_error = jnp.square(eps - wrong).sum((1, 2, 3))
    np.testing.assert_allclose(z0_error, eps_error * (schedule.delta / schedule.gamma)[t] ** 2,
                               rtol=1e-4)
