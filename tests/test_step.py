"""The training step: against optax by hand, with accumulation, and on eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from repdiff import optim, sharding
from repdiff.diffusion.schedule import linear
from repdiff.latents.frontend import fit_pca
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT
from repdiff.objectives.denoise import Pretrain
from repdiff.step import create_state, jit_train_step, make_train_step

KEY = jax.random.key(11)


def quadratic(params, frozen, batch, key):
    """A loss whose noise is the batch's own, so that parts of a batch average to the whole."""
    loss = jnp.mean(jnp.square(batch['x'] @ params['kernel'] - frozen['y']))
    return loss, {'loss': loss}


def setting():
    params = {'kernel': jax.random.normal(KEY, (4, 3))}
    tx = optim.adamw(optim.learning_rate(0.1, 2, 10, 'cosine'), b1=0.9, b2=0.99, weight_decay=0.1,
                     clip_norm=0.5)
    batch = {'x': jax.random.normal(jax.random.key(1), (8, 4))}
    return params, tx, {'y': jnp.array([1.0, 2.0, 3.0])}, batch


def test_step_equals_optax_by_hand():
    params, tx, frozen, batch = setting()
    step = make_train_step(quadratic, tx, ema_decay=0.99, accumulate=1)
    state = create_state(params, tx)
    by_hand, opt_state, ema = params, tx.init(params), params
    for n in range(3):
        state, scalars = step(state, frozen, batch, KEY)
        loss, grads = jax.value_and_grad(lambda p: quadratic(p, frozen, batch, KEY)[0])(by_hand)
        updates, opt_state = tx.update(grads, opt_state, by_hand)
        by_hand = optax.apply_updates(by_hand, updates)
        decay = min(0.99, (1 + n) / (10 + n))
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, by_hand)
        np.testing.assert_allclose(scalars['loss'], loss, rtol=1e-6)
    np.testing.assert_allclose(state.params['kernel'], by_hand['kernel'], rtol=1e-6)
    np.testing.assert_allclose(state.ema['kernel'], ema['kernel'], rtol=1e-5)
    assert int(state.step) == 3


@pytest.mark.parametrize('accumulate', [2, 4])
def test_accumulation_equals_the_whole_batch_and_moves_the_ema_once(accumulate):
    params, tx, frozen, batch = setting()
    results = []
    for parts in (1, accumulate):
        step = make_train_step(quadratic, tx, ema_decay=0.9, accumulate=parts)
        results.append(step(create_state(params, tx), frozen, batch, KEY))
    (whole, scalars), (parted, parted_scalars) = results
    np.testing.assert_allclose(parted.params['kernel'], whole.params['kernel'], rtol=1e-5)
    np.testing.assert_allclose(parted.ema['kernel'], whole.ema['kernel'], rtol=1e-5)
    np.testing.assert_allclose(parted_scalars['loss'], scalars['loss'], rtol=1e-5)


def test_each_step_draws_new_noise_and_a_repeated_step_the_same():
    def noisy(params, frozen, batch, key):
        draw = jax.random.normal(key)
        return draw * params['kernel'].sum(), {'loss': draw}

    params, tx, frozen, batch = setting()
    step = make_train_step(noisy, tx, ema_decay=0.9, accumulate=1)
    state = create_state(params, tx)
    after, first = step(state, frozen, batch, KEY)
    _, second = step(after, frozen, batch, KEY)
    assert first['loss'] != second['loss']
    assert first['loss'] == step(state, frozen, batch, KEY)[1]['loss']


def denoising():
    """A small representation-conditioned pre-training step on a real front end."""
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
    basis = fit_pca(images, patch=2, channels=4, whiten=0.0)
    sizes = dict(width=16, depth=2, heads=2, patch=1)
    objective = Pretrain(
        linear(1000),
        DiT(**sizes, channels=4, conditioning='representation', representation='pooled'),
        ViT(**sizes, grid=(4, 4)), 0.3,
    )
    tx = optim.adamw(optim.learning_rate(1e-3, 0, 10, 'constant'), b1=0.9, b2=0.99,
                     weight_decay=0.01, clip_norm=1.0)
    params = objective.init(KEY, jnp.zeros((1, 4, 4, 4)))
    params = jax.tree.map(
        lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    return objective, tx, params, {'frontend': basis}, {'image': images}


@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 4, 1), (1, 4, 2)])
def test_step_on_eight_devices_equals_one_device(shape):
    objective, tx, params, frozen, batch = denoising()
    step = make_train_step(objective, tx, ema_decay=0.9, accumulate=1)
    single, scalars = jax.jit(step)(create_state(params, tx), frozen, batch, KEY)
    mesh = sharding.make_mesh(*shape)
    state = create_state(params, tx)
    placed = jax.device_put(state, sharding.state_shardings(state, mesh))
    compiled = jit_train_step(step, placed, mesh)
    sharded, sharded_scalars = compiled(placed, frozen, sharding.to_devices(batch, mesh), KEY)
    np.testing.assert_allclose(sharded_scalars['loss'], scalars['loss'], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
                 sharded.params, single.params)
    kernel = sharded.params['denoiser']['blocks']['mlp']['fc1']['kernel']
    share = kernel.addressable_shards[0].data.size / kernel.size
    assert share == 1 / (shape[1] * shape[2])
