"""What nearest neighbours tell of two sets of features: quality, variety, and copies.

Precision and recall are those of Kynkäänniemi et al. 2019 (arXiv 1904.06991), density and coverage
those of Naeem et al. 2020 (arXiv 2002.09797). Sets come as blocks (`repdiff.eval.generative`) and
are compared a pair of blocks at a time.
"""

import numpy as np

from repdiff.eval.generative import Blocks, size

MANIFOLD_K = 3  # neighbours of precision and recall: ADM's evaluator
COVERAGE_K = 5  # neighbours of density and coverage: the authors'


def neighbour_measures(real: Blocks, made: Blocks) -> dict[str, float]:
    """precision, recall, density and coverage of `made` against `real`.

    Precision: the share of made images within a real image's radius, the distance to its third
    neighbour among its own; recall: the same with the two exchanged. Density: how many real images'
    radii (of five neighbours) a made image lies in, over five. Coverage: the share of real images
    with a made one within their radius. Raises ValueError where a set has too few images.
    """
    narrow, wide = radii(real, (MANIFOLD_K, COVERAGE_K)).T  # (R,) each
    [own] = radii(made, (MANIFOLD_K,)).T
    inside, counts = np.zeros(size(made), bool), np.zeros(size(made))
    recalled, nearest = np.zeros(size(real), bool), np.full(size(real), np.inf)
    for i, rows, x in _rows(made):
        for j, columns, y in _rows(real):
            distance = _squared(x, y)  # (n, m)
            inside[rows] |= (distance <= narrow[columns]).any(1)
            recalled[columns] |= (distance <= own[rows, None]).any(0)
            counts[rows] += (distance < wide[columns]).sum(1)
            nearest[columns] = np.minimum(nearest[columns], distance.min(0))
    return {
        'precision': float(inside.mean()),
        'recall': float(recalled.mean()),
        'density': float(counts.mean() / COVERAGE_K),
        'coverage': float((nearest < wide).mean()),
    }


def radii(blocks: Blocks, k: tuple[int, ...]) -> np.ndarray:
    """Squared distance of each row to its k-th nearest other row, for each k: (rows, len(k))."""
    most = max(k)
    if size(blocks) <= most:
        raise ValueError(f'{size(blocks)} images have no {most}th neighbour each')
    found = []
    for i, _, x in _rows(blocks):
        smallest = np.full((len(x), most), np.inf)
        for j, _, y in _rows(blocks):
            distance = _squared(x, y)
            if i == j:
                np.fill_diagonal(distance, np.inf)  # a row is not its own neighbour
            both = np.concatenate([smallest, distance], 1)
            smallest = np.partition(both, most - 1, 1)[:, :most]
        found.append(np.sort(smallest, 1)[:, np.array(k) - 1])
    return np.concatenate(found)


def nearest(queries: Blocks, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Root mean squared difference of each query to its nearest row, and that row's number."""
    distances, numbers = [], []
    for _, _, x in _rows(queries):
        best, number = np.full(len(x), np.inf), np.zeros(len(x), int)
        for _, columns, y in _rows(blocks):
            distance = _squared(x, y)
            at = distance.argmin(1)
            closer = distance[np.arange(len(x)), at] < best
            best = np.where(closer, distance[np.arange(len(x)), at], best)
            number = np.where(closer, columns.start + at, number)
        distances.append(np.sqrt(best / x.shape[1]))
        numbers.append(number)
    return np.concatenate(distances), np.concatenate(numbers)


def _rows(blocks: Blocks):
    """(number, slice of rows, float64 array) of each block."""
    start = 0
    for i in range(len(blocks)):
        block = np.asarray(blocks[i], np.float64)
        yield i, slice(start, start + len(block)), block
        start += len(block)


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (n, m) of rows, not below 0."""
    distance = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return distance.clip(0)
