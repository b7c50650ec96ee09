"""The loop: exact resume, the best checkpoint, and a stop at a loss that is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff import logbook, optim, sharding
from repdiff.checkpoint import best_ema
from repdiff.errors import UserError
from repdiff.train import Phase, train


class Batches:
    """Endless host batches whose state is their position."""

    def __init__(self):
        self.position = 0

    def __next__(self):
        self.position += 1
        return {'x': np.random.default_rng(self.position).normal(size=(8, 3)).astype(np.float32)}

    def get_state(self):
        return {'position': self.position}

    def set_state(self, state):
        self.position = state['position']


def loss_fn(params, frozen, batch, key):
    noisy = batch['x'] + 0.1 * jax.random.normal(key, batch['x'].shape)
    loss = jnp.mean(jnp.square(noisy @ params['scale'] - frozen['y']))
    return loss, {'loss': loss}


def phase(steps, evaluate=lambda params: (None, {}), loss_fn=loss_fn, keep=1):
    tx = optim.adamw(optim.learning_rate(0.1, 0, 20, 'constant'), b1=0.9, b2=0.99,
                     weight_decay=0.0, clip_norm=1.0)
    return Phase(
        name='p', loss_fn=loss_fn, tx=tx, params={'scale': jnp.ones((3, 2))},
        frozen={'y': jnp.array([1.0, -1.0])}, iterator=Batches(), evaluate=evaluate, steps=steps,
        batch=8, accumulate=1, ema_decay=0.9, log_every=2, checkpoint_every=4, keep=keep)


def run(directory, *args, **kwargs):
    directory.mkdir(exist_ok=True)
    return train(phase(*args, **kwargs), workdir=directory, mesh=sharding.make_mesh(-1, 1, 1),
                 key=jax.random.key(0))


def test_stopping_and_resuming_changes_nothing(tmp_path):
    whole = run(tmp_path / 'whole', 12)
    run(tmp_path / 'parts', 4)
    run(tmp_path / 'parts', 8)
    parts = run(tmp_path / 'parts', 12)
    np.testing.assert_array_equal(parts.params['scale'], whole.params['scale'])
    assert parts.step == whole.step == 12

    def losses(name):
        return [(line['step'], line['loss']) for line in logbook.read(tmp_path / name)
                if 'loss' in line]

    assert losses('parts') == losses('whole')
    again = run(tmp_path / 'whole', 12)
    np.testing.assert_array_equal(again.params['scale'], whole.params['scale'])
    assert again.seconds == pytest.approx(whole.seconds)


def test_the_checkpoint_with_the_best_score_is_returned_and_kept(tmp_path):
    scores = iter([0.3, 0.9, 0.5])
    seen = []

    def evaluate(params):
        seen.append(np.array(params['scale']))
        return next(scores), {'valid_auroc': 0.0}

    found = run(tmp_path, 12, evaluate)
    assert found.step == 8
    np.testing.assert_array_equal(found.params['scale'], seen[1])
    kept = {path.name for path in (tmp_path / 'checkpoints' / 'p').iterdir()}
    assert {'8', '12'} <= kept and '4' not in kept


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    def broken(params, frozen, batch, key):
        loss, scalars = loss_fn(params, frozen, batch, key)
        poison = jnp.where(jnp.abs(batch['x'][0, 0] - poisoned) < 1e-6, jnp.nan, 1.0)
        return loss * poison, {'loss': scalars['loss'] * poison}

    poisoned = np.random.default_rng(7).normal(size=(8, 3)).astype(np.float32)[0, 0]
    with pytest.raises(UserError, match=r'p: the loss is not finite at or before step 8'):
        run(tmp_path, 12, loss_fn=broken)
    assert [p.name for p in (tmp_path / 'checkpoints' / 'p').iterdir() if p.name.isdigit()] == ['4']


def test_a_gradient_that_is_not_finite_at_a_checkpoint_stops_before_it_is_evaluated(tmp_path):
    poisoned = np.random.default_rng(8).normal(size=(8, 3)).astype(np.float32)[0, 0]  # step 8

    def broken(params, frozen, batch, key):
        loss, scalars = loss_fn(params, frozen, batch, key)
        good = jnp.where(jnp.abs(batch['x'][0, 0] - poisoned) < 1e-6, 0.0, 1.0)
        return loss + 0 * jnp.sqrt(good * jnp.sum(params['scale'] ** 2)), scalars

    def evaluate(params):
        assert np.isfinite(params['scale']).all()
        return None, {}

    with pytest.raises(UserError, match=r'p: a parameter is not finite at or before step 8'):
        run(tmp_path, 12, evaluate, loss_fn=broken)
    assert [p.name for p in (tmp_path / 'checkpoints' / 'p').iterdir() if p.name.isdigit()] == ['4']


def test_no_steps_keep_the_start_as_a_checkpoint(tmp_path):
    for _ in range(2):
        found = run(tmp_path, 0)
        assert found.step == 0
        np.testing.assert_array_equal(found.params['scale'], np.ones((3, 2)))


def test_ema_parameters_are_read_back_alone(tmp_path):
    scores = iter([0.9, 0.1, 0.2])
    trained = run(tmp_path, 12, lambda params: (next(scores), {}))
    mesh = sharding.make_mesh(-1, 1, 1)
    found, step = best_ema(tmp_path / 'checkpoints' / 'p', trained.params, mesh)
    assert step == trained.step == 4
    np.testing.assert_array_equal(found['scale'], trained.params['scale'])
    assert best_ema(tmp_path / 'none', trained.params, mesh) is None
