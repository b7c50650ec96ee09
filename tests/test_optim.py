"""Optimizer rules: coverage, decay masks, schedules."""

import jax.numpy as jnp
import numpy as np
import pytest

from repdiff import optim


def test_first_rule_wins_and_uncovered_parameters_are_named():
    rules = ((r'a/kernel$', 1), (r'kernel$', 2))
    params = {'a': {'kernel': 0}, 'b': {'kernel': 0}}
    assert optim.match(rules, params) == {'a': {'kernel': 1}, 'b': {'kernel': 2}}
    with pytest.raises(ValueError, match='b/strange'):
        optim.match(rules, {'b': {'strange': 0}})


def test_weight_decay_touches_kernels_only():
    params = {'a': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}, 'null': jnp.ones(2)}
    tx = optim.adamw(optim.learning_rate(0.1, 0, 10, 'constant'), b1=0.9, b2=0.99,
                     weight_decay=0.5, clip_norm=1.0)
    zero = {'a': {'kernel': jnp.zeros((2, 2)), 'bias': jnp.zeros(2)}, 'null': jnp.zeros(2)}
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(updates['a']['kernel'], -0.1 * 0.5)
    assert not updates['a']['bias'].any() and not updates['null'].any()


def test_learning_rate_warms_up_then_falls_to_zero():
    rate = optim.learning_rate(1.0, 10, 110, 'cosine')
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(60), rate(110)],
                               [0, 0.5, 1, 0.5, 0], atol=1e-6)
    constant = optim.learning_rate(0.3, 0, 110, 'constant')
    np.testing.assert_allclose([constant(0), constant(500)], [0.3, 0.3])


def test_ema_decay_warms_up():
    ema = optim.ema_update({'x': jnp.float32(0)}, {'x': jnp.float32(1)}, jnp.int32(0), 0.99)
    assert float(ema['x']) == pytest.approx(0.9)
    ema = optim.ema_update({'x': jnp.float32(0)}, {'x': jnp.float32(1)}, jnp.int32(10**6), 0.99)
    assert float(ema['x']) == pytest.approx(0.01)
