"""Prototype conditions: the mean r of a few labelled images a class.

That a label which starts at a mean r is that r to the denoiser: tests/objectives/test_switch.py.
"""

import types

import numpy as np
import pytest

from repdiff import config as configs
from repdiff.methods import denoise


@pytest.mark.parametrize('shots, expected', [
    (0, [13 / 4, 27 / 5]), (1, [0, 2]), (2, [4.5, 5]), (3, [10 / 3, 16 / 3]),
    (99, [13 / 4, 27 / 5])])
def test_means_are_over_evenly_spaced_images_of_each_class(monkeypatch, shots, expected):
    labels = np.array([0, 0, 1, 0, 1, 0, 1, 1, 1, 0])
    labels[5] = -1  # unlabelled
    r = np.arange(10.0)[:, None]
    monkeypatch.setattr(denoise, 'map_split', lambda *_: r)
    monkeypatch.setattr(denoise, 'frozen_parts', lambda *_: {})
    config = configs.base()
    config.tune.shots = shots
    split = types.SimpleNamespace(labels=lambda: labels)
    setting = types.SimpleNamespace(splits={'train': split}, mesh=None, classes=('a', 'b'))
    found = denoise._class_means(config, None, {}, setting)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)
