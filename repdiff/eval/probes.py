"""How much a linear rule, or the nearest neighbours, can read out of features."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from repdiff.eval import metrics

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of the logistic regressions
NEIGHBOURS, TEMPERATURE = 20, 0.07  # DINO's k-NN (arXiv 2104.14294)


@dataclass(frozen=True)
class Linear:
    """A logistic regression on standardised features, the best of `settings` on validation."""

    features: str
    strength: float
    valid_auroc: float
    settings: int
    model: Pipeline

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(B, K) of features (B, F); of two classes that of class 0 is 0."""
        found = self.model.decision_function(x)
        return np.stack([np.zeros(len(x)), found], 1) if found.ndim == 1 else found


def linear(
    candidates: Mapping[str, tuple[np.ndarray, np.ndarray]], train_labels: np.ndarray,
    valid_labels: np.ndarray,
) -> Linear:
    """The best features and C by validation AUROC, the first of equals.

    candidates: name -> features (B, F) of the training and of the validation images. Unlabelled
    training images (label −1) take no part; classes weigh alike.
    """
    labelled, best = train_labels >= 0, None
    for name, (x_train, x_valid) in candidates.items():
        for strength in STRENGTHS:
            model = make_pipeline(StandardScaler(), LogisticRegression(
                C=strength, class_weight='balanced', max_iter=1000))
            model.fit(x_train[labelled], train_labels[labelled])
            auroc = metrics.metrics(
                valid_labels, model.predict_proba(x_valid), model.predict(x_valid))['auroc']
            if best is None or auroc > best[0]:
                best = auroc, name, strength, model
    auroc, name, strength, model = best
    return Linear(name, strength, auroc, len(candidates) * len(STRENGTHS), model)


def neighbours(
    queries: np.ndarray, features: np.ndarray, labels: np.ndarray, classes: int
) -> np.ndarray:
    """Shares of the classes (B, K) among each query's nearest labelled features, by cosine.

    Each of NEIGHBOURS weighs exp(cosine / TEMPERATURE).
    """
    labelled = labels >= 0
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, features[labelled])]
    likeness = unit[0] @ unit[1].T  # (B, M)
    nearest = np.argsort(-likeness, axis=1, kind='stable')[:, :NEIGHBOURS]
    weights = softmax(np.take_along_axis(likeness, nearest, 1) / TEMPERATURE, axis=1)
    return np.einsum('bn,bnk->bk', weights, np.eye(classes)[labels[labelled][nearest]])
