"""Where the evaluator sees its evidence: per-pixel differences of denoising error, with a test.

The error of a draw is a sum over pixels (`pixel_energy` of a front end), so the map of two classes
sums to the difference of their scores: it is the decision itself, laid out over the image. What is
shown has passed a sign-flip test that is exact for any number of draws, over whichever steps t:
were the two classes alike, each draw's map would be as likely with the opposite sign. The largest
statistic over all pixels is compared with its distribution under random flips of whole draws, which
keeps the chance that a map of two like classes shows anything at all (the family-wise error over
pixels) at the level, however neighbouring pixels depend on each other (Westfall & Young 1993;
Nichols & Holmes 2002, for images).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from repdiff.diffusion.noise import draw_noise, image_keys
from repdiff.diffusion.schedule import Schedule, add_noise
from repdiff.zeroshot.score import ConditionalDenoiseFn

FLIPS_AT_ONCE = 256  # bounds memory
FOR, AGAINST = np.array([230.0, 60.0, 20.0]), np.array([30.0, 110.0, 230.0])  # RGB of an overlay


@dataclass(frozen=True)
class Evidence:
    """One image's map for class a against class b; (H, W) float64 each, in pixels.

    mean: Σ_s w_s (error under b − error under a), positive where a explains the image better; its
    sum is a's score minus b's. error: its standard error over draws. statistic: mean over the root
    of the summed squares of its draws; the test's. threshold: of |statistic|.
    """

    mean: np.ndarray
    error: np.ndarray
    statistic: np.ndarray
    threshold: float

    @property
    def shown(self) -> np.ndarray:
        """Where the evidence stands out of the noise, (H, W) bool, of either sign."""
        return np.abs(self.statistic) > self.threshold


def make_mapper(
    denoise: ConditionalDenoiseFn, schedule: Schedule, t: np.ndarray, chunk: int,
    pixel_energy: Callable[[jax.Array], jax.Array],
) -> Callable:
    """Returns jitted (params, pairs (B, 2), z0, ids (B, 2), key) -> differences (B, S, H, W).

    Of each image's two classes (a, b): error under b minus error under a, by pixel, for draw s at
    step t[s] with the same ε for both; it sums over pixels to the difference of `Scorer`'s
    errors. `pixel_energy`: latents (B, h, w, C) -> (B, H, W), whose sum over pixels is the
    latents' sum of squares.
    """
    t = jnp.asarray(t, jnp.int32)

    def mapper(params, pairs, z0, ids, key):
        keys = image_keys(key, ids)

        def one_draw(draw):
            eps = draw_noise(keys, draw, z0.shape[1:])
            steps = jnp.full(z0.shape[:1], t[draw])
            z_t = add_noise(schedule, z0, steps, eps)

            def one_class(condition):
                predicted = denoise(params, z_t, steps, condition)[..., : z0.shape[-1]]
                return pixel_energy((eps - predicted).astype(jnp.float32))

            errors = jax.vmap(one_class)(pairs.T)  # (2, B, H, W)
            return (errors[1] - errors[0]) / z0[0].size

        return jax.lax.map(one_draw, jnp.arange(t.size), batch_size=chunk).swapaxes(0, 1)

    return jax.jit(mapper)


def weigh(differences: np.ndarray, t: np.ndarray, weights: np.ndarray, level: float, flips: int,
          smooth: float, seed: int) -> Evidence:
    """The evidence in one image's differences (S, H, W), and its test.

    Args:
      t: the step (S,) of each draw; every step needs two draws, for the standard error.
      weights: the rule's weight (S,) of each draw.
      level: chance that the map of two like classes shows anything.
      flips: random sign flips; the smallest level is 1 / flips.
      smooth: standard deviation in pixels of the Gaussian that maps are smoothed by, which keeps
        their sums; 0 for none.
      seed: of the flips.
    """
    terms = differences.astype(np.float64) * weights[:, None, None]
    if smooth:
        terms = ndimage.gaussian_filter(terms, (0, smooth, smooth), mode='reflect')
    shape, terms = terms.shape[1:], terms.reshape(len(terms), -1)  # (S, P)
    variance = sum(np.sum(t == step) * terms[t == step].var(0, ddof=1) for step in np.unique(t))
    # Under flips the sum of squares stays, so scaled once, a statistic is a signed sum.
    size = np.sqrt(np.square(terms).sum(0))
    scaled = np.divide(terms, size, out=np.zeros_like(terms), where=size > 0)
    rng = np.random.default_rng(seed)
    largest = [np.abs(scaled.sum(0)).max()]  # nothing flipped is one of the flips
    for start in range(1, flips, FLIPS_AT_ONCE):
        count = min(FLIPS_AT_ONCE, flips - start)
        signs = rng.choice([-1.0, 1.0], (count, len(terms)))
        largest.extend(np.abs(signs @ scaled).max(1))
    # At most level · flips of the largest lie above the threshold.
    threshold = np.sort(largest)[::-1][int(level * flips)]
    mean, statistic = (part.sum(0).reshape(shape) for part in (terms, scaled))
    return Evidence(mean, np.sqrt(variance).reshape(shape), statistic, float(threshold))


def overlay(image: np.ndarray, found: Evidence) -> np.ndarray:
    """The image (H, W) uint8 with what is shown in colour, (H, W, 3) uint8.

    Red speaks for class a and blue against it, the fuller the stronger; where nothing stands out
    the image stays grey.
    """
    strength = np.abs(found.mean) * found.shown
    alpha = np.where(found.shown, 0.25 + 0.5 * strength / max(strength.max(), 1e-30), 0.0)
    colour = np.where(found.mean[..., None] > 0, FOR, AGAINST)
    grey = np.repeat(image[..., None].astype(float), 3, -1)
    blended = (1 - alpha[..., None]) * grey + alpha[..., None] * colour
    return blended.round().astype(np.uint8)
