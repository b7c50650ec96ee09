"""The table over seeds: means and spreads by hand, and runs that do not belong together."""

import json

import pytest

from repdiff.errors import UserError
from repdiff.report import summary


def workdir(path, auroc, names=('a', 'floor'), seed=0):
    path.mkdir()
    (path / 'config.json').write_text(json.dumps({'seed': seed}))
    models = [{'name': name, 'auroc': auroc, 'f1': 0.5, 'accuracy': 0.9, 'floor': name == 'floor'}
              for name in names]
    models[0] |= {'argmin': {'f1': auroc / 2}, 'brier': 1 - auroc}
    (path / 'results.json').write_text(json.dumps({'models': models}))
    return path


def test_mean_and_sample_deviation(tmp_path):
    runs = [workdir(tmp_path / str(seed), auroc, seed=seed)
            for seed, auroc in enumerate((0.7, 0.8, 0.9))]
    lines = summary.table(runs).splitlines()
    assert lines[2] == '| `a` | 0.800 ± 0.100 | 0.500 ± 0.000 | 0.900 ± 0.000 | 0.400 ± 0.050 |'
    assert lines[3].startswith('| `floor` |') and lines[3].endswith('| – |')
    assert lines[5].endswith('| Brier | ECE |') and lines[7].endswith('| 0.200 ± 0.100 | – |')


def test_unequal_and_unfinished_runs_are_refused(tmp_path):
    first, other = workdir(tmp_path / 'x', 0.7), workdir(tmp_path / 'y', 0.7, ('b', 'floor'), 1)
    with pytest.raises(UserError, match='other rows'):
        summary.table([first, other])
    with pytest.raises(UserError, match='fold-1: has seed 0, as .*x has'):
        summary.table([first, workdir(tmp_path / 'fold-1', 0.7)])
    (other / 'results.json').unlink()
    with pytest.raises(UserError, match='no results.json yet'):
        summary.table([first, other])
