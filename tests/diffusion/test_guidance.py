"""Guidance where it has a closed form, and denoisers by range of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.diffusion import schedule as s
from repdiff.diffusion.guidance import guided, within
from repdiff.diffusion.samplers import ddim, ddpm, even_steps

SCHEDULE, SD = s.linear(1000), 0.4
CLASS, ALL = 1.5, 0.5  # means


def exact(mean):
    """The exact denoiser of Gaussian data N(mean, SD²)."""

    def denoise_fn(z_t, t):
        gamma, delta = (s.at(a, t, z_t) for a in (SCHEDULE.gamma, SCHEDULE.delta))
        return delta * (z_t - gamma * mean) / (gamma**2 * SD**2 + delta**2)

    return denoise_fn


@pytest.mark.parametrize('scale', [1.0, 2.5])
@pytest.mark.parametrize('sampler', ['ddim', 'ddpm'])
def test_guided_gaussians_reach_the_extrapolated_mean_and_the_same_spread(scale, sampler):
    """Two Gaussians of one spread: guidance samples N(all + scale (class - all), SD²) exactly."""
    z_t, keys = jax.random.normal(jax.random.key(0), (4000, 1, 1, 1)), jax.random.split(
        jax.random.key(1), 4000)
    denoise_fn = guided(exact(CLASS), exact(ALL), scale)

    @jax.jit
    def sample(z_t):
        if sampler == 'ddim':
            return ddim(denoise_fn, SCHEDULE, z_t, even_steps(999, 200))
        return ddpm(denoise_fn, SCHEDULE, z_t, even_steps(999, 200), keys, 'posterior')

    z0 = sample(z_t)
    assert abs(float(z0.mean()) - (ALL + scale * (CLASS - ALL))) < 0.04
    assert abs(float(z0.std()) - SD) < 0.03


def test_scales_one_and_nothing_are_the_models_themselves():
    conditional, unconditional = exact(CLASS), exact(ALL)
    assert guided(conditional, unconditional, 1) is conditional
    assert guided(conditional, unconditional, 0) is unconditional


def test_a_learned_variance_is_the_conditional_models():
    def model(eps, variance):
        return lambda z, t: jnp.concatenate([eps + 0 * z, variance + 0 * z], -1)

    found = guided(model(2.0, 7.0), model(1.0, 3.0), 3.0)(jnp.ones((1, 2, 2, 4)), jnp.zeros(1, int))
    np.testing.assert_array_equal(found[..., :4], 4.0)
    np.testing.assert_array_equal(found[..., 4:], 7.0)


def test_one_denoiser_within_a_range_of_steps_and_another_outside():
    denoise_fn = jax.jit(within((10, 20), lambda z, t: z + 1, lambda z, t: z - 1))
    z = jnp.zeros((3, 1, 1, 1))
    found = [float(denoise_fn(z, jnp.full(3, t))[0, 0, 0, 0]) for t in (9, 10, 19, 20)]
    assert found == [-1, 1, 1, -1]
