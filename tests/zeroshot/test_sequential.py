"""The early stop on simulated draws: its level, its plan, and its answers against the full budget."""

import numpy as np
import pytest
from scipy import stats

from repdiff.errors import UserError
from repdiff.zeroshot import sequential
from repdiff.zeroshot.rules import Rule


def settings(**changes):
    given = {'alpha': 0.1, 'budget': 128, 'min_draws': 8, 'growth': 1.25, 'stratified': True,
             'antithetic': False}
    return sequential.Settings(**given | changes)


def rule(weights=(1.0,), spread=None, vote=False):
    weights = np.array(weights)
    t = 10 * (1 + np.arange(weights.size))
    spread = np.ones(weights.size) if spread is None else np.array(spread)
    return Rule('r', 'l2', vote, t, weights / weights.sum(), spread)


def run(errors, of, how, offsets):
    """The outcome, the full budget's decisions and the early ones, on given errors (B, K, S)."""
    plan = sequential.make_plan(of, how, errors.shape[1])
    asked = []

    def look_up(image, klass, draw, t):
        assert np.array_equal(t, plan.t[draw])
        asked.append(np.stack([image, klass, draw], 1))
        return errors[image, klass, draw][:, None]

    found = sequential.evaluate(look_up, of, plan, offsets, len(errors))
    asked = np.concatenate(asked)
    assert len(np.unique(asked, axis=0)) == len(asked) == found.draws.sum()  # none twice
    full = (offsets - of.terms(errors) @ plan.share).argmax(1)
    return found, full, (found.scores + offsets).argmax(1)


def at_the_cut(of, how, count, noise=((1.0,), (1.0,)), skew=0, seed=0):
    """Errors whose full means are all equal but for a hair: the worst case of the test.

    noise: standard deviation (K, J or 1) of each class and step; of pairs that of their mean, from
    which both draws are far. skew: sign of class 0's exponential differences; 0 for normal ones.
    """
    plan, rng = sequential.make_plan(of, how, 2), np.random.default_rng(seed)
    scale = np.broadcast_to(noise, (len(noise), of.t.size))
    scale = scale[:, np.searchsorted(of.t, plan.t[:: plan.unit])]
    shape = (count, *scale.shape)
    errors = scale * (skew * rng.exponential(size=shape) if skew else rng.normal(size=shape))
    if plan.unit == 2:
        apart = 5 * rng.normal(size=shape)
        errors = np.stack([errors + apart, errors - apart], -1).reshape(count, len(noise), -1)
    errors -= (errors @ plan.share)[..., None]
    return (errors + 1e-5 * rng.normal(size=(*errors.shape[:2], 1))).astype(np.float32)


def error_rate(of, how, **given):
    errors = at_the_cut(of, how, 2000, **given)
    _, full, early = run(errors, of, how, np.zeros(errors.shape[1]))
    return np.mean(full != early)


FOUR = ((1.0,),) * 4
UNEQUAL_CLASSES = ((0.2,), (1.0,), (3.0,))
ONE_NOISY = ((1.0, 1.0, 1.0, 5.0),) * 2
NOISY_WHERE_FEW_ARE_DRAWN = ((1.0, 0.01, 0.01, 0.01),) * 2


@pytest.mark.parametrize('antithetic', [False, True])
@pytest.mark.parametrize('of, noise, least, most', [
    (rule(), ((1.0,),) * 2, 0.6, 1.0),
    (rule((1, 2, 3), spread=(1, 2, 0.5)), ((1.0, 2.0, 0.5),) * 2, 0.6, 1.0),
    (rule(), FOUR, 0.0, 1.0),
    (rule(), UNEQUAL_CLASSES, 0.0, 1.0),
    (rule(vote=True), ((1.0,),) * 2, 0.0, 1.0),
    # Steps of other noise than the rule supposes: Welch's degrees of freedom are no exact ones.
    (rule((1, 1, 1, 1)), ONE_NOISY, 0.6, 1.4),
    (rule((1, 1, 1, 1), spread=(1, 1, 1, 5)), NOISY_WHERE_FEW_ARE_DRAWN, 0.6, 1.4),
])
def test_error_rate_stays_under_alpha_in_the_worst_case(of, noise, least, most, antithetic):
    """`least`, `most` of alpha: spent, not wasted, and exceeded only where the bound says so."""
    alpha = 0.1
    wrong = error_rate(of, settings(alpha=alpha, antithetic=antithetic), noise=noise)
    assert least * alpha < wrong < most * alpha + 3 * np.sqrt(alpha * (1 - alpha) / 2000)


@pytest.mark.parametrize('skew', [1, -1])
def test_strong_skew_costs_less_than_twice_alpha(skew):
    """The test's t-distribution is exact for normal differences alone; README says what skew does.

    Class 1 has no noise, and the pairs are few at the first looks, as by default.
    """
    how = settings(alpha=0.05, min_draws=16, antithetic=True)
    assert 0.05 < error_rate(rule(), how, noise=((1.0,), (0.0,)), skew=skew) < 0.1


def test_a_step_with_one_draw_in_all_is_known_and_no_obstacle():
    of, how = rule((1, 1, 1, 97)), settings(budget=16, alpha=0.3)
    counts = np.unique(sequential.make_plan(of, how, 2).t, return_counts=True)[1]
    assert counts.tolist() == [1, 1, 1, 13]
    found, _, _ = run(np.random.default_rng(0).normal(size=(20, 2, 16)) + [[0], [50]], of, how,
                      np.zeros(2))
    assert (found.draws < 16).all()


def test_looks_that_are_not_corrected_for_err_too_often():
    of, how = rule(), settings()
    errors = at_the_cut(of, how, 1000)
    plan = sequential.make_plan(of, how, 2)
    bold = sequential.Plan(**{**vars(plan), 'level': how.alpha})
    found = sequential.evaluate(
        lambda i, k, s, t: errors[i, k, s][:, None], of, bold, np.zeros(2), 1000)
    assert np.mean(found.scores.argmax(1) != -errors.mean(-1).argmin(1)) > 2 * how.alpha


def test_level_of_many_looks_equals_simulation():
    times = np.array([0.02, 0.05, 0.1, 0.4, 1.0])
    level = sequential.spent_level(times, 0.05)
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(400_000, 5)) * np.sqrt(np.diff(times, prepend=0))
    top = (steps.cumsum(1) / np.sqrt(times)).max(1)
    assert np.mean(top > stats.norm.isf(level)) == pytest.approx(0.05, abs=0.0015)
    assert 0.01 < level < 0.05
    assert sequential.spent_level(times[:1], 0.05) == pytest.approx(0.05, rel=1e-3)
    assert sequential.spent_level(times[:0], 0.05) == 0


@pytest.mark.parametrize('changes', [{}, {'stratified': False}, {'antithetic': True}])
def test_clear_images_stop_early_and_agree(changes):
    rng = np.random.default_rng(1)
    errors = rng.normal(size=(400, 2, 128))
    errors[:, 1] += rng.normal(size=(400, 1))
    offsets = np.array([0.0, 0.3])
    found, full, early = run(errors, rule((1, 1, 2)), settings(**changes), offsets)
    assert np.mean(full == early) > 0.99
    assert found.draws.mean() < 128 / 2
    assert np.isnan(found.errors).mean() > 0.3
    drawn = ~np.isnan(found.errors)
    np.testing.assert_array_equal(drawn.sum(-1), found.draws)


def test_classes_leave_one_by_one_and_score_no_higher_than_the_winner():
    rng = np.random.default_rng(2)
    errors = rng.normal(size=(200, 6, 128)) + np.array([0, 0.3, 1, 2, 2, 3])[:, None]
    offsets = np.linspace(0, 0.1, 6)
    found, full, early = run(errors, rule(), settings(), offsets)
    assert np.mean(full == early) > 0.98
    mean = found.draws.mean(0)
    assert mean[5] < mean[2] < mean[0] and mean[5] < 12
    survivors = found.draws == found.draws.max(1, keepdims=True)
    assert survivors[np.arange(200), early].all()


def test_under_a_vote_classes_leave_together():
    rng = np.random.default_rng(3)
    errors = rng.normal(size=(100, 3, 128)) + np.array([0, 1, 2])[:, None]
    found, full, early = run(errors, rule(vote=True), settings(), np.zeros(3))
    assert (found.draws == found.draws[:, :1]).all() and found.draws.mean() < 64
    assert np.mean(full == early) > 0.98


def test_alpha_0_spends_the_whole_budget_and_gives_the_weighted_mean():
    errors = np.random.default_rng(4).normal(size=(20, 2, 128))
    of = rule((1, 5))
    found, full, early = run(errors, of, settings(alpha=0), np.zeros(2))
    assert (found.draws == 128).all() and (full == early).all()
    plan = sequential.make_plan(of, settings(alpha=0), 2)
    np.testing.assert_allclose(found.scores, of.scores(plan.t, errors), rtol=1e-6)


def test_strata_come_in_turn_and_more_draws_go_where_weight_and_noise_are():
    plan = sequential.make_plan(rule((1, 1, 1, 1), spread=(1, 1, 1, 5)), settings(), 2)
    counts = np.unique(plan.t, return_counts=True)[1]
    assert counts.sum() == 128 and counts[3] > 4 * counts[0]
    assert sorted(plan.t[:8].tolist()) == [10, 10, 20, 20, 30, 30, 40, 40]
    assert plan.looks[0] == 8 and (np.diff(plan.looks) > 0).all() and plan.looks[-1] < 128
    for n in (8, 50, 128):
        for step, weight in ((10, 0.25), (40, 0.25)):
            assert plan.weights(n)[plan.t[:n] == step].sum() == pytest.approx(weight)
    random = sequential.make_plan(rule((1, 1, 1, 1)), settings(stratified=False), 2)
    assert random.stratum.max() == 0 and random.weights(128).sum() == pytest.approx(1)
    paired = sequential.make_plan(rule((1, 1)), settings(antithetic=True), 2)
    assert (paired.t[::2] == paired.t[1::2]).all() and (paired.looks % 2 == 0).all()


def test_images_without_any_difference_spend_the_budget():
    found, _, _ = run(np.ones((3, 2, 128)), rule(), settings(), np.zeros(2))
    assert (found.draws == 128).all()


@pytest.mark.parametrize('changes, words', [
    ({'alpha': 0.5}, 'alpha is 0.5; give a probability'),
    ({'budget': 0}, 'budget is 0'),
    ({'min_draws': 1}, 'min_draws is 1'),
    ({'growth': 1.0}, 'growth is 1.0'),
    ({'budget': 7, 'antithetic': True}, 'come in pairs'),
])
def test_bad_settings_are_named(changes, words):
    with pytest.raises(UserError, match=words):
        settings(**changes)


def test_a_budget_below_the_rules_steps_is_refused():
    with pytest.raises(UserError, match='too few draws for the 3 steps'):
        sequential.make_plan(rule((1, 1, 1)), settings(budget=2), 2)
