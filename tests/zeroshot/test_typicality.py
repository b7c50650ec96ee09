"""How far an image is from the validation split: ranks, their level, and both directions."""

import numpy as np
import pytest

from repdiff.zeroshot.typicality import FAR, Typicality


def readings(count, seed=0):
    return np.random.default_rng(seed).normal([-3, -1, 0], [0.3, 0.2, 0.5], (count, 3))


def test_scores_and_p_values_against_loops():
    valid, new = readings(50), readings(20, seed=1)
    found = Typicality(valid)
    middle = np.median(valid, 0)
    spread = 1.4826 * np.median(abs(valid - middle), 0)
    scores = [max(abs(row - middle) / spread) for row in valid]
    for row, p in zip(new, found.p_values(new), strict=True):
        score = max(abs(row - middle) / spread)
        assert p == pytest.approx((1 + sum(other >= score for other in scores)) / 51)


def test_of_like_images_few_are_called_far():
    called = [Typicality(readings(400, seed)).far(readings(400, 1000 + seed)).mean()
              for seed in range(40)]
    assert 0.3 * FAR < np.mean(called) < 1.5 * FAR


@pytest.mark.parametrize('reading', [0, 1, 2])
@pytest.mark.parametrize('direction', [-1, 1])
def test_an_odd_reading_in_either_direction_is_far(reading, direction):
    for images in (30, 400):  # also where there are fewer images than 1 / FAR
        odd = np.array([[-3.0, -1, 0]])
        assert not Typicality(readings(images)).far(odd).any()
        odd[0, reading] += 10 * direction
        assert Typicality(readings(images)).far(odd).all()


def test_readings_that_never_differ_do_not_divide_by_zero():
    found = Typicality(np.zeros((10, 2)))
    assert found.p_values(np.zeros((1, 2))) == 1 and found.far(np.ones((1, 2))).all()
