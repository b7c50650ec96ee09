"""Calibration recovers known temperatures and priors, and never turns a ranking."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from repdiff.zeroshot import calibrate


def drawn(slope, bias, count=20000, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(count, len(bias)))
    p = softmax(slope * scores + np.array(bias), axis=1)
    labels = (rng.random((count, 1)) > p.cumsum(1)).sum(1)
    return scores, labels, p


@pytest.mark.parametrize('slope, bias', [(3.0, [0.0, -1.5]), (0.5, [0.0, 1.0, -1.0])])
def test_fit_recovers_slope_and_bias(slope, bias):
    scores, labels, p = drawn(slope, bias)
    found = calibrate.fit(scores, labels)
    assert found.slope == pytest.approx(slope, rel=0.1)
    np.testing.assert_allclose(found.bias, bias, atol=0.1)
    assert np.abs(found.probabilities(scores) - p).mean() < 0.01


def test_two_classes_equal_logistic_regression():
    scores, labels, _ = drawn(2.0, [0.0, -1.0], count=3000)
    difference = (scores[:, 1] - scores[:, 0])[:, None]
    expected = LogisticRegression(C=1e6).fit(difference, labels).predict_proba(difference)
    np.testing.assert_allclose(calibrate.fit(scores, labels).probabilities(scores), expected,
                               atol=0.01)


def test_ranking_is_kept_even_when_validation_is_misleading():
    scores, labels, _ = drawn(2.0, [0.0, 0.0], count=500)
    found = calibrate.fit(scores, 1 - labels)
    assert found.slope > 0


def test_scale_of_the_scores_does_not_matter():
    scores, labels, _ = drawn(2.0, [0.0, -1.0], count=500)
    np.testing.assert_allclose(calibrate.fit(scores * 1e-4, labels).probabilities(scores * 1e-4),
                               calibrate.fit(scores, labels).probabilities(scores), atol=1e-4)
