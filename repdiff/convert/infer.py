"""What the names and shapes of a file, and the config.json beside it, tell of the architecture."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from repdiff.convert.engine import Source
from repdiff.errors import UserError


def block_count(source: Source, pattern: str) -> int:
    """One more than the highest `block` that `pattern`, matched at a name's start, finds."""
    found = [match for name in source.shapes if (match := re.match(pattern, name))]
    return 1 + max((int(match['block']) for match in found), default=-1)


def heads(source: Source, sizes: Mapping[str, dict[str, Any]], width: int, depth: int,
          config: dict[str, Any]) -> int:
    """Attention heads: config.json's `num_attention_heads`, else those of the published size.

    No shape tells them.

    Raises:
      UserError: there is no config.json and (width, depth) is no published size, or the number
        does not divide the width.
    """
    published = {(size['width'], size['depth']): size['heads'] for size in sizes.values()}
    count = config.get('num_attention_heads', published.get((width, depth)))
    if count is None:
        raise UserError(f'{source.path} has width {width} and {depth} blocks, which is no '
                        'published size, so its attention heads are unknown; put a config.json '
                        'with "num_attention_heads" beside it.')
    if type(count) is not int or count < 1 or width % count:
        raise UserError(f'the config.json beside {source.path} gives {count!r} attention heads, '
                        f'which do not divide its width {width}; correct it.')
    return count


def single_shape(source: Source, name: str, rank: int, family: str) -> tuple[int, ...]:
    """The shape of `name`, which every file of the `family` holds with `rank` axes.

    Raises:
      UserError: the name is not there, or has another rank: the file is of another family.
    """
    shape = source.shapes.get(name, ())
    if len(shape) != rank:
        raise UserError(f'{source.path} does not hold {family} weights, which have a {rank}-axis '
                        f'{name}; choose the kind that it holds, or another file.')
    return shape


def number(source: Source, config: dict[str, Any], key: str, default: float) -> float:
    """config.json's `key`, else `default`; UserError unless it is a positive, finite number."""
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise UserError(f'the config.json beside {source.path} gives {value!r} as "{key}", which '
                        'is no positive number; correct it.')
    return value


def agree(source: Source, config: dict[str, Any], accepted: Mapping[str, Sequence[Any]]) -> None:
    """Checks config.json's settings against what the shapes tell and the module can compute.

    `accepted` lists for each key the values that are honoured. Keys that are not there are not
    checked: published files do without many.

    Raises:
      UserError: naming the first key with another value.
    """
    for key, values in accepted.items():
        value = config.get(key, values[0])
        value = tuple(value) if isinstance(value, list) else value
        if value not in values:
            raise UserError(f'the config.json beside {source.path} gives {value!r} as "{key}", but '
                            f'these weights can only be converted with {values[0]!r}; put their '
                            'own config.json beside them, or use other weights.')
