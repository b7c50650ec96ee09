"""FID's Inception v3 and the measures on it against PyTorch and the published formulas."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch')
import scipy.linalg

import inception_reference
from proven import assert_close, converted
from repdiff.eval.generative import Moments, frechet_distance, inception_score, kernel_distance
from repdiff.eval.neighbours import neighbour_measures
from repdiff.models.inception import Inception


def test_measures_on_images_are_those_of_the_original(tmp_path):
    original = inception_reference.Reference()
    sets = [inception_reference.images(seed, 14, 40, 40, 3) for seed in (5, 6)]
    # Half of each set is unlike all of the other's, so that no measure is at its end.
    sets[0][:7] = 255 - (255 - sets[0][:7]) // 4
    sets[1][:7] //= 4
    with torch.no_grad():
        theirs = [original(images) for images in sets]
    fields, params = converted(tmp_path, 'inception', original.state, {})
    apply = jax.jit(lambda params, x: Inception(**fields).apply({'params': params}, x))
    mine = [apply(params, images) for images in sets]
    for found, expected in zip(mine, theirs):
        for name in ('pool', 'spatial', 'logits'):
            assert_close(found[name], expected[name])

    for name in ('pool', 'spatial'):
        a, b = (Moments([np.asarray(found[name])[:, ::4]]) for found in mine)
        x, y = (found[name][:, ::4].astype(np.float64) for found in theirs)
        shift, x, y = x.mean(0) - y.mean(0), x - x.mean(0), y - y.mean(0)
        # The root of the covariances' product has the eigenvalues of a 14 x 14 matrix.
        root = scipy.linalg.sqrtm(x @ y.T @ y @ x.T).real / 13
        expected = shift @ shift + ((x**2).sum() + (y**2).sum()) / 13 - 2 * np.trace(root)
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-3)

    p = torch.softmax(torch.from_numpy(theirs[0]['logits']).double(), 1)
    expected = (p * (p.log() - p.mean(0).log())).sum(1).mean().exp().item()
    assert inception_score([np.asarray(mine[0]['logits'])]) == pytest.approx(expected, rel=1e-3)

    x, y = (torch.from_numpy(found['pool']).double() for found in theirs)
    kernels = [((u @ v.T) / 2048 + 1) ** 3 for u, v in ((x, x), (y, y), (x, y))]
    within = [(k.sum() - k.trace()) / (14 * 13) for k in kernels[:2]]
    expected = (within[0] + within[1] - 2 * kernels[2].mean()).item()
    found = kernel_distance(*([np.asarray(features['pool'])] for features in mine))
    assert found == pytest.approx(expected, rel=1e-3)

    real, made = (torch.cdist(u, u).sort().values for u in (x, y))  # column k: the k-th neighbour
    between = torch.cdist(x, y)  # (real, made)
    near = between < real[:, 5:6]
    expected = {
        'precision': (between <= real[:, 3:4]).any(0), 'recall': (between <= made[:, 3]).any(1),
        'density': near.sum(0) / 5, 'coverage': near.any(1)}
    expected = {name: values.double().mean().item() for name, values in expected.items()}
    assert all(0 < value < 1 for value in expected.values())
    found = neighbour_measures(*([np.asarray(features['pool'])] for features in mine))
    assert found == pytest.approx(expected, rel=1e-3)
