"""A decision: the same answers by offset and by probability, stored and read, calibrated or not."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from repdiff.eval.trust import reliability
from repdiff.zeroshot import rules
from repdiff.zeroshot.calibrate import Calibration
from repdiff.zeroshot.decision import Decision, decide


def rule(vote=False):
    return rules.Rule('t=50', 'l2', vote, np.array([50]), np.ones(1), np.ones(1))


def drawn(classes=2, count=4000, seed=0):
    """Scores whose label frequencies are softmax(300 score + bias): as errors, far too timid."""
    rng = np.random.default_rng(seed)
    scores = -1 + 0.01 * rng.normal(size=(count, classes))
    p = softmax(300 * scores - np.arange(classes), axis=1)
    return scores, (rng.random((count, 1)) > p.cumsum(1)).sum(1)


@pytest.mark.parametrize('classes', [2, 5])
def test_argmax_of_score_and_offset_is_the_prediction(classes):
    scores, labels = drawn(classes)
    found = decide(rule(), scores, labels)
    np.testing.assert_array_equal((scores + found.offsets).argmax(1), found.classify(scores))
    assert found.probabilities(scores).shape == ((4000,) if classes == 2 else (4000, classes))
    assert (found.cut is None) == (classes > 2)


def test_a_stored_decision_is_the_same():
    scores, labels = drawn()
    found = decide(rule(vote=True), scores, labels)
    again = Decision.from_json(json.loads(json.dumps(found.to_json())))
    assert again.rule.name == 't=50' and again.rule.vote
    np.testing.assert_array_equal(again.offsets, found.offsets)
    np.testing.assert_array_equal(again.probabilities(scores), found.probabilities(scores))


@pytest.mark.parametrize('classes', [2, 5])
def test_calibration_lowers_the_error_of_new_images_and_keeps_the_ranking(classes):
    found = decide(rule(), *drawn(classes))
    scores, labels = drawn(classes, seed=1)
    raw, calibrated = found.raw_probabilities(scores, 64), found.probabilities(scores)
    assert reliability(labels, calibrated)['ece'] < 0.03 < reliability(labels, raw)['ece']
    if classes == 2:
        both = np.stack([1 - calibrated, calibrated], 1)
        assert rules.auroc(both, labels) == rules.auroc(scores, labels)


def test_raw_probabilities_are_those_of_a_diffusion_classifier():
    scores = np.array([[-1.0, -1.1], [-0.5, -0.3]])
    found = Decision(rule(), Calibration(1.0, np.zeros(2)), 0.5)
    np.testing.assert_allclose(found.raw_probabilities(scores, 10),
                               1 / (1 + np.exp([1.0, -2.0])))
    votes = Decision(rule(vote=True), Calibration(1.0, np.zeros(2)), 0.5)
    np.testing.assert_allclose(votes.raw_probabilities(np.array([[-0.3, -0.7]]), 10), [0.3])


def test_confidence_grows_with_distance_from_the_cut():
    found = Decision(rule(), Calibration(2.0, np.array([0.0, -1.0])), 0.2)
    margin = np.linspace(-3, 3, 9)
    scores = np.stack([np.zeros(9), margin], 1)
    cut_at = -found.offsets[1]
    np.testing.assert_allclose(found.confidence(scores), 2 * np.abs(margin - cut_at))
