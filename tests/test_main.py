"""The main job as a user runs it: kill -9 in every phase, two processes, and what a run leaves."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import together
from repdiff import main

ROOT = Path(__file__).parents[1]
PATIENCE_S = 600  # this machine may be busy
TINY = [
    '--config=configs/hematoma.py:smoke',
    '--config.rows=("rc_ldt",)',
    '--config.data.simulated.pretrain=48',
    '--config.data.simulated.train=32',
    '--config.data.simulated.valid=32',
    '--config.data.simulated.test=32',
    '--config.model.depth=1',
    '--config.pretrain.steps=12',
    '--config.pretrain.checkpoint_every=4',
    '--config.tune.steps=12',
    '--config.tune.checkpoint_every=4',
    '--config.classify.batch=8',
    '--config.classify.kinds=("l2", "l1")',
    '--config.classify.train_images=8',
]


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """One cache for all runs here, so that the second compiles and simulates nothing anew."""
    return tmp_path_factory.mktemp('cache')


@pytest.fixture(scope='module')
def whole(cache, tmp_path_factory):
    """The workdir of a run that nothing stopped."""
    workdir = tmp_path_factory.mktemp('whole')
    found = run(*command(cache, workdir))
    assert found.returncode == 0, found.stderr
    return workdir


def command(cache, workdir, *options):
    return [sys.executable, '-m', 'repdiff.main', *TINY, f'--config.cache={cache}',
            f'--workdir={workdir}', *options]


def environment():
    kept = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
    return kept | {'JAX_PLATFORMS': 'cpu', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}


def run(*arguments):
    return subprocess.run(arguments, cwd=ROOT, env=environment(), capture_output=True, text=True)


def kill_when(arguments, ready):
    """Starts the job and kills it with SIGKILL as soon as `ready()`; fails if it ends before."""
    with subprocess.Popen(arguments, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not ready():
            time.sleep(0.005)
        assert process.poll() is None, 'the run ended before it could be killed'
        process.send_signal(signal.SIGKILL)


def numbers(workdir):
    """Everything a run computes, without what it measures of time."""
    results = json.loads((workdir / 'results.json').read_text())
    for model in results['models']:
        for name in [key for key in model if key.endswith('_seconds')]:
            del model[name]
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    for line in lines:
        line.pop('images_per_second', None)
    return results, (workdir / 'predictions.csv').read_text(), lines


def test_kill_9_in_every_phase_then_the_same_numbers(cache, whole, tmp_path):
    killed = tmp_path / 'killed'
    again = command(cache, killed)
    checkpoints = killed / 'checkpoints'
    kill_when(again, lambda: (killed / 'config.json').exists())
    kill_when(again, lambda: (checkpoints / 'rc_ldt.pretrain' / '4').exists())
    kill_when(again, lambda: (checkpoints / 'rc_ldt.tune' / '8').exists())
    scores, page = killed / 'scores', killed / 'report' / 'index.html'
    kill_when(again, lambda: any((scores / 'rc_ldt.part' / 'valid').glob('*.npz')))
    assert not (scores / 'rc_ldt.npz').exists()
    kill_when(again, lambda: any((killed / 'report' / 'figures').glob('*.png')))
    assert not page.exists()
    found = run(*again)
    assert found.returncode == 0, found.stderr
    assert numbers(killed) == numbers(whole) and page.exists()
    check_promises(whole)
    # Finished phases are not run again.
    assert 'rc_ldt.tune' not in found.stderr and 'rc_ldt.classify' not in found.stderr


def test_one_goes_on_as_two_stopped_while_they_score_and_one_or_two_end_it(cache, whole, tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / 'checkpoints/rc_ldt.tune/12')
    for made in ('scores', 'report'):
        shutil.rmtree(workdir / made)
    (workdir / 'results.json').unlink()
    two = two_started(cache, workdir, tmp_path)
    together.wait_until(
        two, lambda: list((workdir / 'scores').glob('rc_ldt.part/*/*.npz')), PATIENCE_S)
    two[1].send_signal(signal.SIGTERM)
    codes = [process.wait(PATIENCE_S) for process in two]
    assert codes == [75, 75], [file.read_text()[-2000:] for file in tmp_path.glob('stderr-*')]
    assert not (workdir / 'results.json').exists()
    of_two = tmp_path / 'of-two'
    shutil.copytree(workdir, of_two)
    found = run(*command(cache, workdir))
    assert found.returncode == 0, found.stderr
    codes = [process.wait(PATIENCE_S) for process in two_started(cache, of_two, tmp_path)]
    assert codes == [0, 0], [file.read_text()[-2000:] for file in tmp_path.glob('stderr-*')]
    check_promises(of_two)
    for ended in (workdir, of_two):
        for one, other in zip(numbers(ended)[2], numbers(whole)[2], strict=True):
            assert one.pop('phase') == other.pop('phase') and one == pytest.approx(other, rel=1e-4)
        one, other = (np.load(place / 'scores/rc_ldt.npz') for place in (ended, whole))
        for name in ('sweep_errors', 'valid_scores', 'test_scores'):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, err_msg=name)
        one, other = (numbers(place)[0]['models'] for place in (ended, whole))
        assert [model['name'] for model in one] == [model['name'] for model in other]
        assert one[0]['images_seen'] == other[0]['images_seen']
        assert [model['brier'] for model in one] == pytest.approx(
            [model['brier'] for model in other], rel=1e-3)


def two_started(cache, workdir, place):
    """The job as two processes of four devices each, which write what they say in `place`."""
    coordinator = together.address()
    return [
        subprocess.Popen(
            command(cache, workdir, '--config.mesh.cpu_devices=4', '--config.mesh.fsdp=2',
                    f'--coordinator={coordinator}', '--processes=2', f'--process={process}'),
            cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL,
            stderr=open(place / f'stderr-{process}', 'w'))
        for process in range(2)
    ]


def check_promises(workdir):
    """The files that the design promises, and what must be in them."""
    results, _, lines = numbers(workdir)
    assert [model['name'] for model in results['models']] == [
        'rc_ldt', 'majority', 'logistic_histogram', 'logistic_pixels']
    assert results['dataset']['simulated'] is True
    ours = results['models'][0]
    assert 0 <= ours['auroc'] <= 1 and sum(ours['confusion'].values()) == 32
    assert {'phase', 'step', 'loss'} <= lines[0].keys()
    with open(workdir / 'predictions.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 32 and list(rows[0]) == ['model', 'id', 'label', 'prediction', 'score']
    card = json.loads((workdir / 'card.json').read_text())
    assert card['phases'].keys() == {'rc_ldt.pretrain', 'rc_ldt.tune', 'rc_ldt.classify'}
    assert card['rules']['rc_ldt']['name'] == ours['rule']['name']
    assert (workdir / 'report' / 'index.html').stat().st_size > 10_000
    assert list((workdir / 'tensorboard').rglob('events*'))


@pytest.mark.parametrize('options, words', [
    (['--config=configs/hematoma.py:huge'], "no preset 'huge'; choose one of quick, smoke, paper"),
    (['--config.tune.stepz=3'], "unknown config key 'config.tune.stepz'"),
    (['--config.tune.steps=many'], "config.tune.steps=many"),
    (['--config=configs/none.py'], "no file 'configs/none.py'"),
    (['--config.rows=("nobody",)'], "no recipe 'nobody'; choose from"),
    (['--config.rows=rc_ldt,'], '--config.rows=rc_ldt, is a single word to the parser'),
    (['--config.latents.patch=5'], 'latents.patch is 5'),
    (['--config.data.source=/nowhere'], '/nowhere'),
    (['--workdir=/proc/nowhere'], "cannot make '/proc/nowhere'"),
    (['stray'], "unknown argument 'stray'"),
])
def test_bad_input_is_one_sentence(cache, tmp_path, monkeypatch, capsys, options, words):
    argv = command(cache, tmp_path / 'w', *options)[2:]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', argv)  # where config_flags looks for the keys given
    monkeypatch.setattr(main, 'start', lambda config: None)  # the tests' devices have started
    for name in [name for name in main.FLAGS if name.startswith('config.')]:
        delattr(main.FLAGS, name)  # of an earlier command line
    with pytest.raises(SystemExit) as stopped:
        main.main(argv)
    assert stopped.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('repdiff: ') and words in last


def test_a_workdir_of_another_config_is_refused(cache, tmp_path):
    (tmp_path / 'config.json').write_text('{"name": "other"}')
    found = run(*command(cache, tmp_path))
    assert found.returncode == 2 and 'Traceback' not in found.stderr
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith('repdiff: ') and 'another value of config.' in last
    assert json.loads((tmp_path / 'config.json').read_text()) == {'name': 'other'}
