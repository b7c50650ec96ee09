"""Everything chosen on the validation split, as one object that can be stored and used again."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import logit, softmax

from repdiff.eval import select
from repdiff.zeroshot import calibrate
from repdiff.zeroshot.calibrate import Calibration
from repdiff.zeroshot.rules import Rule


@dataclass(frozen=True)
class Decision:
    """How scores become answers: a denoiser's rule (None: scores are a classifier's logits), their
    calibration and, for two classes, the probability from which class 1 is called.
    """

    rule: Rule | None
    calibration: Calibration
    cut: float | None

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of rule scores (B, K): of class 1 (B,) for two, else (B, K)."""
        found = self.calibration.probabilities(scores)
        return found if self.cut is None else found[:, 1]

    def classify(self, scores: np.ndarray) -> np.ndarray:
        """Predictions (B,) int of rule scores (B, K)."""
        return select.classify(self.probabilities(scores), self.cut)

    def raw_probabilities(self, scores: np.ndarray, dimensions: int) -> np.ndarray:
        """What a diffusion classifier states without calibration, shaped as `probabilities`.

        The softmax of minus the error summed over the `dimensions` of z0 (arXiv 2303.16203, eq. 4),
        or, of a vote, the share of the draws. Of logits the softmax; they have dimensions=1.
        """
        vote = self.rule is not None and self.rule.vote
        found = scores + 1 if vote else softmax(dimensions * scores, axis=1)
        return found if self.cut is None else found[:, 1]

    def confidence(self, scores: np.ndarray) -> np.ndarray:
        """(B,) how far the decision is from another one: log odds beyond the cut, or the top
        class's probability.
        """
        found = self.probabilities(scores)
        return found.max(1) if self.cut is None else np.abs(logit(found) - logit(self.cut))

    @property
    def offsets(self) -> np.ndarray:
        """(K,) such that the prediction is argmax of score + offset: bias and cut in score units."""
        bias = self.calibration.bias / self.calibration.slope
        if self.cut is None:
            return bias
        return bias - [0.0, logit(self.cut) / self.calibration.slope]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_json` makes an equal decision."""
        lists = {'t', 'weights', 'spread'}
        rule = self.rule and {key: value.tolist() if key in lists else value
                              for key, value in asdict(self.rule).items()}
        return {'rule': rule, 'slope': self.calibration.slope,
                'bias': self.calibration.bias.tolist(), 'cut': self.cut}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> 'Decision':
        """The decision that `to_json` wrote."""
        rule = value['rule'] and Rule(**{
            key: np.array(part) if isinstance(part, list) else part
            for key, part in value['rule'].items()
        })
        calibration = Calibration(value['slope'], np.array(value['bias']))
        return cls(rule, calibration, value['cut'])


def decide(rule: Rule | None, scores: np.ndarray, labels: np.ndarray) -> Decision:
    """Fits calibration and, for two classes, the cut of highest F1 to validation scores (B, K)."""
    calibration = calibrate.fit(scores, labels)
    cut = None
    if scores.shape[1] == 2:
        cut = select.threshold(labels, calibration.probabilities(scores)[:, 1])
    return Decision(rule, calibration, cut)
