"""What the names and shapes of a file tell about the architecture."""

import re
from collections.abc import Mapping
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
    if not isinstance(count, int) or count < 1 or width % count:
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
