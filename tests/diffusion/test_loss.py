"""The per-example loss against a loop."""

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.diffusion import schedule as s
from repdiff.diffusion.loss import denoising_loss


def test_loss_is_a_mean_per_example_and_ignores_a_learned_variance():
    schedule = s.linear(1000)
    z0, eps = jax.random.normal(jax.random.key(0), (2, 3, 2, 2, 4))
    t = jnp.array([5, 400, 999])

    def denoise_fn(z_t, t):
        return jnp.concatenate([z_t * 0.3 + t[:, None, None, None] / 1000, z_t + 100], -1)

    found = denoising_loss(denoise_fn, schedule, z0, t, eps)
    assert found.shape == (3,) and found.dtype == jnp.float32
    for b in range(3):
        z_t = schedule.gamma[t[b]] * z0[b] + schedule.delta[t[b]] * eps[b]
        expected = np.mean((eps[b] - (0.3 * z_t + t[b] / 1000)) ** 2)
        np.testing.assert_allclose(found[b], expected, rtol=1e-5)


def test_loss_is_float32_whatever_the_prediction_is():
    schedule = s.linear(10)
    z0 = jnp.ones((1, 2, 2, 1))
    loss = denoising_loss(lambda z, t: z.astype(jnp.bfloat16), schedule, z0, jnp.array([3]), z0)
    assert loss.dtype == jnp.float32
