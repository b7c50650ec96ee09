"""Workers: everything once and in order, also when a process dies or hangs over a job."""

import subprocess
import sys
from pathlib import Path

import pytest
from worker_jobs import kill, read, work

from repdiff.data import dicom, jobs
from repdiff.data.jobs import Job
from repdiff.data.slices import Skipped
from repdiff.data.workers import Lost, Workers
from repdiff.errors import UserError


@pytest.mark.parametrize('processes', [1, 2])
def test_everything_in_order(processes):
    with Workers(3, processes) as team:
        for count in (30, 0, 2):  # the same processes
            jobs = list(range(count))
            assert list(team.run(work, iter(jobs))) == [(job, [3 * job]) for job in jobs]


def test_jobs_are_drawn_as_they_are_needed():
    drawn = []
    with Workers(1, 2) as team:
        for job, _ in team.run(work, (drawn.append(each) or each for each in range(50))):
            assert len(drawn) <= job + 8


def test_a_job_that_kills_or_hangs_costs_itself_only():
    """One that gives its items slowly is no hang, and lost jobs may be looked into on the way."""
    jobs = [*range(7), 'die', 1, 'hang', 'slow', *range(7, 12), 'die']
    wanted = {'die': Lost.DIED, 'hang': Lost.SILENT, 'slow': ['slow'] * 4}
    with Workers(2, 2, silence=2) as team:
        done = []
        for job, items in team.run(work, jobs):
            done.append((job, items))
            if isinstance(items, Lost):
                assert list(team.run(work, [3, 4, 'die'])) == [
                    (3, [6]), (4, [8]), ('die', Lost.DIED)]
    assert done == [(job, wanted[job] if job in wanted else [2 * job]) for job in jobs]


def test_a_script_without_a_guard_is_not_run_again():
    program = ('from repdiff.data.workers import Workers; from os.path import join; print("once")\n'
               'with Workers("b", 2) as team: done = list(team.run(join, ["a"] * 6))\n'
               'print("".join(done[-1][1]))')
    for how in (['-c', program], ['-']):
        done = subprocess.run([sys.executable, *how], input=program, capture_output=True,
                              text=True, check=True)
        assert done.stdout == 'once\na/b\n'


def test_an_error_passes_through():
    with Workers(1, 2) as team, pytest.raises(UserError) as caught:
        list(team.run(work, [*range(7), 'complain']))
    assert str(caught.value) == 'a sentence'


def test_only_the_file_that_hangs_or_kills_is_left_out():
    headers = [dicom.Header(Path(name), 's', name, None, None, 0.0, 0.0, True)
               for name in ('/a', '/die', '/c')]
    todo = [Job('pictures', (Path('/a'), Path('/hang'), Path('/b')), 3),
            Job('pictures', (Path('/d'),), 1), Job('dicom', dicom.Series(tuple(headers)), 3)]
    with Workers(None, 2, silence=3) as team:
        done = list(jobs.done(read, todo, team))
    assert done == list(zip(todo, (['a', Skipped('/hang', Lost.SILENT.value), 'b'], ['d'],
                                   ['a', Skipped('/die', Lost.DIED.value), 'c']), strict=True))
    assert all(each.value.endswith('.') for each in Lost)


def test_made_up_images_that_kill_their_process_are_an_error():
    with Workers(None, 2) as team, pytest.raises(UserError, match='images .* ended the process'):
        list(jobs.done(kill, [Job('tfds', ('train', 0, 32), 32)], team))
