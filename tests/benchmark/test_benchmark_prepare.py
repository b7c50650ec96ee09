"""The benchmark of preparing: real runs of the command on files of its own."""

import pytest

from repdiff.benchmark import __main__ as benchmark
from repdiff.benchmark import prepare
from repdiff.errors import UserError


def test_it_measures_a_run():
    rate, peak = prepare.measure(200, 32, ('--image-size=16',))
    assert rate > 0 and 20 < peak < 4096


def test_failures_are_the_command_s_own_sentence():
    with pytest.raises(UserError, match="repdiff.prepare failed: repdiff: window 'brian'"):
        prepare.measure(20, 16, ('--window=brian',))
    with pytest.raises(UserError, match='20 files are too few'):
        prepare.run(benchmark.parser().parse_args(['prepare', '--files=20']))
