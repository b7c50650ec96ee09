"""The weight-free front ends: invertibility, orthonormality, scale, and bad sizes."""

import numpy as np
import pytest

from repdiff.errors import UserError
from repdiff.latents import frontend


def images(channels=1, size=16, count=64, seed=0):
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(count, size // 4, size // 4, channels)).repeat(4, 1).repeat(4, 2)
    noisy = 128 + 40 * smooth + 8 * rng.normal(size=(count, size, size, channels))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('whiten', [0.0, 1.0])
def test_haar_is_invertible_and_orthonormal(channels, whiten):
    x = images(channels)
    basis = frontend.fit_haar(x, patch=4, whiten=whiten)
    z0 = basis.encode(x)
    assert z0.shape == (64, 4, 4, 16 * channels)
    np.testing.assert_array_equal(frontend.to_uint8(basis.decode(z0)), x)
    np.testing.assert_allclose(basis.basis.T @ basis.basis, np.eye(16 * channels), atol=1e-6)
    assert np.mean(np.square(z0)) == pytest.approx(1, rel=1e-3)


def test_haar_of_two_pixels_is_the_sum_and_the_difference():
    x = np.array([[[[10], [30]], [[10], [30]]]], np.uint8)
    basis = frontend.fit_haar(np.concatenate([x, x[:, :, ::-1]]), patch=2, whiten=0.0)
    z0 = np.asarray(basis.encode(x) / basis.scale)[0, 0, 0]
    # Rows are equal, columns differ by 20/127.5: only the horizontal detail is not zero.
    np.testing.assert_allclose(np.abs(z0), [0, 20 / 127.5, 0, 0], atol=1e-6)


def test_pca_finds_the_leading_components():
    x = images()
    basis = frontend.fit_pca(x, patch=4, channels=3, whiten=0.0)
    patches = x.reshape(64, 4, 4, 4, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 16) / 127.5 - 1
    patches = patches - patches.mean(0)
    _, singular, rows = np.linalg.svd(patches, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(np.asarray(basis.basis) * rows[:3].T, 0)), 1,
                               atol=1e-3)
    z0 = np.asarray(basis.encode(x)).reshape(-1, 3)
    ratio = z0.var(0) / z0.var(0)[0]
    np.testing.assert_allclose(ratio, (singular[:3] / singular[0]) ** 2, rtol=1e-3)


def test_whitening_gives_every_component_unit_variance():
    x = images()
    z0 = np.asarray(frontend.fit_pca(x, patch=4, channels=8, whiten=1.0).encode(x)).reshape(-1, 8)
    np.testing.assert_allclose(z0.var(0), 1, rtol=1e-2)


def test_full_pca_is_invertible():
    x = images()
    basis = frontend.fit_pca(x, patch=4, channels=16, whiten=0.5)
    np.testing.assert_array_equal(frontend.to_uint8(basis.decode(basis.encode(x))), x)


@pytest.mark.parametrize('fit, words', [
    (lambda x: frontend.fit_pca(x, 5, 4, 0.0), 'does not divide the image size 16×16'),
    (lambda x: frontend.fit_pca(x, 4, 17, 0.0), 'a patch has 16 numbers'),
    (lambda x: frontend.fit_haar(x[:, :12, :12], 6, 0.0), 'power of two'),
])
def test_sizes_that_do_not_fit_are_one_sentence(fit, words):
    with pytest.raises(UserError, match=words):
        fit(images())
