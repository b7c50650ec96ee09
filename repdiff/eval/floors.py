"""Floors: rows without any deep model that every model must clear to mean something.

They are fitted on the training split; the regularisation C, the grid, the calibration and the
threshold are chosen on the validation split, exactly as a model's rule is.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from repdiff.errors import UserError
from repdiff.eval import metrics, patients, select
from repdiff.eval.answers import Answers

BINS = 32
GRIDS = (8, 16)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)

Split = Mapping[str, np.ndarray]


def floors(train: Split, valid: Split, test: Split, *, classes: int) -> list[Answers]:
    """The floors' answers on `test`: majority class, logistic regressions on histogram and pixels.

    Each split is a dict of image (B, H, W, C) uint8, label (B,) int with -1 for unlabelled, id
    (B,) str, patient (B,) str, as `records.load` gives it. Raises UserError where the training or
    validation split lacks a class.
    """
    train, valid, test = map(_labelled, (train, valid, test))
    for name, split in (('training', train), ('validation', valid)):
        missing = set(range(classes)) - set(split['label'].tolist())
        if missing:
            raise UserError(f'the {name} split has no example of class {min(missing)}; enlarge it '
                            'or change the split fractions.')
    kinds = [
        ('logistic_histogram', f'Logistic regression, {BINS}-bin intensity histogram',
         [('histogram', histogram)]),
        ('logistic_pixels', 'Logistic regression, downsampled pixels',
         [(f'{grid}x{grid}', lambda images, grid=grid: downsample(images, grid))
          for grid in GRIDS]),
    ]
    return [_majority(train, test, classes),
            *(_logistic(name, title, features, train, valid, test, classes)
              for name, title, features in kinds)]


def histogram(images: np.ndarray) -> np.ndarray:
    """Share of pixels in each of 32 equal intensity bins, a channel at a time: (B, 32 C)."""
    images = images.reshape(len(images), -1, images.shape[-1])
    return np.stack([
        np.concatenate([np.bincount(channel // (256 // BINS), minlength=BINS)
                        for channel in image.T]) / len(image)
        for image in images])


def downsample(images: np.ndarray, grid: int) -> np.ndarray:
    """Mean intensity of each cell of a grid x grid partition: (B, grid * grid * C)."""
    for axis in (1, 2):
        size = images.shape[axis]
        starts = np.arange(min(grid, size)) * size // min(grid, size)
        widths = np.diff(np.append(starts, size))
        sums = np.add.reduceat(images, starts, axis=axis, dtype=np.float32)
        images = sums / np.expand_dims(widths, tuple(i for i in range(4) if i != axis))
    return images.reshape(len(images), -1)


def _labelled(split: Split) -> Split:
    keep = split['label'] >= 0
    return {key: np.asarray(split[key])[keep] for key in ('image', 'label', 'id', 'patient')}


def _majority(train: Split, test: Split, classes: int) -> Answers:
    shares = np.bincount(train['label'], minlength=classes) / len(train['label'])  # (K,)
    rows = len(test['label'])
    scores = np.full(rows, shares[1]) if classes == 2 else np.tile(shares, (rows, 1))
    return Answers('majority', test['id'], test['patient'], test['label'], scores,
                   np.full(rows, shares.argmax()),
                   _facts('Majority class', {'name': 'majority of the training split'}, 0, 0.0))


def _logistic(name: str, title: str, features: list[tuple[str, Callable]], train: Split,
              valid: Split, test: Split, classes: int) -> Answers:
    """The best (features, C) by validation AUROC, calibrated and thresholded on validation."""
    began = time.monotonic()
    best = None
    for kind, make in features:
        x_train, x_valid = make(train['image']), make(valid['image'])
        for strength in STRENGTHS:
            model = make_pipeline(StandardScaler(), LogisticRegression(
                C=strength, class_weight='balanced', max_iter=1000))
            model.fit(x_train, train['label'])
            auroc = metrics.metrics(valid['label'], model.predict_proba(x_valid),
                                    model.predict(x_valid))['auroc']
            if best is None or auroc > best[0]:
                best = (auroc, kind, make, strength, model, x_valid)
    auroc, kind, make, strength, model, x_valid = best
    calibration = LogisticRegression(C=100.0).fit(_decision(model, x_valid), valid['label'])
    of_valid = _probabilities(model, calibration, x_valid)
    cut = select.threshold(valid['label'], of_valid) if classes == 2 else None
    x_test = make(test['image'])
    scores = _probabilities(model, calibration, x_test)
    rule = {'name': f'{kind}, C={strength:g}', 'threshold': cut, 'valid_auroc': auroc}
    facts = _facts(title, rule, x_test.shape[1] + 1, time.monotonic() - began)
    facts['argmin'] = metrics.decision_metrics(test['label'], model.predict(x_test), classes)
    answers = Answers(name, test['id'], test['patient'], test['label'], scores,
                      select.classify(scores, cut), facts)
    return patients.with_patients(answers, valid['patient'], valid['label'], of_valid)


def _decision(model: Pipeline, x: np.ndarray) -> np.ndarray:
    return model.decision_function(x).reshape(len(x), -1)  # (B, 1) or (B, K)


def _probabilities(model: Pipeline, calibration: LogisticRegression, x: np.ndarray) -> np.ndarray:
    """Class balancing moved the probabilities; Platt scaling on validation moves them back."""
    probabilities = calibration.predict_proba(_decision(model, x))  # (B, K)
    return probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities


def _facts(title: str, rule: dict, parameters: int, seconds: float) -> dict:
    return {'title': title, 'pretrained': False, 'floor': True, 'rule': rule,
            'parameters': parameters, 'train_seconds': seconds}
