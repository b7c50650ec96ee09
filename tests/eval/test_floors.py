"""Floors on sets whose answer is known; the threshold against an exhaustive search."""

import numpy as np
import pytest
from sklearn import metrics as reference

from repdiff.errors import UserError
from repdiff.eval import intervals, select
from repdiff.eval.floors import downsample, floors, histogram


def toy(seed, rows, brighter, classes=2, size=24):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 5 == 0 if classes == 2 else np.arange(rows) % classes
    labels = labels.astype(np.int32)
    image = rng.integers(0, 200, (rows, size, size, 1))
    image[:, :6, :6] += (brighter * labels)[:, None, None, None]
    return {'image': image.clip(0, 255).astype(np.uint8), 'label': labels,
            'id': np.array([f'{seed}/{i}' for i in range(rows)]),
            'patient': np.array([f'{seed}/{i // 2}' for i in range(rows)])}


def entries(brighter, classes=2):
    rows = floors(toy(0, 300, brighter, classes), toy(1, 120, brighter, classes),
                  toy(2, 400, brighter, classes), classes=classes)
    return {row.name: intervals.entry(intervals.measure([row], resamples=50, seed=0))
            for row in rows}


def test_floors_solve_a_set_that_brightness_solves():
    found = entries(brighter=120)
    assert found['logistic_histogram']['auroc'] > 0.95
    assert found['logistic_pixels']['auroc'] > 0.99
    assert found['logistic_pixels']['f1'] > 0.9 and found['logistic_pixels']['ece'] < 0.1
    assert found['majority']['accuracy'] == 0.8 and found['majority']['auroc'] == 0.5
    assert found['majority']['f1'] == 0 and all(row['floor'] for row in found.values())


def test_floors_are_at_chance_on_noise():
    found = entries(brighter=0)
    for name in ('logistic_histogram', 'logistic_pixels'):
        assert 0.4 < found[name]['auroc'] < 0.6


def test_floors_are_chosen_without_a_look_at_the_test_split():
    train, valid, test = toy(0, 300, 12), toy(1, 120, 12), toy(2, 400, 12)
    other = {key: values[50:90] for key, values in test.items()}
    other['label'] = 1 - other['label']
    for whole, part in zip(*(floors(train, valid, seen, classes=2) for seen in (test, other))):
        assert whole.facts['rule'] == part.facts['rule']
        np.testing.assert_allclose(whole.scores[50:90], part.scores, rtol=1e-6)
        np.testing.assert_array_equal(whole.predictions[50:90], part.predictions)


def test_floors_of_three_classes():
    found = entries(brighter=60, classes=3)
    assert found['logistic_pixels']['accuracy'] > 0.9
    assert len(found['logistic_pixels']['confusion']) == 3
    assert found['majority']['auroc'] == 0.5


def test_unlabelled_training_images_are_ignored_and_a_missing_class_named():
    train, valid, test = toy(0, 60, 90), toy(1, 40, 90), toy(2, 40, 90)
    expected = floors(train, valid, test, classes=2)[2].scores
    more = {key: np.concatenate([value, value]) for key, value in train.items()}
    more['label'][60:] = -1
    assert floors(more, valid, test, classes=2)[2].scores == pytest.approx(expected)
    with pytest.raises(UserError, match='validation split has no example of class 1'):
        floors(train, valid | {'label': np.zeros(40, np.int32)}, test, classes=2)


def test_features_by_hand():
    image = np.zeros((1, 5, 4, 2), np.uint8)
    image[0, :, :, 1] = 255
    image[0, 0, 0, 0] = 80
    shares = histogram(image)
    assert shares.shape == (1, 64) and shares[0, 10] == 1 / 20 and shares[0, 63] == 1
    small = downsample(image, 2).reshape(2, 2, 2)
    assert small[0, 0, 0] == 20 and (small[..., 1] == 255).all()
    assert downsample(image, 8).shape == (1, 5 * 4 * 2)


@pytest.mark.parametrize('seed', range(5))
def test_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(60) < 0.3).astype(int)
    scores = np.round(rng.normal(size=60) + labels, 1)
    cut = select.threshold(labels, scores)
    tries = [reference.f1_score(labels, scores >= each) for each in np.unique(scores)]
    assert reference.f1_score(labels, select.classify(scores, cut)) == pytest.approx(max(tries))


def test_threshold_takes_the_middle():
    assert select.threshold(np.array([0, 0, 1, 1]), np.array([0.0, 1.0, 3.0, 4.0])) == 2.0
    # Positives at ranks 1, 5 and 9: F1 = 2h/(n + 3) is 1/2 at each of the three cuts.
    labels = np.array([1, 0, 0, 0, 1, 0, 0, 0, 1])
    assert select.threshold(labels, np.arange(9.0, 0.0, -1.0)) == 4.5
    with pytest.raises(UserError, match='no positive'):
        select.threshold(np.zeros(3, int), np.zeros(3))
