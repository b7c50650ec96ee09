"""Metrics against scikit-learn, the published Table 4, and undefined cases."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from repdiff.eval import metrics


def random_answers(seed, classes=2, rows=400):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[labels]
    scores = np.round(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 2)  # with ties
    predictions = logits.argmax(1)
    return labels, scores[:, 1] if classes == 2 else scores, predictions


@pytest.mark.parametrize('seed', [0, 1])
def test_binary_metrics_equal_scikit_learn(seed):
    labels, scores, predictions = random_answers(seed)
    found = metrics.metrics(labels, scores, predictions)
    fpr, tpr, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    expected = {
        'accuracy': reference.accuracy_score(labels, predictions),
        'balanced_accuracy': reference.balanced_accuracy_score(labels, predictions),
        'f1': reference.f1_score(labels, predictions),
        'recall': reference.recall_score(labels, predictions),
        'precision': reference.precision_score(labels, predictions),
        'auroc': reference.roc_auc_score(labels, scores),
        'average_precision': reference.average_precision_score(labels, scores),
        'sensitivity_at_95_specificity': tpr[fpr <= 0.05].max(),
        'brier': reference.brier_score_loss(labels, scores),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    tn, fp, fn, tp = reference.confusion_matrix(labels, predictions).ravel()
    assert found['confusion'] == {'tp': tp, 'fp': fp, 'tn': tn, 'fn': fn}


def test_macro_metrics_equal_scikit_learn():
    labels, scores, predictions = random_answers(2, classes=4)
    scores = scores / scores.sum(1, keepdims=True)
    found = metrics.metrics(labels, scores, predictions)
    expected = {
        'accuracy': reference.accuracy_score(labels, predictions),
        'balanced_accuracy': reference.balanced_accuracy_score(labels, predictions),
        'f1': reference.f1_score(labels, predictions, average='macro'),
        'recall': reference.recall_score(labels, predictions, average='macro'),
        'precision': reference.precision_score(labels, predictions, average='macro'),
        'auroc': reference.roc_auc_score(labels, scores, multi_class='ovr'),
        'average_precision': reference.average_precision_score(np.eye(4)[labels], scores),
        'brier': ((scores - np.eye(4)[labels]) ** 2).sum(1).mean(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found['confusion'] == reference.confusion_matrix(labels, predictions).tolist()


def test_macro_counts_a_class_called_but_never_true_as_scikit_learn_does():
    labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 0])
    found = metrics.decision_metrics(labels, predictions, classes=4)
    for name in ('f1', 'recall', 'precision'):
        score = getattr(reference, f'{name}_score')
        assert found[name] == pytest.approx(score(labels, predictions, average='macro',
                                                  zero_division=0))
    assert found['balanced_accuracy'] == 0.5


def test_weights_equal_repeated_images():
    labels, scores, predictions = random_answers(3)
    counts = np.random.default_rng(4).integers(0, 4, len(labels))
    repeated = [np.repeat(part, counts) for part in (labels, scores, predictions)]
    weighted = metrics.values(labels, scores, predictions, counts[None].astype(float))
    expected = metrics.metrics(*repeated)
    assert {name: weighted[name][0] for name in metrics.NAMES} == pytest.approx(
        {name: expected[name] for name in metrics.NAMES}, abs=1e-12)


def test_calibration_error_equals_scikit_learns_curve():
    rng = np.random.default_rng(5)
    scores = rng.random(500)  # continuous, so none lies on an edge
    labels = (rng.random(500) < scores ** 2).astype(int)
    found, stated = calibration_curve(labels, scores, n_bins=metrics.ECE_BINS)
    images = np.bincount((scores * metrics.ECE_BINS).astype(int), minlength=metrics.ECE_BINS)
    assert metrics.metrics(labels, scores, labels)['ece'] == pytest.approx(
        np.abs(found - stated) @ images / 500)


def test_summed_confusions_are_those_of_all_answers_together():
    for classes in (2, 3):
        parts = [random_answers(seed, classes, 80) for seed in (6, 7)]
        each = [metrics.confusion(labels, called, classes) for labels, _, called in parts]
        labels, _, called = (np.concatenate(part) for part in zip(*parts))
        assert metrics.of_confusions(each) == metrics.decision_metrics(labels, called, classes)


def test_calibration_error_by_hand():
    labels = np.array([0, 1, 1, 1])
    scores = np.array([0.10, 0.11, 0.95, 1.0])  # two bins of two
    found = metrics.metrics(labels, scores, labels)
    assert found['ece'] == pytest.approx(abs(0.21 - 1) / 4 + abs(1.95 - 2) / 4)


@pytest.mark.parametrize('label', [0, 1])
def test_one_class_only_gives_none_and_plain_json(label):
    labels = np.full(5, label)
    found = metrics.metrics(labels, np.linspace(0, 1, 5), np.zeros(5, int))
    assert found['auroc'] is found['balanced_accuracy'] is None
    assert found['sensitivity_at_95_specificity'] is None
    assert found['recall'] == (0.0 if label else None)
    json.dumps(found, allow_nan=False)


def test_scores_must_be_probabilities():
    with pytest.raises(ValueError, match='probabilities'):
        metrics.metrics(np.array([0, 1]), np.array([-3.0, 2.0]), np.array([0, 1]))


# arXiv 2505.06890, Table 4; the counts are the only ones of 179 slices with these four figures.
TABLE_4 = {
    'ResNet-50': ((25, 48, 103, 3), (0.7150, 0.4950, 0.8928, 0.3424)),
    'ViT-B': ((13, 9, 142, 15), (0.8659, 0.5200, 0.4642, 0.5909)),
    'DINOv2': ((22, 14, 137, 6), (0.8882, 0.6875, 0.7857, 0.6111)),
    'Unconditional LDT': ((24, 16, 135, 4), (0.8882, 0.7058, 0.8571, 0.6000)),
    'RC-LDT': ((21, 2, 149, 7), (0.9497, 0.8235, 0.7500, 0.9130)),
}


@pytest.mark.parametrize('model', TABLE_4)
def test_published_counts_give_back_table_4(model):
    counts, published = TABLE_4[model]
    labels = np.repeat([1, 0, 0, 1], counts)
    predictions = np.repeat([1, 1, 0, 0], counts)
    found = metrics.decision_metrics(labels, predictions, classes=2)
    assert found['confusion'] == dict(zip(('tp', 'fp', 'tn', 'fn'), counts))
    ours = [found[name] for name in ('accuracy', 'f1', 'recall', 'precision')]
    # The paper cuts after four digits, save one figure that it rounds.
    assert ours == pytest.approx(published, abs=1.01e-4)
