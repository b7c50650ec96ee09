"""A density of pooled r, to draw new r from: with it the model needs no image (as RCG does).

RCG (Li, Katabi, He 2024, arXiv 2312.03701) fits a small diffusion model to frozen representations;
for one short vector a Gaussian mixture is enough, and its likelihood can be held out.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from repdiff.errors import UserError
from repdiff.progress import Progress

# (components, covariance) that compete on held-out likelihood.
CANDIDATES = tuple((count, 'full') for count in (1, 2, 4, 8, 16)) + (
    (8, 'diag'), (32, 'diag'), (64, 'diag'))
HELD_OUT = 0.2  # share of patients that the choice is made on
ITERATIONS = 60  # of expectation maximisation


@dataclass(frozen=True)
class Density:
    """A mixture over r (D,): `weights` (M,), `means` (M, D), `roots` (M, D, D) with C = root rootᵀ.

    `held_out` is the mean log-likelihood of held-out r, in nats, of each candidate by name; `name`
    is the chosen one's.
    """

    weights: np.ndarray
    means: np.ndarray
    roots: np.ndarray
    name: str
    held_out: dict[str, float]

    def draw(self, seed: int, numbers: np.ndarray) -> np.ndarray:
        """r (B, D) float32 of each image number: a function of (seed, number) alone."""
        drawn = []
        for number in numbers:
            rng = np.random.default_rng([seed, int(number)])
            part = rng.choice(len(self.weights), p=self.weights)
            normal = rng.standard_normal(self.means.shape[1])
            drawn.append(self.means[part] + self.roots[part] @ normal)
        return np.asarray(drawn, np.float32)


def fit(r: np.ndarray, groups: np.ndarray, seed: int) -> Density:
    """The mixture of r (B, D) whose likelihood on held-out groups (patients) is highest.

    The winner is fitted again on all. Raises UserError where r is not one vector an image, or of
    too few patients.
    """
    if r.ndim != 2:
        raise UserError("the condition density needs one vector r an image; choose a row with "
                        "representation.kind 'pooled', or the condition images.")
    names = np.unique(groups)
    held = np.isin(groups, np.random.default_rng(seed).permutation(names)[
        :max(1, round(HELD_OUT * len(names)))])
    if held.all() or (~held).sum() < 2:
        raise UserError(f'a density of r cannot be fitted to {len(r)} images of {len(names)} '
                        'patients; pre-train on more.')
    scale = r.std(0) + 1e-6  # candidates are compared on equal terms, whatever r's units
    scaled = (r / scale).astype(np.float64)
    scores = {}
    progress = Progress(len(CANDIDATES) + 1, 'density of r', 'mixtures')
    for count, kind in CANDIDATES:
        if count * 2 <= (~held).sum():
            model = _fitted(count, kind, seed, scaled[~held])
            scores[f'{count} {kind}'] = float(model.score(scaled[held]) - np.log(scale).sum())
        progress.update()
    name = max(scores, key=scores.get)
    count, kind = name.split()
    model = _fitted(int(count), kind, seed, scaled)
    progress.update()
    roots = (np.linalg.cholesky(model.covariances_) if kind == 'full'
             else np.stack([np.diag(np.sqrt(values)) for values in model.covariances_]))
    return Density(model.weights_ / model.weights_.sum(), model.means_ * scale,
                   roots * scale[:, None], name, scores)


def _fitted(count: int, kind: str, seed: int, scaled: np.ndarray) -> GaussianMixture:
    # The floor of the variances keeps a component from closing around a few images.
    mixture = GaussianMixture(count, covariance_type=kind, reg_covar=1e-3, max_iter=ITERATIONS,
                              random_state=seed)
    with warnings.catch_warnings():
        # Held-out likelihood judges a mixture, wherever its iterations ended.
        warnings.simplefilter('ignore', ConvergenceWarning)
        return mixture.fit(scaled)
