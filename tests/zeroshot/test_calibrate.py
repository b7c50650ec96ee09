"""Calibration recovers known temperatures and priors, and never turns the odds of two classes."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

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


def test_auroc_of_two_classes_stays_and_one_against_the_rest_of_three_need_not():
    """Of three, the AUROC of any two by their odds (Hand and Till 2001) stays."""
    made = calibrate.Calibration(3.0, np.array([0.0, 4.0, -2.0]))
    scores, labels, _ = drawn(1.0, [0.0, 0.0, 0.0], count=400)
    before, after = softmax(scores, axis=1), made.probabilities(scores)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = (labels == a) | (labels == b)
        found = {roc_auc_score(labels[both] == b, (p[:, b] / (p[:, a] + p[:, b]))[both])
                 for p in (before, after)}
        assert len(found) == 1
    rest = [roc_auc_score(labels == 0, p[:, 0]) for p in (before, after)]
    assert abs(rest[0] - rest[1]) > 0.01
    two = calibrate.Calibration(3.0, made.bias[:2]).probabilities(scores[:, :2])[:, 1]
    expected = roc_auc_score(labels == 1, scores[:, 1] - scores[:, 0])
    assert roc_auc_score(labels == 1, two) == expected


def test_ranking_is_kept_even_when_validation_is_misleading():
    scores, labels, _ = drawn(2.0, [0.0, 0.0], count=500)
    found = calibrate.fit(scores, 1 - labels)
    assert found.slope > 0


def test_scale_of_the_scores_does_not_matter():
    scores, labels, _ = drawn(2.0, [0.0, -1.0], count=500)
    np.testing.assert_allclose(calibrate.fit(scores * 1e-4, labels).probabilities(scores * 1e-4),
                               calibrate.fit(scores, labels).probabilities(scores), atol=1e-4)
