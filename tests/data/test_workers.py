"""Workers: everything once and in order, also when a process dies over a job."""

import os

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


def test_an_error_passes_through():
    with pytest.raises(UserError, match='a sentence'):
        list(workers.run(work, [*range(7), 'complain'], 1, 2))
