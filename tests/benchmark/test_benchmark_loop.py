"""The benchmark of the loop: a real run, with sizes small enough for a test."""

import numpy as np

from repdiff.benchmark import __main__ as benchmark
from repdiff.benchmark import loop


def test_both_sides_take_their_turns(monkeypatch, capsys):
    monkeypatch.setattr(loop, 'IMAGES', 64)
    given = benchmark.parser().parse_args([
        'loop', '--width=8', '--depth=1', '--batch=8', '--repeats=2', '--steps=3'])
    measured = loop.measure(given)
    assert {side: cost.shape for side, cost in measured.items()} == {
        'loop': (2, 2), 'bare': (2, 2)}
    assert all((cost > 0).all() for cost in measured.values())
    costs = {'loop': np.array([[0.103, 0.2]]), 'bare': np.array([[0.1, 0.1]])}
    monkeypatch.setattr(loop, 'measure', lambda given: costs)
    capsys.readouterr()
    loop.run(given)
    assert '103.00 ms a step, the bare step 100.00 ms: +3.0 %' in capsys.readouterr().out
