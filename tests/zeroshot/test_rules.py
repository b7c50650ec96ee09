"""Decision rules: identities between ε, z0 and v, selection, and AUROC."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from repdiff.diffusion.schedule import linear
from repdiff.zeroshot import rules

SCHEDULE = linear(1000)
T = np.array([50, 200, 600, 50, 200, 600])


def errors(seed=0, count=200, classes=2, signal=(0.0, 0.3, 0.0)):
    """Errors whose classes differ by `signal` at the three steps, under noise shared by classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    found = np.repeat(1 + rng.normal(size=(count, 1, T.size)), classes, 1)
    found += 0.2 * rng.normal(size=found.shape)
    for s, t in enumerate(T):
        found[np.arange(count), labels, s] -= signal[(50, 200, 600).index(t)]
    return found, labels


def by_name(found):
    return {rule.name: rule for rule in rules.candidates(SCHEDULE, T, found)}


def test_weights_sum_to_one_and_are_what_the_identities_say():
    named = by_name(errors()[0])
    assert all(rule.weights.sum() == pytest.approx(1) for rule in named.values())
    gamma, delta = (np.asarray(a)[T] for a in (SCHEDULE.gamma, SCHEDULE.delta))
    ratio = named['z0'].weights / named['eps'].weights
    np.testing.assert_allclose(ratio / ratio[0], ((delta / gamma) ** 2) / (delta / gamma)[0] ** 2,
                               rtol=1e-5)
    np.testing.assert_allclose(named['t=200'].weights, [0, .5, 0, 0, .5, 0])


def test_at_one_t_every_rule_picks_the_same_labels():
    found, _ = errors()
    one = found[..., T == 200]
    picks = {
        tuple(rule.scores(one).argmax(1))
        for rule in rules.candidates(SCHEDULE, T[T == 200], one)
    }
    assert len(picks) == 1


def test_the_chosen_rule_looks_where_the_classes_differ():
    found, labels = errors()
    assert rules.choose(rules.candidates(SCHEDULE, T, found), found, labels).name == 't=200'


def test_inverse_sd_weighs_noisy_steps_less():
    found, _ = errors()
    found[..., T == 600] *= np.where(np.arange(2) == 0, 1.0, 9.0)[:, None]
    weights = by_name(found)['inverse_sd'].weights
    assert weights[T == 600].max() < 0.5 * weights[T == 50].min()


def test_auroc_equals_scikit_learn_and_ignores_what_classes_share():
    found, labels = errors()
    scores = by_name(found)['eps'].scores(found)
    expected = roc_auc_score(labels, scores[:, 1] - scores[:, 0])
    assert rules.auroc(scores, labels) == pytest.approx(expected)
    shift = np.random.default_rng(1).normal(size=(200, 1))
    assert rules.auroc(scores + shift, labels) == pytest.approx(expected)
    assert rules.auroc_over_t(T, found, labels)[1] > 0.9


def test_auroc_of_many_classes_is_the_mean_over_classes():
    found, labels = errors(classes=4, signal=(0.3, 0.3, 0.3))
    assert rules.auroc(by_name(found)['eps'].scores(found), labels) > 0.9
