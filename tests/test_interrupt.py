"""Stopping at a signal: a checkpoint of that step, the code 75, and the same numbers after."""

import dataclasses
import os
import signal
import threading

import jax
import numpy as np
import pytest
from test_train import Batches, phase

from repdiff import interrupt, logbook, sharding
from repdiff.train import train

KEY = jax.random.key(0)


pytestmark = pytest.mark.usefixtures('listening')


def run(directory, wanted):
    directory.mkdir(exist_ok=True)
    interrupt._asked = False
    return train(wanted, workdir=directory, mesh=sharding.make_mesh(-1, 1, 1), key=KEY)


class Signalled(Batches):
    """Sends a signal to this process when it is asked for batch number `at`."""

    def __init__(self, at, number):
        super().__init__()
        self.at, self.number = at, number

    def __next__(self):
        if self.position == self.at:
            os.kill(os.getpid(), self.number)
        return super().__next__()


def lines(directory):
    return [{name: value for name, value in line.items() if name != 'images_per_second'}
            for line in logbook.read(directory)]


@pytest.mark.parametrize('number', interrupt.SIGNALS)
def test_a_signal_leaves_a_checkpoint_of_its_step_and_the_run_ends_alike(tmp_path, number, capfd):
    whole = run(tmp_path / 'whole', phase(12, keep=2))
    stopped = dataclasses.replace(phase(12, keep=2), iterator=Signalled(6, number))
    with pytest.raises(interrupt.Interrupted) as stop:
        run(tmp_path / 'parts', stopped)
    assert stop.value.code == os.EX_TEMPFAIL == 75
    assert 'stopping after this step' in (told := capfd.readouterr().err)
    assert 'the same command resumes' in told
    steps = {int(path.name) for path in (tmp_path / 'parts' / 'checkpoints' / 'p').iterdir()
             if path.name.isdigit()}
    assert max(steps) in (5, 6, 7) and max(steps) % 4  # between two checkpoints, two log lines
    parts = run(tmp_path / 'parts', phase(12, keep=2))
    np.testing.assert_array_equal(parts.params['scale'], whole.params['scale'])
    assert lines(tmp_path / 'parts') == lines(tmp_path / 'whole')


def test_a_signal_during_an_evaluation_is_not_waited_out(tmp_path):
    scores = iter([0.3, 0.9, 0.5])

    def evaluate(params):
        return next(scores), {'valid_auroc': 0.0}

    def stopped(params):
        if next(counted) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(0.01)
            interrupt.check()
        return 0.3, {'valid_auroc': 0.0}

    whole = run(tmp_path / 'whole', phase(12, evaluate, keep=2))
    counted = iter(range(1, 9))
    with pytest.raises(interrupt.Interrupted):
        run(tmp_path / 'parts', phase(12, stopped, keep=2))
    assert (tmp_path / 'parts' / 'checkpoints' / 'p' / '8').is_dir()
    rest = iter([0.9, 0.5])
    parts = run(
        tmp_path / 'parts', phase(12, lambda params: (next(rest), {'valid_auroc': 0.0}), keep=2))
    assert parts.step == whole.step == 8
    np.testing.assert_array_equal(parts.params['scale'], whole.params['scale'])
    assert lines(tmp_path / 'parts') == lines(tmp_path / 'whole')


def test_where_nothing_is_to_be_saved_a_signal_stops_at_once():
    with pytest.raises(interrupt.Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(1)


def test_a_second_signal_does_not_wait():
    with pytest.raises(interrupt.Interrupted), interrupt.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(0.01)
        assert interrupt.requested()
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(1)
