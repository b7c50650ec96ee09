"""Decision rules: what turns errors (B, K, S) into one score a class, and the choice among them.

Every rule reads the same ε errors. With z0 − z0' = (δ/γ)(ε' − ε) and v' − v = (ε' − ε)/γ, scoring by
z0 or v is a weight over t (arXiv 2505.06890, eq. 3 and 4); at one fixed t all pick the same label,
and so does any penalty's vote. The choice is made on validation errors alone.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from repdiff.diffusion.schedule import Schedule

# How a penalty scales with its argument; Huber's does not, so it has no z0 and v twins.
DEGREE = {'l2': 2, 'l1': 1}
FOLDS = 5
# The learned rule's pull towards equal weights, worth one image.
PULL = 1.0


@dataclass(frozen=True)
class Rule:
    """Weights over steps of t for one penalty, of errors or of votes.

    t: distinct steps (J,) int; weights (J,) float64 > 0, summing to 1; spread (J,): standard
    deviation over images and draws of what is compared between classes at each step. A `vote` rule
    counts the draws in which a class has the least error (Favero et al. 2025, PMLR 301:407).
    """

    name: str
    kind: str
    vote: bool
    t: np.ndarray
    weights: np.ndarray
    spread: np.ndarray

    def terms(self, errors: np.ndarray) -> np.ndarray:
        """What is averaged over draws, float64 like errors (..., K, S): less is likelier."""
        errors = errors.astype(np.float64)
        if not self.vote:
            return errors
        best = errors.argmin(-2)[..., None, :]
        return 1.0 - (best == np.arange(errors.shape[-2])[:, None])

    def scores(self, t: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """−Σ_t w_t mean error at t, (B, K), of draws of steps t (S,): higher is more likely."""
        weights = np.zeros(t.size)
        for step, weight in zip(self.t, self.weights, strict=True):
            weights[t == step] = weight / np.sum(t == step)
        return -(self.terms(errors) @ weights)


def candidates(schedule: Schedule, t: np.ndarray, errors: np.ndarray, kind: str) -> list[Rule]:
    """The rules of one penalty that look at no label, given steps t (S,), errors (B, K, S).

    One rule for each single t; `eps` (Diffusion Classifier: equal weights), `z0` (Diffusion
    Classifier Zero: (δ/γ)²), `v` (1/γ²); `inverse_sd`, which weighs each t by one over the standard
    deviation of the difference between classes there; `vote`, the majority over all draws.
    """
    steps, spread = _spread(t, errors)
    named = {f't={step}': (steps == step).astype(float) for step in steps}
    named['eps'] = np.ones(steps.size)
    if kind in DEGREE:
        gamma = np.asarray(schedule.gamma, np.float64)[steps]
        delta = np.asarray(schedule.delta, np.float64)[steps]
        named |= {'z0': (delta / gamma) ** DEGREE[kind], 'v': 1 / gamma ** DEGREE[kind]}
    named['inverse_sd'] = 1 / spread
    suffix = '' if kind == 'l2' else f' {kind}'
    rules = [_rule(name + suffix, kind, steps, weights, spread) for name, weights in named.items()]
    equal = np.ones(steps.size)
    return [*rules, _rule('vote' + suffix, kind, steps, equal, equal, vote=True)]


def _rule(name: str, kind: str, t, weights, spread, vote: bool = False) -> Rule:
    kept = weights > 0
    return Rule(name, kind, vote, t[kept], weights[kept] / weights.sum(), spread[kept])


def _spread(t: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct steps, and the standard deviation of the centred class errors at each."""
    steps = np.unique(t)
    centred = errors - errors.mean(1, keepdims=True)
    return steps, np.array([max(centred[..., t == step].std(), 1e-12) for step in steps])


def learned(
    t: np.ndarray, errors: np.ndarray, labels: np.ndarray, patients: np.ndarray, kind: str,
    more: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[Rule, np.ndarray]:
    """Weights over t fitted to labels (B,), and scores (B, K) by weights that saw no such patient.

    Conditional logistic regression of the label on the class errors at each t (for two classes, on
    the paired difference), with weights >= 0: less error is never evidence against a class
    (20 weights over t: Clark and Jaini 2023, arXiv 2303.15233). Errors are scaled by their spread,
    so the ridge pulls towards `inverse_sd`. Scores are cross-fitted in FOLDS of the patients (B,);
    `more` errors and labels, of training images, whose patients are others, are in every fit.
    """
    steps, spread = _spread(t, errors)

    def features(errors):
        means = [errors[..., t == step].mean(-1) for step in steps]
        return -np.stack(means, -1).astype(np.float64) / spread  # (B, K, J)

    x, fold = features(errors), _folds(labels, patients)
    more_x, more_labels = (features(more[0]), more[1]) if more else (x[:0], labels[:0])

    def fit(kept):
        return _fit(np.concatenate([x[kept], more_x]), np.concatenate([labels[kept], more_labels]))

    scores = np.zeros(x.shape[:2])
    for k in range(FOLDS):
        weights = fit(fold != k) / spread
        scores[fold == k] = x[fold == k] @ (weights * spread / weights.sum())
    weights = fit(np.ones(labels.size, bool)) / spread
    suffix = '' if kind == 'l2' else f' {kind}'
    return _rule('learned' + suffix, kind, steps, weights, spread), scores


def _folds(labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The fold (B,) of each image: its patient's, and every fold has its share of each class."""
    names, owner = np.unique(patients, return_inverse=True)
    highest = np.zeros(names.size, int)
    np.maximum.at(highest, owner, labels)
    fold = np.zeros(names.size, int)
    fold[np.argsort(highest, kind='stable')] = np.arange(names.size) % FOLDS
    return fold[owner]


def _fit(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (J,) >= 0 of features x (B, K, J) by penalised maximum likelihood, with class biases."""
    size = x.shape[2]

    def loss(parameters):
        weights, bias = parameters[:size], np.append(0.0, parameters[size:])
        log_p = log_softmax(x @ weights + bias, axis=1)
        wanted = np.zeros_like(log_p)
        wanted[np.arange(labels.size), labels] = 1.0
        gap = np.exp(log_p) - wanted  # (B, K)
        off = weights - weights.mean()
        value = -(log_p * wanted).sum() + 0.5 * PULL * (off @ off)
        return value, np.concatenate([np.einsum('bk,bkj->j', gap, x) + PULL * off,
                                      gap.sum(0)[1:]])

    start = np.concatenate([np.full(size, 1 / size), np.zeros(x.shape[1] - 1)])
    bounds = [(0.0, None)] * size + [(None, None)] * (x.shape[1] - 1)
    weights = minimize(loss, start, jac=True, bounds=bounds, method='L-BFGS-B').x[:size]
    return weights if weights.sum() > 0 else np.ones(size)


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve of class scores (B, K); macro one-vs-rest for K > 2.

    Of two classes the score is the difference, so a shift common to both has no effect.
    """
    if scores.shape[1] == 2:
        return float(roc_auc_score(labels, scores[:, 1] - scores[:, 0]))
    centred = scores - scores.mean(1, keepdims=True)
    present = [k for k in range(scores.shape[1]) if 0 < np.sum(labels == k) < labels.size]
    return float(np.mean([roc_auc_score(labels == k, centred[:, k]) for k in present]))


def choose(
    schedule: Schedule, t: np.ndarray, errors: np.ndarray, kinds: tuple[str, ...],
    labels: np.ndarray, patients: np.ndarray, more: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[Rule, np.ndarray]:
    """The rule of highest AUROC on validation errors (B, K, S, kinds), and its scores (B, K).

    The first of equals. `patients` and `more` as `learned` takes them, errors of all kinds. Scores
    are those that the choice saw: cross-fitted where weights were learned.
    """
    scored = []
    for index, kind in enumerate(kinds):
        found = errors[..., index]
        for rule in candidates(schedule, t, found, kind):
            scored.append((rule, rule.scores(t, found)))
        extra = (more[0][..., index], more[1]) if more else None
        scored.append(learned(t, found, labels, patients, kind, extra))
    return max(scored, key=lambda pair: auroc(pair[1], labels))


def auroc_over_t(t: np.ndarray, errors: np.ndarray, labels: np.ndarray) -> list[float]:
    """AUROC of each single step alone, in the order of the distinct steps."""
    return [auroc(-errors[..., t == step].mean(-1, dtype=np.float64), labels)
            for step in np.unique(t)]
