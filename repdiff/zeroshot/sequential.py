"""The error-controlled early stop: draws until the full-budget decision is statistically clear.

The full budget is S draws of an image. They are a function of its id and the draw's number, so they
are a finite population, and the question after n of them is which class the mean of all S would
choose. The evidence is the paired difference of a class's error to the leader's, plus what the
threshold or the calibration's bias adds. With mean m and standard deviation s over n draws,

    T = m / (s · sqrt(1/n − 1/S))

is, for normal differences, exactly t-distributed with n − 1 degrees of freedom about the full mean:
m minus the full mean is independent of s and of the full mean (finite-population correction,
Cochran 1977, sec. 2.6). Where a rule weighs several steps t, each is a stratum with a variance of
its own, and the degrees of freedom are Welch and Satterthwaite's (ibid., sec. 5.4), which is no
longer exact. Seen over n, the sum given its end is a Brownian bridge, so T behaves as a
Brownian motion over its scale at time n / (S − n). The test looks at T at growing n and spends
`alpha` over all looks with one constant nominal level (Pocock 1977), found from the exact joint law
of the looks by recursive integration (Armitage, McPherson and Rowe 1969; Jennison and Turnbull
2000, ch. 19), and applied to T's t-distribution (ibid., sec. 4.4). It is one-sided, because the
full-budget winner can be lost at one side only; with K classes each comparison gets
alpha / (K − 1). Looks, not draws, are corrected for: an uncorrected paired t-test at every look
(arXiv 2303.15233) errs several times more often than it says.

A betting confidence sequence without replacement (Waudby-Smith and Ramdas, arXiv 2006.04347 and
2010.09686) needs no normal differences, but bounds on them; with bounds at six standard deviations
it drew about half as many again on simulated normal differences.

So, for each image: P(decision differs from the full budget's) <= alpha for normal differences, in
the worst case of an image exactly at the cut. By simulation up to 1.4 alpha where one step of
several is far noisier than the others, and, at alpha 0.05, twice alpha for differences as skewed as
an exponential's. For most images, far from the cut, it is much rarer: measure agreement with
`python -m repdiff.early_stop`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from repdiff.errors import UserError
from repdiff.zeroshot.rules import Rule
from repdiff.zeroshot.score import ErrorsFn

NODES = 192  # of the quadrature over T at each look
FLOOR = -9.0  # standard deviations below which T is not followed


@dataclass(frozen=True)
class Settings:
    """alpha: probability, for each image, of deciding otherwise than the full budget; 0 spends the
    budget on every image. budget, min_draws (before the first look): draws an image and class.
    growth: of draws from look to look. stratified: steps of t in turn, else in random order.
    antithetic: draws in pairs of ε and −ε.
    """

    alpha: float
    budget: int
    min_draws: int
    growth: float
    stratified: bool
    antithetic: bool

    def __post_init__(self):
        for wrong, key, mend in (
            (not 0 <= self.alpha < 0.5, 'alpha', 'give a probability from 0 to below 0.5'),
            (self.budget < 1, 'budget', 'give at least 1 draw'),
            (self.min_draws < 2, 'min_draws', 'a spread needs at least 2 draws'),
            (self.growth <= 1, 'growth', 'give more than 1'),
            (self.antithetic and self.budget % 2, 'budget', 'antithetic draws come in pairs'),
        ):
            if wrong:
                raise UserError(f'config.classify.{key} is {getattr(self, key)}; {mend}.')


@dataclass(frozen=True)
class Plan:
    """What is drawn and when it is looked at, the same for every image.

    t: the step of each draw (S,) int32; share: what each draw counts in the full mean (S,),
    summing to 1; stratum: number of each draw's step (S,), all 0 in random order; unit: draws that
    are one observation; looks: draws before each look (L,); level: the nominal one-sided level of
    a look.
    """

    t: np.ndarray
    share: np.ndarray
    stratum: np.ndarray
    unit: int
    looks: np.ndarray
    level: float

    def weights(self, n: int) -> np.ndarray:
        """What each of the first n draws counts in the estimate of the full mean (n,).

        In strata every step keeps its share; in random order every draw has its own, enlarged.
        """
        stratum, share = self.stratum[:n], self.share[:n]
        strata = self.stratum.max() + 1
        grown = np.bincount(self.stratum, minlength=strata) / np.maximum(
            np.bincount(stratum, minlength=strata), 1)
        return share * grown[stratum]


def make_plan(rule: Rule, settings: Settings, classes: int) -> Plan:
    """The draws of a rule and the looks of its test.

    Steps are drawn in proportion to weight times spread, which makes the weighted mean most precise
    (Neyman 1934), no step less than a quarter of its even share. In strata, every step comes twice,
    for a spread, before any comes a third time.
    """
    unit = 2 if settings.antithetic else 1
    units = settings.budget // unit
    steps = rule.t.size
    if units < steps:
        raise UserError(f'config.classify.budget is {settings.budget}, too few draws for the '
                        f"{steps} steps of the rule '{rule.name}'; give more.")
    counts = _counts(rule.weights * rule.spread, units)
    place = [np.where(np.arange(n) < 2, -1.0, (np.arange(n) + 0.5) / n) for n in counts]
    stratum = np.repeat(np.arange(steps), counts)
    if settings.stratified:
        order = np.lexsort((stratum, np.concatenate(place)))
    else:
        order = np.random.default_rng(units).permutation(units)
    stratum = np.repeat(stratum[order], unit)
    share = (rule.weights / counts)[stratum] / unit
    t = rule.t[stratum].astype(np.int32)
    first = max(settings.min_draws, (2 * steps if settings.stratified else 2) * unit)
    looks = _looks(first // unit, units, settings.growth) if settings.alpha else np.zeros(0, int)
    level = spent_level(looks / (units - looks), settings.alpha / (classes - 1))
    if not settings.stratified:
        stratum = np.zeros_like(stratum)
    return Plan(t, share, stratum, unit, looks * unit, level)


def _counts(demand: np.ndarray, total: int) -> np.ndarray:
    """`total` shared out in proportion to demand (J,), with a floor, by largest remainders."""
    part = np.maximum(demand / demand.sum(), 0.25 / demand.size)
    exact = part / part.sum() * total
    counts = np.maximum(exact.astype(int), 1)
    while counts.sum() != total:
        gap = exact - counts
        if counts.sum() < total:
            counts[gap.argmax()] += 1
        else:
            counts[np.where(counts > 1, gap, np.inf).argmin()] -= 1
    return counts


def _looks(first: int, last: int, growth: float) -> np.ndarray:
    """Numbers of units before each look, below `last`, which needs no test."""
    looks, n = [], first
    while n < last:
        looks.append(n)
        n = int(np.ceil(n * growth))
    return np.array(looks, int)


def spent_level(times: np.ndarray, alpha: float) -> float:
    """The constant nominal level whose looks at Brownian times (L,) spend `alpha` together.

    One-sided. Exact up to quadrature: the density of T among paths that have not crossed yet is
    carried from look to look. 0 without looks.
    """
    if not times.size:
        return 0.0
    nodes, mass = np.polynomial.legendre.leggauss(NODES)
    keep = np.sqrt(times[:-1] / times[1:])  # correlation of neighbouring looks

    def crossed(bound: float) -> float:
        half = (bound - FLOOR) / 2
        at, width = FLOOR + half * (nodes + 1), half * mass
        density = stats.norm.pdf(at)
        for rho in keep:
            scale = np.sqrt(1 - rho**2)
            move = np.exp(-0.5 * ((at[:, None] - rho * at) / scale) ** 2)
            density = move @ (density * width) / (scale * np.sqrt(2 * np.pi))
        return 1 - density @ width

    if times.size == 1:
        return alpha
    low, high = stats.norm.isf(alpha), stats.norm.isf(alpha / times.size)
    return float(stats.norm.sf(brentq(lambda z: crossed(z) - alpha, low, high, rtol=1e-6)))


@dataclass(frozen=True)
class Outcome:
    """errors (B, K, max draws) float32, NaN where not computed; draws (B, K) int32 used; scores
    (B, K) float64, of which the top one, plus its offset, is the decision.
    """

    errors: np.ndarray
    draws: np.ndarray
    scores: np.ndarray


def evaluate(
    errors: ErrorsFn, rule: Rule, plan: Plan, offsets: np.ndarray, images: int,
    progress: Callable[[int, int], Any] = lambda open_pairs, draws: None,
) -> Outcome:
    """Draws in rounds until each image is decided; what is still open goes on in full batches.

    The decision is argmax of score + offset, offsets (K,). After each round a class leaves when it
    is worse than the leader at the plan's level; an image leaves when one class is left. Under a
    vote no class can leave before its image does, because a vote depends on all of them.

    Args:
      errors: of triples of these images, their first column that of the rule's penalty.
      progress: called after each round with the number of open (image, class) pairs and of
        draws so far.
    """
    classes = offsets.size
    found = np.full((images, classes, plan.t.size), np.nan, np.float32)
    active, drawn = np.ones((images, classes), bool), np.zeros((images, classes), np.int32)
    begin = 0
    for end in (*plan.looks, plan.t.size):
        image, klass = np.nonzero(active)
        if not image.size:
            break
        draws = np.arange(begin, end)
        rows = [np.repeat(x, draws.size) for x in (image, klass)]
        draw = np.tile(draws, image.size)
        found[rows[0], rows[1], draw] = errors(*rows, draw, plan.t[draw])[:, 0]
        drawn[image, klass], begin = end, end
        if end == plan.t.size:
            active[:] = False
        else:
            of = np.unique(image)
            active[of] &= ~_worse(rule, plan, offsets, found[of, :, :end], active[of])
            active[active.sum(1) == 1] = False
        progress(int(active.sum()), end)
    return Outcome(found[..., : drawn.max()], drawn, scores(rule, plan, offsets, found, drawn))


def _worse(rule, plan, offsets, errors, active) -> np.ndarray:
    """Which active classes the first n draws (B, K, n) prove worse than the leader, (B, K) bool."""
    n, images = errors.shape[2], np.arange(len(errors))
    terms, weights = rule.terms(errors), plan.weights(n)
    means = np.where(active, terms @ weights - offsets, np.inf)
    leader = means.argmin(1)
    gap = means - means[images, leader][:, None]  # (B, K), in error plus offset
    paired = (terms - terms[images, leader][:, None]).reshape(*means.shape, -1, plan.unit).mean(-1)
    every = plan.stratum[:: plan.unit]
    total, stratum = np.bincount(every), every[: n // plan.unit]
    paired *= total[stratum] * plan.unit * plan.share[: n : plan.unit]
    member = stratum == np.arange(total.size)[:, None]  # (strata, units)
    seen = member.sum(1)
    rest = paired - (paired @ member.T / seen) @ member
    # In each stratum; one that has a single draw in all is known, not estimated.
    squares, degrees = rest**2 @ member.T, np.maximum(seen - 1.0, 1)
    if rule.vote:  # as if one more draw had gone each way: n equal votes are no certainty
        squares, degrees = squares + 2 / total.size**3, degrees + 1 / total.size
    parts = squares / degrees * (1 / seen - 1 / total)
    variance = parts.sum(-1)
    together = variance**2 / np.maximum((parts**2 / degrees).sum(-1), 1e-300)
    clear = active & (gap > stats.t.isf(plan.level, np.maximum(together, 1)) * np.sqrt(variance))
    if rule.vote:
        clear &= (clear.sum(1) == active.sum(1) - 1)[:, None]
    return clear


def scores(
    rule: Rule, plan: Plan, offsets: np.ndarray, errors: np.ndarray, drawn: np.ndarray
) -> np.ndarray:
    """Scores (B, K) after `drawn` (B, K) draws, at most those of an outcome's `errors`.

    Minus the mean so far; of a class that left early, relative to the winner's.
    The winner has seen all draws of the class, so their difference is taken over those alone, and
    the class scores no higher than the winner, whatever the winner's later draws were.
    """
    result = np.zeros(drawn.shape)
    most = drawn.max(1)
    for n in np.unique(most):
        of = np.flatnonzero(most == n)
        images, left = np.arange(of.size), drawn[of] < n
        terms = rule.terms(errors[of, :, :n])
        found = np.where(left, -np.inf, -(terms @ plan.weights(n)))
        winner = (found + offsets).argmax(1)
        top = found[images, winner]
        for count in np.unique(drawn[of][left]):
            behind = -(terms[..., :count] @ plan.weights(count))  # (B, K)
            behind += (top - behind[images, winner])[:, None]
            at_most = (top + offsets[winner])[:, None] - offsets
            found = np.where(drawn[of] == count, np.minimum(behind, at_most), found)
        result[of] = found
    return result
