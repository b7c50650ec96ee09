"""Checkpoints: which are kept, and that none that was damaged is ever believed."""

import contextlib
import errno
import logging
import os
import resource
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff import manifest, sharding
from repdiff.checkpoint import Checkpoints, best_ema
from repdiff.errors import UserError, exit_on_user_error

SCORES = {4: 0.5, 8: 0.9, 12: 0.3, 16: 0.4}
TRIALS = 60


def state(step):
    rng = np.random.default_rng(step)
    kernel, scale = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((64, 8), 8))
    return {'params': {'kernel': kernel}, 'ema': {'scale': scale}, 'step': jnp.int32(step)}


LIKE = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0))


def opened(directory, keep=2):
    return contextlib.closing(Checkpoints(directory, keep))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp('checkpoints') / 'p'
    with opened(directory) as checkpoints:
        for step, score in SCORES.items():
            checkpoints.save(step, state(step), {'iterator': step}, score)
    return directory


def read(directory):
    """What `best_ema` finds: (scale, step) or None."""
    found = best_ema(directory, state(0)['ema'], sharding.make_mesh(1, 8, 1))
    return found and (found[0]['scale'], found[1])


def steps(directory):
    return {int(path.name) for path in directory.iterdir() if path.name.isdigit()}


def test_the_newest_and_the_best_by_then_are_kept(whole, tmp_path):
    assert steps(whole) == {8, 12, 16}
    with opened(whole) as checkpoints:
        assert checkpoints.newest == 16 and checkpoints.best_step() == 8
    with opened(tmp_path / 'p') as checkpoints:
        for step, score in ((1, 0.2), (2, 0.9), (3, 0.9), (4, None), (5, 0.1)):
            checkpoints.save(step, state(step), {}, score)
        assert checkpoints.best_step() == 2  # the first of equals
    assert steps(tmp_path / 'p') == {2, 4, 5}


def test_without_scores_the_newest_is_the_best(tmp_path):
    with opened(tmp_path / 'p') as checkpoints:
        assert checkpoints.newest is None and checkpoints.best_step() is None
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {}, None)
        assert checkpoints.best_step() == 3


def test_a_step_is_saved_again_in_the_place_of_the_first(tmp_path):
    with opened(tmp_path / 'p') as checkpoints:
        checkpoints.save(4, state(5), {'evaluated': False}, None)
        checkpoints.save(4, state(4), {'evaluated': True}, 0.5)
        found, progress = checkpoints.restore(LIKE, 4)
        assert progress == {'evaluated': True} and checkpoints.best_step() == 4
    np.testing.assert_array_equal(found['params']['kernel'], state(4)['params']['kernel'])


def damage(directory, rng):
    """Spoils one file of one checkpoint as a failing disk or a torn write may; says how."""
    files = sorted(path for path in directory.glob('[0-9]*/**/*') if path.is_file())
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    how = rng.choice(['flip', 'truncate', 'remove', 'zero', 'append'])
    if how == 'remove' or not content:
        path.unlink()
    elif how == 'append':
        path.write_bytes(content + rng.bytes(5))
    elif how == 'truncate':
        path.write_bytes(content[:rng.integers(len(content))])
    else:
        start = rng.integers(len(content))
        for place in range(start, min(start + (1 if how == 'flip' else 512), len(content))):
            content[place] = content[place] ^ (1 << rng.integers(8)) if how == 'flip' else 0
        path.write_bytes(content)
    return f'{how} {path.relative_to(directory)}'


def test_random_damage_is_never_restored(whole, tmp_path, capsys):
    """Whatever file of whatever checkpoint is spoiled: what is restored is what was saved at that
    step, and a spoiled checkpoint, or one whose best one is spoiled, is not restored at all. Who
    only reads finds the same."""
    rng, used = np.random.default_rng(0), set()
    for trial in range(TRIALS):
        directory = tmp_path / str(trial) / 'p'
        shutil.copytree(whole, directory)
        how = damage(directory, rng)
        spoiled = differing(whole, directory)
        scale = read(directory)
        assert differing(whole, directory) == spoiled
        with opened(directory) as checkpoints:
            newest = checkpoints.newest
            used.add(newest)
            assert (scale is None) == (newest is None), how
            if newest is not None:
                np.testing.assert_array_equal(scale[0], state(8)['ema']['scale'], err_msg=how)
                assert scale[1] == 8
                assert not any(
                    name.startswith(f'{newest}/') for name in differing(whole, directory))
                found, progress = checkpoints.restore(LIKE, newest)
                expected = state(newest)
                assert progress == {'iterator': newest} and found['step'] == newest, how
                np.testing.assert_array_equal(
                    found['params']['kernel'], expected['params']['kernel'], err_msg=how)
                assert checkpoints.best_step() == 8
        assert ('cannot be used' in capsys.readouterr().err) or not spoiled, how
        shutil.rmtree(directory.parent)
    assert used == {None, 12, 16}  # the best one spoiled, the newest, the one before it


def differing(whole, directory):
    """The files of `whole` that `directory` does not have alike."""
    return {
        str(path.relative_to(whole)) for path in whole.rglob('*') if path.is_file()
        and not ((other := directory / path.relative_to(whole)).exists()
                 and other.read_bytes() == path.read_bytes())
    }


def test_a_damaged_checkpoint_is_moved_away_and_its_step_saved_anew(whole, tmp_path, capsys):
    directory = tmp_path / 'p'
    shutil.copytree(whole, directory)
    next((directory / '16' / 'state').rglob('d/*')).write_bytes(b'')
    with opened(directory) as checkpoints:
        assert checkpoints.newest == 12
        checkpoints.save(16, state(16), {'iterator': 16}, 0.4)
    assert 'other content than was written' in capsys.readouterr().err
    assert (tmp_path / 'p.damaged' / '16').is_dir()
    with opened(directory) as checkpoints:
        assert checkpoints.newest == 16


def test_where_the_disk_refuses_one_sentence_tells_and_earlier_checkpoints_stay(
        tmp_path, capsys):
    directory, limits = tmp_path / 'p', resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {'kernel': jnp.asarray(np.random.default_rng(0).normal(size=100_000), jnp.float32)}
    with pytest.raises(SystemExit) as exit_, exit_on_user_error(), opened(directory) as checkpoints:
        checkpoints.save(4, state(4), {'iterator': 4}, None)
        checkpoints.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # bytes of a file
        try:
            checkpoints.save(8, large, {'iterator': 8}, None)
            checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert exit_.value.code == 2
    assert f"cannot write '{directory}': File too large; free some" in capsys.readouterr().err
    with opened(directory) as checkpoints:
        assert checkpoints.newest == 4
        checkpoints.save(8, state(8), {'iterator': 8}, None)
    assert steps(directory) == {4, 8}


def test_where_no_directory_can_be_made_a_save_fails_before_threads_wait_for_one(
        tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, 'full')

    with opened(tmp_path / 'p') as checkpoints:
        monkeypatch.setattr(os, 'mkdir', refuse)
        with pytest.raises(OSError, match='No space left on device') as refused:
            checkpoints.save(4, state(4), {}, None)
        assert refused.value.filename == str(tmp_path / 'p')


def test_a_disk_without_room_for_the_state_is_left_as_it_is(tmp_path, monkeypatch):
    with opened(tmp_path / 'p') as checkpoints:
        checkpoints.save(4, state(4), {}, None)
        checkpoints.wait()
        found = set(tmp_path.rglob('*'))
        size = sum(x.nbytes for x in jax.tree.leaves(state(8)))
        disk = SimpleNamespace(free=size - 1, total=size)
        monkeypatch.setattr(shutil, 'disk_usage', lambda _: disk)
        with pytest.raises(OSError, match='No space left on device'):
            checkpoints.save(8, state(8), {}, None)
        assert set(tmp_path.rglob('*')) == found
        disk.free = size
        checkpoints.save(8, state(8), {}, None)
        disk.free = disk.total = 0  # as a mount that does not tell
        checkpoints.save(12, state(12), {}, None)


def test_reading_beside_a_run_leaves_what_it_is_writing_alone(whole, tmp_path, capsys):
    directory = tmp_path / 'p'
    shutil.copytree(whole, directory)
    shutil.copytree(directory / '16', directory / '20', ignore=lambda *_: [manifest.NAME])
    shutil.copytree(directory / '16', directory / '24.orbax-checkpoint-tmp-1')
    before = {path for path in tmp_path.rglob('*')}
    scale, step = read(directory)
    assert step == 8
    np.testing.assert_array_equal(scale, state(8)['ema']['scale'])
    assert {path for path in tmp_path.rglob('*')} == before
    assert capsys.readouterr().err == ''
    assert read(tmp_path / 'none') is None and not (tmp_path / 'none').exists()


def test_two_runs_do_not_write_in_one_place(tmp_path):
    directory = tmp_path / 'p'
    with opened(directory) as checkpoints:
        checkpoints.save(4, state(4), {}, None)
        with pytest.raises(UserError, match='another process is training in .*--workdir'):
            Checkpoints(directory, 2)
    with opened(directory) as checkpoints:
        assert checkpoints.newest == 4


def test_a_checkpoint_in_another_ones_place_is_refused(whole, tmp_path, capsys):
    directory = tmp_path / 'p'
    shutil.copytree(whole, directory)
    shutil.copytree(directory / '16', directory / '20')
    with opened(directory) as checkpoints:
        assert checkpoints.newest == 16
    assert 'it is that of step 16' in capsys.readouterr().err


def test_what_orbax_logs_and_raises_is_told_once(caplog):
    def failing_task(file):  # what asyncio says of a task whose error nobody asked for
        return f'Task exception was never retrieved\nfuture: <Task coro=<write() {file}:3>>'

    log = logging.getLogger('asyncio')
    log.error(failing_task('/lib/orbax/checkpoint/writer.py'))
    assert not caplog.messages
    log.error(failing_task('/lib/another/writer.py'))
    log.warning('orbax is slow')
    assert len(caplog.messages) == 2


def test_a_manifest_names_what_is_wrong(tmp_path):
    place = tmp_path / 'd'
    (place / 'deep').mkdir(parents=True)
    (place / 'deep' / 'one').write_bytes(b'one')
    (place / 'two').write_bytes(b'')
    with pytest.raises(manifest.Damaged, match='not finished'):
        manifest.check(place)
    manifest.seal(place, step=3)
    assert manifest.check(place) == manifest.facts(place) == {'step': 3}
    (place / 'deep' / 'one').write_bytes(b'ono')
    with pytest.raises(manifest.Damaged, match='deep/one has other content'):
        manifest.check(place)
    (place / 'deep' / 'one').write_bytes(b'one')
    (place / 'three').touch()
    with pytest.raises(manifest.Damaged, match='three is unknown'):
        manifest.check(place)
    (place / 'three').unlink()
    (place / 'two').unlink()
    with pytest.raises(manifest.Damaged, match='two is missing'):
        manifest.check(place)
    text = (place / manifest.NAME).read_text()
    (place / manifest.NAME).write_text(text.replace('"step": 3', '"step": 4'))
    with pytest.raises(manifest.Damaged, match='manifest.json is damaged'):
        manifest.check(place)
