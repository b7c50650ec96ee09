"""The density of r: chosen by held-out likelihood, drawn from by number."""

import numpy as np
import pytest

from repdiff.errors import UserError
from repdiff.generation.density import fit


@pytest.fixture(scope='module')
def clusters():
    """r (600, 3) of two far clusters with correlated coordinates of unequal units, 60 patients."""
    rng = np.random.default_rng(0)
    mix = np.array([[1, 0.8, 0], [0, 0.5, 0], [0, 0, 30]])
    r = rng.normal(size=(600, 3)) @ mix + np.where(rng.random(600) < 0.3, 6, -6)[:, None]
    return r.astype(np.float32), np.arange(600) // 10


@pytest.fixture(scope='module')
def found(clusters):
    return fit(*clusters, seed=0)


def test_held_out_likelihood_finds_the_clusters(found):
    assert found.held_out['2 full'] > found.held_out['1 full'] + 0.3
    assert found.name == max(found.held_out, key=found.held_out.get)
    assert found.name.split()[1] == 'full'


def test_draws_have_the_moments_of_r(clusters, found):
    drawn = found.draw(0, np.arange(4000))
    assert drawn.dtype == np.float32
    scale = clusters[0].std(0)
    np.testing.assert_allclose(drawn.mean(0) / scale, clusters[0].mean(0) / scale, atol=0.1)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(clusters[0].T), atol=0.08)
    np.testing.assert_allclose(drawn.std(0), scale, rtol=0.08)


def test_a_draw_depends_on_seed_and_number_alone(found):
    whole = found.draw(3, np.arange(10))
    np.testing.assert_array_equal(found.draw(3, np.array([7, 2])), whole[[7, 2]])
    assert not np.array_equal(found.draw(4, np.arange(10)), whole)


def test_tokens_and_too_few_patients_are_refused(clusters):
    with pytest.raises(UserError, match='one vector r an image'):
        fit(np.zeros((5, 4, 3)), np.arange(5), seed=0)
    with pytest.raises(UserError, match='1 patients'):
        fit(clusters[0], np.zeros(600), seed=0)
