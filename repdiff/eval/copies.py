"""Whether samples are copies: their distance to the image that gave r, and to training images.

The yardstick is how far real images that were not trained on lie from their own nearest training
image. Distances are root mean squared differences of pixels, in grey levels of 0 to 255, both sides
as the latents can show them, so that a perfect copy lies at 0. Blurred images lie closer to
everything: read the distances beside the pictures.
"""

from dataclasses import dataclass

import numpy as np

from repdiff.eval.generative import Blocks
from repdiff.eval.neighbours import nearest

NAMED = 0.5  # share of samples that must lie so near before a set is named after it


@dataclass(frozen=True)
class Copies:
    """Distances (B,) of samples: `source` to the image that gave r, or None; `nearest` to training.

    `number` (B,) is the row of the nearest training image, `real` the distances of real images.
    """

    source: np.ndarray | None
    nearest: np.ndarray
    number: np.ndarray
    real: np.ndarray

    @property
    def yardstick(self) -> float:
        """The median distance of a real image to its nearest training image."""
        return float(np.median(self.real))

    @property
    def verdict(self) -> str:
        """'near-reconstruction', 'near-copies of training images' or 'neither', by shares."""
        shares = self.shares()
        if shares['source'] is not None and shares['source'] > NAMED:
            return 'near-reconstruction'
        # Of real images half lie within their own median: more than three quarters are too many.
        if shares['nearest'] > (1 + NAMED) / 2:
            return 'near-copies of training images'
        return 'neither'

    def shares(self) -> dict[str, float | None]:
        """The share of samples nearer to an image than a real one is to training, by the median."""
        return {name: None if values is None else float((values < self.yardstick).mean())
                for name, values in (('source', self.source), ('nearest', self.nearest))}

    def summary(self) -> dict:
        """Medians, shares and the verdict, as JSON."""
        return {
            'source_distance': None if self.source is None else float(np.median(self.source)),
            'training_distance': float(np.median(self.nearest)),
            'real_training_distance': self.yardstick,
            'share_nearer': self.shares(),
            'verdict': self.verdict,
        }


def compare(samples: Blocks, sources: Blocks | None, training: Blocks, real: np.ndarray) -> Copies:
    """Compares blocks of flat pixels (n, P) of samples with the images that gave their r (in the
    same order, or None) and with training images; `real` (R,) are real images' own distances."""
    distance, number = nearest(samples, training)
    source = None
    if sources is not None:
        source = np.concatenate([
            np.sqrt(np.square(np.asarray(x, np.float64) - y).mean(1))
            for x, y in zip(samples, sources, strict=True)])
    return Copies(source, distance, number, real)
