"""Classifiers: the loss in closed form, balanced batches, and the best validation checkpoint."""

import types

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from repdiff import logbook
from repdiff.methods import classify
from repdiff.methods.row import Bench
from repdiff.models.heads import LinearHead
from repdiff.objectives.classify import Classify


class Fixed:
    """A backbone whose features are the images' first pixels."""

    def init(self, key, image):
        return {}

    def features(self, params, images):
        return images[:, 0, :2, 0].astype(np.float32) / 100


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_the_loss_is_the_smoothed_cross_entropy_of_labelled_images(smoothing):
    rng = np.random.default_rng(0)
    objective = Classify(Fixed(), LinearHead(3), smoothing)
    images, labels = rng.integers(0, 256, (6, 4, 4, 1), np.uint8), np.array([0, 2, -1, 1, -1, 2])
    params = {'backbone': {}, 'head': {'linear': {
        'kernel': rng.normal(size=(2, 3)).astype(np.float32),
        'bias': np.array([0.5, 0, -1], np.float32)}}}
    loss, scalars = objective(params, {}, {'image': images, 'label': labels}, None)
    linear = params['head']['linear']
    logits = images[:, 0, :2, 0] / 100 @ linear['kernel'] + linear['bias']
    losses = [-sum((smoothing / 3 + (1 - smoothing) * (k == label))
                   * (row[k] - np.log(np.exp(row).sum())) for k in range(3))
              for row, label in zip(logits, labels, strict=True) if label >= 0]
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    right = (logits.argmax(1) == labels)[labels >= 0].mean()
    np.testing.assert_allclose(scalars['train_accuracy'], right, rtol=1e-6)


@pytest.mark.parametrize('balanced', [True, False])
def test_each_class_is_seen_equally_often_where_that_is_asked_for(
        config, setting, balanced, monkeypatch):
    config.tune.balanced = balanced
    monkeypatch.setattr(classify, 'fresh', lambda *_: {})
    network = classify.backbone(config, (8, 8))
    phase = classify.tune_phase(config, 'vit', setting, network, None)
    labels = np.concatenate([next(phase.iterator)['label'] for _ in range(4)])  # two epochs
    own = np.bincount(setting.splits['train'].labels())
    assert own.tolist() == [17, 6, 1]
    assert np.bincount(labels).tolist() == ([16] * 3 if balanced else (2 * own).tolist())


def test_the_checkpoint_that_is_best_on_validation_answers(config, setting, tmp_path):
    config.tune.learning_rate, config.tune.warmup_steps = 0.03, 0
    config.tune.decay, config.tune.ema_decay = 'constant', 0.0
    bench = Bench(tmp_path, types.SimpleNamespace(phase=lambda *_: None), None)
    trained = classify.train(config, 'vit', setting, bench)
    scores = {line['step']: line['valid_auroc'] for line in logbook.read(tmp_path)
              if 'valid_auroc' in line}
    best = max(scores, key=scores.get)
    assert list(scores) == list(range(1, 7)) and best < 6 and len(set(scores.values())) > 3
    assert trained.facts()['tune_step'] == best
    chosen = classify.choose(config, 'vit', setting, trained, tmp_path)
    logits, labels = chosen.arrays['valid_scores'], setting.splits['valid'].labels()
    centred = logits - logits.mean(1, keepdims=True)
    auroc = np.mean([roc_auc_score(labels == k, centred[:, k]) for k in range(3)])
    np.testing.assert_allclose(scores[best], auroc, rtol=1e-6)
    images = setting.splits['valid'].columns['image']
    both = jax.jit(lambda *images: sum(
        trained.objective.logits(trained.params, each) for each in images) / 2)(
            images, images[:, :, ::-1])
    np.testing.assert_allclose(logits, both, atol=1e-4)
