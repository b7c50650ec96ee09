"""The tables over sizes, at one size small enough for a test."""

import numpy as np
import pytest

from repdiff import abstract
from repdiff.benchmark import __main__ as benchmark
from repdiff.benchmark import sizes, steps
from repdiff.sharding import make_mesh


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(sizes.SIZES, 'S', {'width': 16, 'depth': 2, 'heads': 2})


def given(*options: str):
    return benchmark.parser().parse_args(
        ['sizes', '--image-size=32', '--batch=8', '--torch=none', *options])


def test_a_row_is_operations_over_time_over_the_ceiling():
    seconds = {'ours': np.array([0.5, 0.5, 2.0]), 'torch': np.array([1.0, 0.25, 1.0])}
    found = sizes.row('B/2', 'score', 1e12, 64, 4e12, seconds)
    assert found == '| B/2 | score | 128 | 2 of 4 | 50% | 64 | 25% | 0.50 (0.50 to 2.00) |'
    assert sizes.row('B/2', 'score', 1e12, 64, 4e12, {'ours': np.ones(1)}).endswith('| – | – | – |')


def test_operations_of_training_are_three_times_those_of_scoring():
    config = sizes.config_of(given(), 'S', 'label', unroll=False, remat='none')
    scored = abstract.scorer(config, make_mesh(-1, 1, 1), steps.CLASSES).flops() / (2 * 8)
    trained = abstract.phase(config, 'tune', steps.CLASSES).flops() / 8
    # A backward pass is two products for each of the forward pass; the first needs only one.
    assert 2.9 * scored < trained <= 3 * scored
    assert abstract.latent_shape(config) == (4, 4, 4)


def test_the_product_is_a_step():
    product, flops = sizes.matrix_product('float32')
    product()
    assert flops == 2 * 1024**3


def test_it_prints_a_line_for_each_step(capsys):
    sizes.run(given('--sizes=S', '--repeats=1', '--seconds=0'))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '8 × cpu, bfloat16, batch 8, 4 tokens; PyTorch: none'
    assert [line.split(' | ')[:2] for line in lines[4:]] == [['| S/2', 'train label'],
                                                             ['| S/2', 'score']]


def test_both_ways_of_compiling_are_measured(capsys):
    from repdiff.benchmark import compiling

    compiling.run(benchmark.parser().parse_args(
        ['compile', '--sizes=S', '--image-size=32', '--batch=8']))
    assert 'S/2, 2 blocks: scanned' in capsys.readouterr().out


@pytest.mark.parametrize('what', ['sizes', 'compile'])
def test_unknown_sizes_are_one_sentence(what, capsys):
    with pytest.raises(SystemExit):
        benchmark.main([what, '--sizes=S,M'])
    assert "there is no DiT 'M'; choose among S, B, L, XL" in capsys.readouterr().err
