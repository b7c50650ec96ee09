"""What an early stop would have done, from draws of the full budget; and variances of draws."""

from dataclasses import replace

import numpy as np

from repdiff.zeroshot import sequential
from repdiff.zeroshot.decision import Decision
from repdiff.zeroshot.sequential import Outcome, Plan, Settings

ALPHAS = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001)
FIXED = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # draws


def curves(full: Outcome, decision: Decision, settings: Settings) -> dict[str, list[dict]]:
    """Points {"alpha" or "draws", "cost", "agreement"} of three ways to stop, as JSON values.

    `sequential` is the evaluator's; `uncorrected` tests each look at alpha, as if it were the only
    one; `fixed` gives each image equally many draws. cost: forward passes as a share of the full
    budget's; agreement: share of the images decided as by the full budget.

    Args:
      full: an outcome under the same settings but for alpha = 0.
    """
    errors, classes = full.errors, decision.offsets.size
    wanted = decision.classify(full.scores)

    def point(drawn: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        return {'cost': float(drawn.mean() / settings.budget),
                'agreement': float(np.mean(decision.classify(scores) == wanted))}

    def stopped(plan: Plan) -> dict[str, float]:
        found = sequential.evaluate(
            lambda image, klass, draw, t: errors[image, klass, draw][:, None],
            decision.rule, plan, decision.offsets, len(errors),
        )
        return point(found.draws, found.scores)

    result: dict[str, list[dict]] = {'sequential': [], 'uncorrected': [], 'fixed': []}
    for alpha in ALPHAS:
        plan = sequential.make_plan(decision.rule, replace(settings, alpha=alpha), classes)
        result['sequential'].append({'alpha': alpha} | stopped(plan))
        bold = replace(plan, level=alpha / (classes - 1))
        result['uncorrected'].append({'alpha': alpha} | stopped(bold))
    for draws in FIXED:
        if decision.rule.t.size <= draws < settings.budget and draws % plan.unit == 0:
            drawn = np.full(full.draws.shape, draws, np.int32)
            scores = sequential.scores(decision.rule, plan, decision.offsets, errors, drawn)
            result['fixed'].append({'draws': draws} | point(drawn, scores))
    return result


def stratified_ratio(full: Outcome, decision: Decision, plan: Plan) -> float:
    """Variance of the mean difference of the two top classes with steps in turn over at random."""
    gaps = _gaps(full, decision) * (plan.share * plan.t.size)
    means, t = gaps.reshape(len(gaps), -1, plan.unit).mean(-1), plan.t[:: plan.unit]
    return float(_variance(means, t) / _variance(means, np.zeros_like(t)))


def antithetic_ratio(pairs: Outcome, decision: Decision, plan: Plan) -> float:
    """The same of n draws in opposite pairs over n draws of their own, at given steps.

    `pairs` was drawn in antithetic pairs, some of each step.
    """
    gaps = _gaps(pairs, decision) * (plan.share * plan.t.size)
    means = gaps.reshape(len(gaps), -1, 2).mean(-1)
    return float(2 * _variance(means, plan.t[::2]) / _variance(gaps, plan.t))


def _gaps(outcome: Outcome, decision: Decision) -> np.ndarray:
    """The difference of what is averaged between each image's two top classes, (B, S)."""
    terms, images = decision.rule.terms(outcome.errors), np.arange(len(outcome.errors))
    top = (outcome.scores + decision.offsets).argsort(1)
    return terms[images, top[:, -2]] - terms[images, top[:, -1]]


def _variance(values: np.ndarray, group: np.ndarray) -> float:
    """Mean over images of the variance of values (B, S) within groups (S,)."""
    member = group == np.unique(group)[:, None]
    rest = values - (values @ member.T / member.sum(1)) @ member
    return (rest**2).sum() / (len(values) * (group.size - len(member)))
