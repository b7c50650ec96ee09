"""The table of generative measures with copy distances; `repdiff.report.generated` lays it out.

Every row is measured against one reference split. Rows of real images say what a perfect sampler of
their distribution would get.
"""

from dataclasses import dataclass
from typing import Any

from repdiff.eval.generative import (
    Moments, frechet_distance, inception_score, kernel_distance, size
)
from repdiff.eval.neighbours import COVERAGE_K, neighbour_measures
from repdiff.generation.features import Features

FEWEST = COVERAGE_K  # a set must have more images than neighbours are looked for


@dataclass(frozen=True)
class Reference:
    """The features that all rows are measured against, with their moments."""

    features: dict[str, Features]
    pool: Moments
    spatial: Moments


def reference(features: dict[str, Features]) -> Reference:
    """Reads the features of the reference once."""
    return Reference(features, Moments(features['pool']), Moments(features['spatial']))


def measures(made: dict[str, Features], against: Reference) -> dict[str, Any]:
    """Every measure of a set; the inception score is None where the network does not classify."""
    found = {
        'images': size(made['pool']),
        'fid': frechet_distance(Moments(made['pool']), against.pool),
        'sfid': frechet_distance(Moments(made['spatial']), against.spatial),
        'kid': kernel_distance(made['pool'], against.features['pool']),
        'inception_score': inception_score(made['logits']) if 'logits' in made else None,
    }
    return found | neighbour_measures(against.features['pool'], made['pool'])


def row(name: str, found: dict[str, Any], copies: dict | None, about: dict) -> dict[str, Any]:
    """A row of the table, as JSON; `copies` is None for real images that were trained on."""
    return {'name': name, **found, 'copies': copies, **about}
