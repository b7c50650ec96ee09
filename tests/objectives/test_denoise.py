"""What the denoiser is given of r in pre-training: how many numbers, with how much noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff import config as configs
from repdiff.diffusion.schedule import linear
from repdiff.errors import UserError
from repdiff.methods.denoise import pretrain_objective
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT
from repdiff.objectives.denoise import Pretrain

KEY = jax.random.key(5)
SIZES = {'width': 16, 'depth': 1, 'heads': 2, 'patch': 1}
GIVEN = 5


def objective(noise=0.0, kind='pooled'):
    denoiser = DiT(**SIZES, channels=3, conditioning='representation', representation=kind,
                   representation_width=GIVEN)
    return Pretrain(linear(1000), denoiser, ViT(**SIZES, grid=(4, 4)), drop_rate=0.5, noise=noise)


@pytest.fixture(scope='module')
def given():
    """Parameters without zeros, and a batch of latents."""
    z0 = jax.random.normal(KEY, (6, 4, 4, 3))
    params = objective().init(KEY, z0[:1])
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(KEY, x.shape), params), {'z0': z0}


@pytest.mark.parametrize('kind', ['pooled', 'tokens'])
def test_a_narrow_r_is_the_first_numbers_of_the_whole(given, kind):
    params, batch = given
    found = objective(kind=kind).represent(params, {}, batch, batch['z0'])
    patches = ViT(**SIZES, grid=(4, 4)).apply({'params': params['encoder']}, batch['z0'])['patches']
    whole = patches if kind == 'tokens' else patches.mean(1)
    assert whole.shape[-1] == 16
    np.testing.assert_array_equal(found, whole[..., :GIVEN])


def test_noise_on_r_is_what_the_loss_sees_and_nothing_else(given):
    params, batch = given
    z0, noise = batch['z0'], 0.7
    t_key, eps_key, drop_key = jax.random.split(KEY, 3)
    t = jax.random.randint(t_key, (6,), 0, 1000)
    eps, drop = jax.random.normal(eps_key, z0.shape), jax.random.bernoulli(drop_key, 0.5, (6,))
    quiet = objective()
    r = quiet.represent(params, {}, batch, z0)
    moved = r + noise * jax.random.normal(jax.random.fold_in(KEY, 1), r.shape)
    expected = quiet.losses(params, moved, z0, t, eps, drop).mean()
    found, _ = objective(noise)(params, {}, batch, KEY)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert abs(found - quiet(params, {}, batch, KEY)[0]) > 1e-4
    # Where r is dropped there is nothing to add noise to.
    dropped = quiet.losses(params, moved, z0, t, eps, ~jnp.zeros(6, bool))
    np.testing.assert_array_equal(dropped, quiet.losses(params, r, z0, t, eps, ~jnp.zeros(6, bool)))


def test_more_numbers_than_r_has_are_refused():
    config = configs.base()
    config.representation.width = config.model.width + 1
    with pytest.raises(UserError, match='representation.width is 65, but r has 64 numbers'):
        pretrain_objective(configs.recipe(config, 'rc_ldt'), (8, 8, 16))
