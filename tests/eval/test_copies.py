"""Copies are named, others are not."""

import numpy as np
import pytest

from repdiff.eval.copies import compare

RNG = np.random.default_rng(0)
TRAINING = RNG.uniform(0, 255, (60, 16)).astype(np.uint8)
REAL = np.full(20, 60.0)


def blocks(array):
    return np.split(array, [7, 30])


def noisy(images, sd):
    return (images + RNG.normal(0, sd, images.shape)).clip(0, 255)


def test_distances_against_a_loop():
    samples, sources = RNG.uniform(0, 255, (2, 40, 16))
    found = compare(blocks(samples), blocks(sources), blocks(TRAINING), REAL)
    for i, sample in enumerate(samples):
        every = [np.sqrt(np.mean((sample - image) ** 2)) for image in TRAINING.astype(float)]
        assert found.nearest[i] == pytest.approx(min(every))
        assert found.number[i] == np.argmin(every)
        assert found.source[i] == pytest.approx(np.sqrt(np.mean((sample - sources[i]) ** 2)))
    assert found.yardstick == 60


def test_near_reconstruction_is_named():
    sources = RNG.uniform(0, 255, (40, 16))
    found = compare(blocks(noisy(sources, 10)), blocks(sources), blocks(TRAINING), REAL)
    assert found.verdict == 'near-reconstruction'
    assert found.summary()['share_nearer']['source'] == 1


def test_copies_of_training_images_are_named():
    found = compare(blocks(noisy(TRAINING[:40], 10)), None, blocks(TRAINING), REAL)
    assert found.verdict == 'near-copies of training images'
    assert found.summary()['source_distance'] is None


def test_new_images_are_not_named():
    samples, sources = RNG.uniform(0, 255, (2, 40, 16))
    assert compare(blocks(samples), blocks(sources), blocks(TRAINING), REAL).verdict == 'neither'
