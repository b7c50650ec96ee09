"""kill -9 at random moments of a run: the end is the same to the bit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from repdiff import logbook

HERE = Path(__file__).parent


def test_twenty_kills_at_random_leave_the_same_parameters_to_the_bit(tmp_path):
    environment = os.environ | {
        'PYTHONPATH': str(HERE.parent), 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'}
    found = subprocess.run([sys.executable, HERE / 'kills.py', tmp_path], env=environment,
                           capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) == 20
    whole, killed = (np.load(tmp_path / name / 'final.npz') for name in ('whole', 'killed'))
    for name in whole:
        assert whole[name].tobytes() == killed[name].tobytes(), name
    starts = (tmp_path / 'killed' / 'stderr').read_text().count('compiled in')
    assert starts > 10  # most kills came while it trained or wrote, the others while it started

    def lines(name):
        return [{key: value for key, value in line.items() if key != 'images_per_second'}
                for line in logbook.read(tmp_path / name)]

    assert lines('killed') == lines('whole')
