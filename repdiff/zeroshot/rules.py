"""Decision rules: weights over draws that turn errors (B, K, S) into one score a class.

Every rule reads the same ε errors. With z0 − z0' = (δ/γ)(ε' − ε) and v' − v = (ε' − ε)/γ, scoring by
z0 or v is a weight over t (arXiv 2505.06890, eq. 3 and 4); at one fixed t all pick the same label.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from repdiff.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Rule:
    """A named weight a draw (S,), summing to 1."""

    name: str
    weights: np.ndarray

    def scores(self, errors: np.ndarray) -> np.ndarray:
        """−Σ_s w_s error, (B, K) float64 of errors (B, K, S): higher is more likely."""
        return -(errors.astype(np.float64) @ self.weights)


def _rule(name: str, weights: np.ndarray) -> Rule:
    weights = np.asarray(weights, np.float64)
    return Rule(name, weights / weights.sum())


def candidates(schedule: Schedule, t: np.ndarray, errors: np.ndarray) -> list[Rule]:
    """The rules to choose from, given the draws' steps t (S,) and validation errors (B, K, S).

    One rule for each single t; `eps` (Diffusion Classifier: equal weights), `z0` (Diffusion
    Classifier Zero: (δ/γ)²), `v` (1/γ²); `inverse_sd`, which weighs each t by one over the standard
    deviation of the difference between classes there. No rule here looks at a label.
    """
    gamma = np.asarray(schedule.gamma, np.float64)[t]
    delta = np.asarray(schedule.delta, np.float64)[t]
    spread = _spread(errors, t)
    rules = [_rule(f't={step}', t == step) for step in np.unique(t)]
    return rules + [
        _rule('eps', np.ones(t.size)),
        _rule('z0', (delta / gamma) ** 2),
        _rule('v', 1 / gamma**2),
        _rule('inverse_sd', 1 / spread),
    ]


def _spread(errors: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Standard deviation over images of the centred class errors at each draw's t, (S,)."""
    centred = errors - errors.mean(1, keepdims=True)
    by_step = {step: max(centred[..., t == step].std(), 1e-12) for step in np.unique(t)}
    return np.array([by_step[step] for step in t])


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve of class scores (B, K); macro one-vs-rest for K > 2.

    Of two classes the score is the difference, so a shift common to both has no effect.
    """
    if scores.shape[1] == 2:
        return float(roc_auc_score(labels, scores[:, 1] - scores[:, 0]))
    centred = scores - scores.mean(1, keepdims=True)
    present = [k for k in range(scores.shape[1]) if 0 < np.sum(labels == k) < labels.size]
    return float(np.mean([roc_auc_score(labels == k, centred[:, k]) for k in present]))


def choose(rules: list[Rule], errors: np.ndarray, labels: np.ndarray) -> Rule:
    """The rule with the highest AUROC on the validation errors; the first of equals."""
    return max(rules, key=lambda rule: auroc(rule.scores(errors), labels))


def auroc_over_t(t: np.ndarray, errors: np.ndarray, labels: np.ndarray) -> list[float]:
    """AUROC of each single-t rule, in the order of the distinct steps."""
    return [auroc(_rule('', t == step).scores(errors), labels) for step in np.unique(t)]
