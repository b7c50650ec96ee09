"""Several processes: how they find each other, and that they compute what one would."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import together
from repdiff import cluster, logbook
from repdiff.errors import UserError

HERE = Path(__file__).parent
PATIENCE_S = 300  # this machine may be busy
SLOW_S = 0.3  # a batch, where a run is to be stopped


def started(directory, processes, seconds=0.0, script='processes.py'):
    """The processes of a run in `directory`."""
    directory.mkdir(exist_ok=True)
    coordinator = together.address()
    environment = os.environ | {'PYTHONPATH': str(HERE.parent), 'JAX_PLATFORMS': 'cpu',
                                'XLA_FLAGS': '--xla_backend_optimization_level=0'}
    return [
        subprocess.Popen(
            [sys.executable, HERE / script, directory, coordinator, str(processes),
             str(process), str(seconds)],
            env=environment, stdout=open(directory / f'stdout-{process}', 'a'),
            stderr=open(directory / f'stderr-{process}', 'a'))
        for process in range(processes)
    ]


def ended(directory, running):
    codes = [process.wait(PATIENCE_S) for process in running]
    told = [(directory / f'stderr-{process}').read_text() for process in range(len(running))]
    return codes, told


def last_step(directory):
    return max((line['step'] for line in logbook.read(directory)), default=0)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """`whole`: one process. `two`: two, stopped by SIGTERM to one of them, then killed, then run to
    the end. `one`: one process that goes on where the two were stopped."""
    root = tmp_path_factory.mktemp('runs')
    codes, told = ended(root / 'whole', started(root / 'whole', 1))
    assert codes == [0], told
    two = started(root / 'two', 2, SLOW_S)
    together.wait_until(two, lambda: last_step(root / 'two') >= 3, PATIENCE_S)
    two[1].send_signal(signal.SIGTERM)
    stopped = ended(root / 'two', two)
    newest = max(int(path.name) for path in (root / 'two/checkpoints/p').glob('[0-9]*'))
    shutil.copytree(root / 'two', root / 'one')
    two = started(root / 'two', 2, SLOW_S)
    together.wait_until(two, lambda: last_step(root / 'two') >= newest + 5, PATIENCE_S)
    for process in two:
        process.kill()
    ended(root / 'two', two)
    for name, processes in (('two', 2), ('one', 1)):
        codes, told = ended(root / name, started(root / name, processes))
        assert codes == [0] * processes, told
    return root, stopped, newest


def test_sigterm_to_one_stops_all_at_one_step_with_the_code_that_asks_to_be_run_again(runs):
    _, (codes, told), newest = runs
    assert codes == [75, 75], told
    assert f'stopped after step {newest}' in told[0]
    assert 3 <= newest < 24
    assert told[1].count('repdiff:') == 0  # the first speaks for all


@pytest.mark.parametrize('name', ['two', 'one'])
def test_the_numbers_are_those_of_one_process(runs, name):
    root, _, _ = runs
    whole, found = (list(logbook.read(root / which)) for which in ('whole', name))
    assert [line['step'] for line in found] == [line['step'] for line in whole]
    for one, other in zip(found, whole, strict=True):
        for key in set(other) & {'loss', 'gradient_norm', 'valid'}:
            np.testing.assert_allclose(one[key], other[key], rtol=1e-5, err_msg=str(other))
    expected = np.load(root / 'whole' / 'final-0.npz')
    for process in range(2 if name == 'two' else 1):
        final = np.load(root / name / f'final-{process}.npz')
        assert final['errors'].shape == (50,) and final['scores'].shape == (50, 2, 2, 1)
        for key in expected:
            np.testing.assert_allclose(final[key], expected[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('process', [0, 1])
def test_devices_that_exchange_something_have_met_before(runs, process):
    # Each first meeting must be over within 30 s; Gloo says when it is.
    told = (runs[0] / 'two' / f'stdout-{process}').read_text()
    before, _, after = told.rpartition('connected\n')
    assert before.count('[Gloo]') > 2 and '[Gloo]' not in after


def test_only_the_first_process_writes_what_people_read(runs):
    root, _, _ = runs
    steps = [line['step'] for line in logbook.read(root / 'two') if 'loss' in line]
    assert steps == list(range(1, 25))
    assert not [path for path in (root / 'two').iterdir() if path.name.startswith('.shared')]


def test_sigterm_to_one_that_waits_stops_the_first_at_its_work_and_then_all(tmp_path):
    running = started(tmp_path, 2, 0.01, 'turns.py')
    together.wait_until(running, (tmp_path / 'working').exists, PATIENCE_S)
    running[1].send_signal(signal.SIGTERM)
    codes, told = ended(tmp_path, running)
    assert codes == [75, 75], told
    assert not (tmp_path / 'made').exists()
    codes, told = ended(tmp_path, started(tmp_path, 2, 0.0, 'turns.py'))
    assert codes == [0, 0], told
    assert (tmp_path / 'ended').read_text() == '1'


def test_a_jobset_tells_its_pods_who_they_are():
    environment = {'JOBSET_NAME': 'rd', 'REPLICATED_JOB_NAME': 'hosts', 'JOB_PARALLELISM': '4',
                   'JOB_COMPLETION_INDEX': '2'}
    assert cluster.of_jobset(environment) == {
        'coordinator_address': f'rd-hosts-0-0.rd:{cluster.PORT}', 'num_processes': 4,
        'process_id': 2, 'cluster_detection_method': 'deactivate'}
    del environment['JOB_COMPLETION_INDEX']
    assert cluster.of_jobset(environment) == {}


@pytest.mark.parametrize('environment, several', [
    ({}, False),
    ({'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '8'}, False),  # in an allocation, without srun
    ({'SLURM_STEP_NUM_TASKS': '1'}, False),
    ({'SLURM_STEP_NUM_TASKS': '8'}, True),
    ({'OMPI_COMM_WORLD_SIZE': '2'}, True),
    # GKE sets TPU_SKIP_MDS_QUERY in pods with TPU chips, too.
    ({'TPU_WORKER_HOSTNAMES': 'rd-0.rd,rd-1.rd', 'TPU_SKIP_MDS_QUERY': 'true'}, True),
    ({'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_SKIP_MDS_QUERY': 'true'}, False),
    ({'TPU_WORKER_HOSTNAMES': 'localhost', 'MEGASCALE_NUM_SLICES': '2'}, True),
])
def test_schedulers_are_known_by_their_variables(environment, several):
    no_chips = {'TPU_SKIP_MDS_QUERY': '1'}  # as JAX says where there are none
    assert bool(cluster.scheduled(environment | no_chips)) is several


@pytest.mark.parametrize('libtpu, environment, several', [
    (True, {}, True), (True, {'TPU_SKIP_MDS_QUERY': '1'}, False), (False, {}, False)])
def test_a_tpu_tells_its_hosts_itself(libtpu, environment, several, monkeypatch):
    found = {'libtpu': object()} if libtpu else {}
    monkeypatch.setattr(cluster.importlib.util, 'find_spec', found.get)
    assert cluster.scheduled(environment) is several


@pytest.mark.parametrize('flags, words', [
    (('host', 2, 0), 'HOST:PORT'), (('host:1', 2, 2), 'a number below it'),
    (('', 2, 0), 'need --coordinator'), (('', 1, 1), 'need --coordinator')])
def test_flags_that_do_not_fit_are_one_sentence(flags, words):
    with pytest.raises(UserError, match=words):
        cluster.start(*flags)
