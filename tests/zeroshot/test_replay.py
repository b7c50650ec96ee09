"""Replays against outcomes, and variances against draws whose variance is known."""

import numpy as np
import pytest

from repdiff.zeroshot import replay, sequential
from repdiff.zeroshot.calibrate import Calibration
from repdiff.zeroshot.decision import Decision
from repdiff.zeroshot.rules import Rule

CHOSEN = Decision(Rule('r', 'l2', False, np.array([10, 20]), np.ones(2) / 2, np.ones(2)),
                  Calibration(1.0, np.zeros(2)), 0.5)


def settings(**changes):
    given = {'alpha': 0.05, 'budget': 64, 'min_draws': 8, 'growth': 1.5, 'stratified': True,
             'antithetic': False}
    return sequential.Settings(**given | changes)


def full_outcome(errors, how):
    plan = sequential.make_plan(CHOSEN.rule, how, 2)
    drawn = np.full(errors.shape[:2], errors.shape[2], np.int32)
    scores = sequential.scores(CHOSEN.rule, plan, np.zeros(2), errors, drawn)
    return sequential.Outcome(errors, drawn, scores), plan


def test_curves_are_of_the_early_stop_itself_and_cost_what_it_draws():
    rng = np.random.default_rng(0)
    errors = rng.normal(size=(300, 2, 64)).astype(np.float32)
    errors[:, 1] += rng.normal(size=(300, 1))
    full, _ = full_outcome(errors, settings(alpha=0.0))
    found = replay.curves(full, CHOSEN, settings())
    early = sequential.evaluate(
        lambda i, k, s, t: errors[i, k, s][:, None], CHOSEN.rule,
        sequential.make_plan(CHOSEN.rule, settings(), 2), CHOSEN.offsets, 300)
    [point] = [point for point in found['sequential'] if point['alpha'] == 0.05]
    assert point['cost'] == pytest.approx(early.draws.mean() / 64)
    same = CHOSEN.classify(early.scores) == CHOSEN.classify(full.scores)
    assert point['agreement'] == same.mean() > 0.95
    for bold, careful in zip(found['uncorrected'], found['sequential'], strict=True):
        assert bold['cost'] <= careful['cost'] and bold['agreement'] <= careful['agreement'] + 0.01
    assert [point['draws'] for point in found['fixed']] == [2, 4, 8, 16, 32]
    assert found['fixed'][0]['agreement'] < found['fixed'][-1]['agreement']


def test_variance_ratios():
    rng = np.random.default_rng(1)
    errors = np.zeros((500, 2, 64))
    plan = sequential.make_plan(CHOSEN.rule, settings(), 2)
    # Between the two steps the difference has variance 1, within a step 1: a half is left.
    errors[:, 1] = np.where(plan.t == 10, 1.0, -1.0) + rng.normal(size=(500, 64))
    full, plan = full_outcome(errors, settings())
    assert replay.stratified_ratio(full, CHOSEN, plan) == pytest.approx(0.5, abs=0.03)
    # Half the variance of a draw turns its sign with ε, so a pair keeps the other half.
    linear, square = rng.normal(size=(2, 500, 32))
    signs = np.tile([1.0, -1.0], 32)
    errors[:, 1] = np.repeat(linear, 2, 1) * signs + np.repeat(square, 2, 1)
    pairs, plan = full_outcome(errors, settings(antithetic=True))
    assert replay.antithetic_ratio(pairs, CHOSEN, plan) == pytest.approx(1.0, abs=0.05)
    errors[:, 1] = np.repeat(linear, 2, 1) * signs + rng.normal(size=(500, 64))
    pairs, plan = full_outcome(errors, settings(antithetic=True))
    assert replay.antithetic_ratio(pairs, CHOSEN, plan) == pytest.approx(0.5, abs=0.05)
