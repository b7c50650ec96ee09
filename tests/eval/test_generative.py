"""Generative measures against closed forms and brute force on random features."""

import numpy as np
import pytest
import scipy.linalg

from repdiff.eval.generative import Moments, frechet_distance, inception_score, kernel_distance
from repdiff.eval.neighbours import nearest, neighbour_measures

RTOL = 1e-3


def blocks(array, *cuts):
    return np.split(array, cuts)


@pytest.fixture(scope='module')
def sets():
    """Real and made features (300, 20), (250, 20) that overlap in part."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(20, 20))
    real = rng.normal(size=(300, 20)) @ mix + 50
    made = 0.7 * rng.normal(size=(250, 20)) @ mix + 50.3
    return real.astype(np.float32), made.astype(np.float32)


def test_moments_of_a_stream_are_those_of_the_whole(sets):
    found = Moments(blocks(sets[0], 7, 100, 101))
    real = sets[0].astype(np.float64)
    np.testing.assert_allclose(found.mean, real.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(real, rowvar=False), rtol=1e-9)


def test_frechet_distance_against_the_matrix_square_root(sets):
    a, b = (Moments([part]) for part in sets)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_a_set_with_itself_is_nothing(sets):
    a = Moments([sets[0]])
    assert abs(frechet_distance(a, a)) < 1e-9 * np.trace(a.covariance)
    few = Moments([sets[0][:8]])  # fewer images than features: a singular covariance
    assert abs(frechet_distance(few, few)) < 1e-9 * np.trace(few.covariance)


def test_frechet_distance_of_gaussians_in_closed_form():
    """Moved by s and scaled by c: |s|² + (c - 1)² Tr C."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    a, shift = Moments([x]), np.arange(6.0)
    assert frechet_distance(a, Moments([x + shift])) == pytest.approx((shift**2).sum())
    scaled = frechet_distance(a, Moments([a.mean + 1.5 * (x - a.mean) + shift]))
    assert scaled == pytest.approx((shift**2).sum() + 0.25 * np.trace(a.covariance))


def test_kernel_distance_against_a_loop(sets):
    real, made = (part[:40].astype(np.float64) for part in sets)

    def kernel(x, y):
        return (np.dot(x, y) / len(x) + 1) ** 3

    def mean(a, b):
        pairs = [kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(b)
                 if a is not b or i != j]
        return np.mean(pairs)

    expected = mean(real, real) + mean(made, made) - 2 * mean(real, made)
    found = kernel_distance(blocks(real, 3, 30), blocks(made, 25))
    assert found == pytest.approx(expected, rel=RTOL)


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(2)
    values = [kernel_distance([rng.normal(size=(30, 4))], [rng.normal(size=(30, 4))])
              for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20


@pytest.mark.parametrize('cuts', [(), (10, 4990), (5000,), (6000, 6500)])
def test_inception_score_against_its_definition(cuts):
    logits = np.random.default_rng(3).normal(size=(7000, 5)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.mean([
        np.exp((part * np.log(part / part.mean(0))).sum(1).mean()) for part in (p[:5000], p[5000:])
    ])
    assert inception_score(blocks(logits, *cuts)) == pytest.approx(expected, rel=1e-9)


def test_inception_score_at_its_ends():
    assert inception_score([np.zeros((10, 4))]) == pytest.approx(1)
    assert inception_score([np.eye(4) * 500]) == pytest.approx(4)


def brute(real, made):
    """Precision, recall, density and coverage by their definitions, a pair at a time."""
    def distance(x, y):
        return np.sqrt(((x - y) ** 2).sum())

    def radius(points, i, k):
        return sorted(distance(points[i], y) for j, y in enumerate(points) if j != i)[k - 1]

    r3, r5 = ([radius(real, i, k) for i in range(len(real))] for k in (3, 5))
    m3 = [radius(made, i, 3) for i in range(len(made))]
    between = [[distance(x, y) for y in real] for x in made]
    return {
        'precision': np.mean([any(d <= r for d, r in zip(row, r3)) for row in between]),
        'recall': np.mean([any(between[j][i] <= m3[j] for j in range(len(made)))
                           for i in range(len(real))]),
        'density': np.mean([sum(d < r for d, r in zip(row, r5)) for row in between]) / 5,
        'coverage': np.mean([min(between[j][i] for j in range(len(made))) < r5[i]
                             for i in range(len(real))]),
    }


def test_neighbour_measures_against_brute_force(sets):
    real, made = (part[:60, :3].astype(np.float64) for part in sets)
    found = neighbour_measures(blocks(real, 11, 40), blocks(made, 1, 59))
    expected = brute(real, made)
    assert found == pytest.approx(expected, rel=RTOL)
    assert all(0 < value for value in found.values()) and found['recall'] < 1


def test_neighbour_measures_of_sets_far_apart_and_of_the_same(sets):
    real = sets[0]
    assert neighbour_measures([real], [real + 1e4]) == {
        'precision': 0, 'recall': 0, 'density': 0, 'coverage': 0}
    same = neighbour_measures([real], [real])
    assert (same['precision'], same['recall'], same['coverage']) == (1, 1, 1)
    with pytest.raises(ValueError, match='5 images have no 5th neighbour'):
        neighbour_measures([real[:5]], [real])


def test_nearest_row_and_its_distance(sets):
    real, made = sets
    distance, number = nearest(blocks(made, 100), blocks(real, 50, 170))
    every = np.sqrt(((made[:, None].astype(np.float64) - real) ** 2).mean(-1))
    np.testing.assert_array_equal(number, every.argmin(1))
    np.testing.assert_allclose(distance, every.min(1), rtol=1e-6)
