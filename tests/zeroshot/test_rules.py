"""Decision rules: identities between ε, z0 and v, votes, learned weights, selection, AUROC."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from repdiff.diffusion.schedule import linear
from repdiff.zeroshot import rules

SCHEDULE = linear(1000)
T = np.array([50, 200, 600, 50, 200, 600])
STEPS = np.array([50, 200, 600])


def errors(seed=0, count=200, classes=2, signal=(0.0, 0.3, 0.0)):
    """Errors whose classes differ by `signal` at the three steps, under noise shared by classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    found = np.repeat(1 + rng.normal(size=(count, 1, T.size)), classes, 1)
    found += 0.2 * rng.normal(size=found.shape)
    for s, t in enumerate(T):
        found[np.arange(count), labels, s] -= signal[(50, 200, 600).index(t)]
    return found, labels


def by_name(found, kind='l2', t=T):
    return {rule.name: rule for rule in rules.candidates(SCHEDULE, t, found, kind)}


@pytest.mark.parametrize('kind, degree, suffix', [('l2', 2, ''), ('l1', 1, ' l1')])
def test_weights_sum_to_one_and_are_what_the_identities_say(kind, degree, suffix):
    named = by_name(errors()[0], kind)
    assert all(rule.weights.sum() == pytest.approx(1) for rule in named.values())
    gamma, delta = (np.asarray(a)[STEPS] for a in (SCHEDULE.gamma, SCHEDULE.delta))
    for name, factor in (('z0', delta / gamma), ('v', 1 / gamma)):
        ratio = named[name + suffix].weights / named['eps' + suffix].weights
        np.testing.assert_allclose(ratio / ratio[0], (factor / factor[0]) ** degree, rtol=1e-5)
    single = named['t=200' + suffix]
    assert (single.t, single.weights) == ([200], [1.0])
    assert 'z0 huber' not in by_name(errors()[0], 'huber')


def test_scores_are_weighted_means_by_hand():
    found, _ = errors(count=5)
    rule = rules.Rule('', 'l2', False, np.array([50, 600]), np.array([0.25, 0.75]), np.ones(2))
    expected = -(0.25 * found[..., [0, 3]].mean(-1) + 0.75 * found[..., [2, 5]].mean(-1))
    np.testing.assert_allclose(rule.scores(T, found), expected)


def test_at_one_t_every_rule_of_means_picks_the_same_labels():
    found, _ = errors()
    one = found[..., T == 200]
    picks = {
        tuple(rule.scores(T[T == 200], one).argmax(1))
        for rule in rules.candidates(SCHEDULE, T[T == 200], one, 'l2') if not rule.vote
    }
    assert len(picks) == 1


def test_votes_are_shares_of_draws_and_penalties_do_not_change_them():
    found, _ = errors(classes=3)
    vote = by_name(found)['vote']
    shares = np.stack([(found.argmin(1) == k).mean(-1) for k in range(3)], 1)
    np.testing.assert_allclose(vote.scores(T, found) + 1, shares)
    np.testing.assert_allclose(vote.scores(T, np.sqrt(found + 5)) + 1, shares)


def test_the_chosen_rule_looks_where_the_classes_differ():
    found, labels = errors()
    rule, scores = rules.choose(SCHEDULE, T, found[..., None], ('l2',), labels, np.arange(200))
    weight_at_200 = rule.weights[rule.t == 200].sum()
    assert weight_at_200 > 0.8
    assert rules.auroc(scores, labels) > 0.9


def test_the_penalty_is_chosen_too():
    found, labels = errors()
    noise, _ = errors(seed=1, signal=(0, 0, 0))
    rule, _ = rules.choose(SCHEDULE, T, np.stack([noise, found], -1), ('l2', 'l1'), labels,
                           np.arange(200))
    assert rule.kind == 'l1' and rule.name.endswith(' l1')


def test_learned_weights_are_cross_fitted_and_find_unequal_signal():
    found, labels = errors(count=600, signal=(0.1, 0.3, 0.0))
    rule, scores = rules.learned(T, found, labels, np.arange(600), 'l2')
    weight = dict(zip(rule.t.tolist(), rule.weights, strict=True))
    assert weight[200] > weight[50] > weight.get(600, 0.0)
    assert rules.auroc(scores, labels) == pytest.approx(rules.auroc(rule.scores(T, found), labels),
                                                        abs=0.02)
    # Labels that mean nothing are not found again by weights fitted on other images.
    many = np.random.default_rng(0).normal(size=(60, 2, 40))
    made_up, t = np.random.default_rng(1).integers(0, 2, 60), np.arange(40)
    rule, scores = rules.learned(t, many, made_up, np.arange(60), 'l2')
    assert rules.auroc(scores, made_up) < 0.65 < rules.auroc(rule.scores(t, many), made_up)


def test_folds_are_of_patients():
    """Ten slices a patient, alike but for a hair, and labels by patient that mean nothing."""
    rng, t = np.random.default_rng(0), np.arange(40)
    patients, labels = np.repeat(np.arange(12), 10), np.repeat(np.arange(12) % 2, 10)
    many = rng.normal(size=(12, 2, 40))[patients] + 0.1 * rng.normal(size=(120, 2, 40))
    found = {len(set(of)): rules.auroc(rules.learned(t, many, labels, of, 'l2')[1], labels)
             for of in (patients, np.arange(120))}
    assert found[120] > 0.9 > 0.7 > found[12]
    folds = rules._folds(labels, patients)
    assert len(set(zip(folds, patients))) == 12  # each patient in one
    assert all(set(labels[folds == k]) == {0, 1} for k in range(rules.FOLDS))


def test_more_images_take_part_in_learning():
    found, labels = errors(count=30, signal=(0, 0.05, 0))
    more = errors(seed=5, count=2000, signal=(0.3, 0, 0))
    weights = {}
    for extra in (None, more):
        rule, _ = rules.learned(T, found, labels, np.arange(30), 'l2', extra)
        weights[extra is None] = rule.weights[rule.t == 50].sum()
    assert weights[False] > 0.8 > weights[True]


def test_inverse_sd_weighs_noisy_steps_less():
    found, _ = errors()
    found[..., T == 600] *= np.where(np.arange(2) == 0, 1.0, 9.0)[:, None]
    weights = by_name(found)['inverse_sd'].weights
    assert weights[2] < 0.5 * weights[0]


def test_auroc_equals_scikit_learn_and_ignores_what_classes_share():
    found, labels = errors()
    scores = by_name(found)['eps'].scores(T, found)
    expected = roc_auc_score(labels, scores[:, 1] - scores[:, 0])
    assert rules.auroc(scores, labels) == pytest.approx(expected)
    shift = np.random.default_rng(1).normal(size=(200, 1))
    assert rules.auroc(scores + shift, labels) == pytest.approx(expected)
    assert rules.auroc_over_t(T, found, labels)[1] > 0.9


def test_auroc_of_many_classes_is_the_mean_over_classes():
    found, labels = errors(classes=4, signal=(0.3, 0.3, 0.3))
    assert rules.auroc(by_name(found)['eps'].scores(T, found), labels) > 0.9
