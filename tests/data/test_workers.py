"""Workers: everything once and in order, also when a process dies over a job."""

import os
import subprocess
import sys

import pytest

from repdiff.data import workers
from repdiff.errors import UserError


def work(job, context):
    if job == 'die':
        os._exit(1)
    if job == 'complain':
        raise UserError('a sentence')
    return job * context


@pytest.mark.parametrize('processes', [1, 2])
def test_everything_in_order(processes):
    jobs = list(range(30))
    assert list(workers.run(work, jobs, 3, processes)) == [(job, 3 * job) for job in jobs]


def test_a_dead_process_costs_its_job_only():
    jobs = [*range(7), 'die', *range(7, 12)]
    done = list(workers.run(work, jobs, 2, 2))
    assert done == [(job, None if job == 'die' else 2 * job) for job in jobs]


def test_a_script_without_a_guard_is_not_run_again():
    program = ('from repdiff.data import workers; from os.path import join; print("once");'
               'print(list(workers.run(join, ["a"] * 6, "b", 2))[-1])')
    for how in (['-c', program], ['-']):
        done = subprocess.run([sys.executable, *how], input=program, capture_output=True,
                              text=True, check=True)
        assert done.stdout == "once\n('a', 'a/b')\n"


def test_an_error_passes_through():
    with pytest.raises(UserError, match='a sentence'):
        list(workers.run(work, [*range(7), 'complain'], 1, 2))
