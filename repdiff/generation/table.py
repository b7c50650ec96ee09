"""The table of generative measures, in the layout of the paper's table 3, with copy distances.

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
# Key of a row -> its heading; those after the paper's five are ours to add.
COLUMNS = {
    'fid': 'FID', 'sfid': 'sFID', 'inception_score': 'IS', 'precision': 'prec.',
    'recall': 'recall', 'kid': 'KID·10³', 'density': 'dens.', 'coverage': 'cover.',
}
DISTANCES = {'source_distance': 'to r’s image', 'training_distance': 'to training'}


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


def text(rows: list[dict], network: str, split: str, count: int, yardstick: float) -> str:
    """The table as plain text."""
    width = max(len(line['name']) for line in rows)
    heads = [f'{"":{width}}', f'{"images":>6}', *(f'{head:>8}' for head in COLUMNS.values()),
             *(f'{head:>13}' for head in DISTANCES.values())]
    lines = [
        f'Against {count} {split} images; features: {network}.',
        f'Distances are in grey levels (0 to 255); real images lie {yardstick:.1f} from their '
        'nearest training image, in the median.',
        'FID and sFID rise where images are few: compare sets of about one size.', '',
        ' '.join(heads)]
    for line in rows:
        copies = line['copies'] or {}
        cells = [f'{line["name"]:{width}}', f'{line["images"]:6}',
                 *(_cell(line[key], 1000 if key == 'kid' else 1, 8) for key in COLUMNS),
                 *(_cell(copies.get(key), 1, 13) for key in DISTANCES)]
        verdict = copies.get('verdict', 'neither')
        lines.append(' '.join(cells) + ('' if verdict == 'neither' else f'  {verdict}'))
    return '\n'.join(lines) + '\n'


def _cell(value: float | None, scale: float, width: int) -> str:
    return f'{"–":>{width}}' if value is None else f'{value * scale:{width}.4g}'
