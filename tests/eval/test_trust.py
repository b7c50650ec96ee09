"""Reliability and abstaining by hand, and against the metric of the same name."""

import numpy as np
import pytest

from repdiff.eval import metrics, trust


@pytest.mark.parametrize('classes', [2, 4])
def test_calibration_error_equals_the_metric(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 200)
    scores = rng.dirichlet(np.ones(classes), 200)
    scores = scores[:, 1] if classes == 2 else scores
    found = trust.reliability(labels, scores)
    expected = metrics.metrics(labels, scores, np.zeros(200, int))['ece']
    assert found['ece'] == pytest.approx(expected)
    assert sum(found['images']) == 200 and min(found['images']) > 0


def test_bins_by_hand():
    found = trust.reliability(np.array([0, 1, 1, 1]), np.array([0.01, 0.05, 0.9, 1.0]))
    assert found['images'] == [2, 1, 1]
    np.testing.assert_allclose(found['confidence'], [0.03, 0.9, 1.0])
    np.testing.assert_allclose(found['frequency'], [0.5, 1, 1])
    assert found['ece'] == pytest.approx((2 * 0.47 + 0.1) / 4)


def test_the_surest_come_first():
    labels, predictions = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])
    found = trust.selective(labels, predictions, np.array([9.0, 5.0, 2.0, 4.0]))
    assert found['coverage'] == [0.25, 0.5, 0.75, 1.0]
    np.testing.assert_allclose(found['accuracy'], [1, 1, 2 / 3, 0.5])
