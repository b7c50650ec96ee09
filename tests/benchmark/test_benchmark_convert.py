"""The benchmark of converting: real runs of the command on a file of its own."""

import math

import pytest

from repdiff.benchmark import __main__ as benchmark
from repdiff.benchmark import convert
from repdiff.errors import UserError


def test_it_measures_a_conversion():
    file, peak, seconds = convert.measure(width=64, depth=2)
    values = sum(math.prod(shape) for shape in convert.meta_shapes(64, 2).values())
    assert 4 * values < file < 4 * values + 20_000
    assert file < peak < 4 << 30 and seconds > 0


def test_failures_are_one_sentence():
    with pytest.raises(UserError, match='repdiff.convert failed: repdiff: .*do not divide'):
        convert.measure(width=200, depth=1)  # 3 heads of 64, and 8 over
    with pytest.raises(UserError, match="no ViT 'huge'.*S, B, L"):
        convert.run(benchmark.parser().parse_args(['convert', '--vit=huge']))
