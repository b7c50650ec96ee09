"""Pointing game and Dice, against loops and by hand; what brightness may and may not see."""

import numpy as np
import pytest

from repdiff.eval import localise


def slice_with_lesion():
    """A head of 12 pixels across in a 16-pixel slice: skull of 1 pixel, brain, a bright lesion."""
    image = np.zeros((16, 16), np.uint8)
    image[2:14, 2:14] = 255
    image[3:13, 3:13] = 120
    mask = np.zeros((16, 16), bool)
    mask[6:9, 6:9] = True
    image[mask] = 180
    return image, mask


def test_dice_and_highest_against_loops():
    rng = np.random.default_rng(0)
    heat, mask = rng.normal(size=(5, 6)), rng.random((5, 6)) < 0.4
    found = localise.highest(heat, 7)
    assert found.sum() == 7 and heat[found].min() > heat[~found].max()
    both = sum(a and b for a, b in zip(found.flat, mask.flat, strict=True))
    assert localise.dice(found, mask) == pytest.approx(2 * both / (7 + mask.sum()))
    assert localise.highest(np.zeros((2, 2)), 3).sum() == 3


def test_a_perfect_map_scores_one_and_random_its_expectation():
    image, mask = slice_with_lesion()
    found = localise.one(mask.astype(float), mask, image, mask, 0.5)
    assert all(found[figure]['evidence'] == 1 for figure in localise.FIGURES)
    rng, head = np.random.default_rng(1), np.flatnonzero(localise.head(image))
    assert head.size == 144
    drawn = [np.isin(np.arange(256), rng.choice(head, 9, replace=False)).reshape(16, 16)
             for _ in range(4000)]
    assert found['dice']['random'] == pytest.approx(
        np.mean([localise.dice(region, mask) for region in drawn]), abs=0.005)
    assert found['pointing']['random'] == pytest.approx(9 / 144)


def test_brightness_finds_a_bright_lesion_and_never_the_skull():
    image, mask = slice_with_lesion()
    heat = localise.brightness(image, 0.5)
    assert mask.flat[heat.argmax()] and np.isneginf(heat[image == 255]).all()
    assert localise.dice(localise.highest(heat, 9), mask) > 0.9
    image[5, 3] = 250  # a calcification at the skull is no brain
    assert mask.flat[localise.brightness(image, 0.5).argmax()]


def test_a_map_that_shows_nothing_has_dice_zero():
    image, mask = slice_with_lesion()
    found = localise.one(-mask.astype(float), np.zeros_like(mask), image, mask, 0.5)
    assert found['dice'] == {'evidence': 0, 'brightness': 0, 'random': 0}
    assert found['pointing']['evidence'] == 0


def test_summary_is_the_mean_with_intervals_over_patients():
    each = [{figure: {arm: float(i) for arm in localise.ARMS} for figure in localise.FIGURES}
            for i in range(4)]
    patients = np.array(['a', 'a', 'b', 'b'])
    found = localise.summarise(each, patients, resamples=500, seed=0)
    low, high = found['dice']['evidence']['ci95']
    assert found['dice']['evidence']['mean'] == 1.5
    assert (low, high) == (0.5, 2.5)  # either patient alone
