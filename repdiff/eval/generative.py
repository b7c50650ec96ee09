"""How like real images generated ones are: Fréchet distance, kernel distance, inception score.

Features come as blocks, a sequence of arrays (n, D) each, so that a set may lie on disk and be read
block by block. All sums are float64. Letters here: D features, K classes of a feature network.
"""

from collections.abc import Iterable, Sequence

import numpy as np

Blocks = Sequence[np.ndarray]

SCORE_SPLIT = 5000  # images an inception score is taken over, before the mean: ADM's evaluator


class Moments:
    """Mean (D,) and covariance (D, D) of a stream of blocks; memory does not grow with it.

    Blocks are merged by Chan's update, which does not cancel where means are large.
    """

    def __init__(self, blocks: Iterable[np.ndarray] = ()):
        self.count, self.mean, self.scatter = 0, np.zeros(()), np.zeros(())
        for block in blocks:
            self.update(block)

    def update(self, block: np.ndarray) -> None:
        """Adds the rows of a block (n, D)."""
        block = np.asarray(block, np.float64)
        mean = block.mean(0)
        centred, total = block - mean, self.count + len(block)
        shift = mean - self.mean  # (D,)
        self.scatter = self.scatter + centred.T @ centred + (
            self.count * len(block) / total) * np.outer(shift, shift)
        self.mean = self.mean + shift * (len(block) / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """With n - 1 in the denominator, as the reference codes have it."""
        return self.scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """‖μa - μb‖² + Tr(Ca + Cb - 2 (Ca Cb)^½), the FID of Heusel et al. 2017 (arXiv 1706.08500).

    Tr (Ca Cb)^½ is the sum of the singular values of Ca^½ Cb^½, which stays exact where a
    covariance is singular, as with fewer images than features.
    """
    roots = _root(a.covariance) @ _root(b.covariance)
    cross = np.linalg.svd(roots, compute_uv=False).sum()
    shift = a.mean - b.mean
    return float(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def kernel_distance(a: Blocks, b: Blocks) -> float:
    """KID: the squared maximum mean discrepancy under the kernel (x·y / D + 1)³, unbiased.

    Bińkowski et al. 2018 (arXiv 1801.01401). Over all pairs of images at once: the expectation
    is that of the usual mean over random subsets, without their noise.
    """
    return _mean_kernel(a, a) + _mean_kernel(b, b) - 2 * _mean_kernel(a, b)


def _mean_kernel(a: Blocks, b: Blocks) -> float:
    """The kernel's mean over pairs of rows; a row with itself is no pair."""
    total = 0.0
    for i in range(len(a)):
        x = np.asarray(a[i], np.float64)
        for j in range(len(b)):
            kernel = (x @ np.asarray(b[j], np.float64).T / x.shape[1] + 1) ** 3
            total += kernel.sum() - (np.trace(kernel) if a is b and i == j else 0.0)
    rows, columns = size(a), size(b)
    return total / (rows * (columns - 1) if a is b else rows * columns)


def inception_score(logits: Iterable[np.ndarray]) -> float:
    """exp of the mean divergence of p(class | image) from its mean (arXiv 1606.03498).

    Logits (n, K) without the classifier's bias and the mean over runs of 5,000 images, as in ADM's
    evaluator. At least 1, at most K.
    """
    scores, part = [], _Divergence()
    for rest in logits:
        while len(rest):
            taken, rest = np.split(rest, [SCORE_SPLIT - part.count])
            part.update(np.asarray(taken, np.float64))
            if part.count == SCORE_SPLIT:
                scores.append(part.value())
                part = _Divergence()
    if part.count:
        scores.append(part.value())
    return float(np.mean(scores))


class _Divergence:
    """Running sums of p and of p log p over images."""

    def __init__(self):
        self.count, self.p, self.p_log_p = 0, 0.0, 0.0

    def update(self, logits: np.ndarray) -> None:
        log_p = logits - logits.max(1, keepdims=True)
        log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
        p = np.exp(log_p)
        self.count, self.p = self.count + len(p), self.p + p.sum(0)
        self.p_log_p += (p * log_p).sum()

    def value(self) -> float:
        p = self.p / self.count
        return np.exp(self.p_log_p / self.count - (p * np.log(p.clip(1e-300))).sum())


def size(blocks: Blocks) -> int:
    """Rows of all blocks together."""
    return sum(len(blocks[i]) for i in range(len(blocks)))
