"""Atomic files, the logbook and progress lines."""

import json

import numpy as np
import pytest

from repdiff import config, experiment, files, logbook
from repdiff.card import Card
from repdiff.errors import UserError, exit_on_user_error
from repdiff.predictions import Ledger
from repdiff.progress import Progress


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'a' / 'x.json'
    files.write_json(path, {'a': 1})
    with pytest.raises(ValueError):
        files.write_json(path, {'a': float('nan')})
    with pytest.raises(TypeError):
        files.write_atomic(path, 3)
    assert json.loads(path.read_text()) == {'a': 1}
    assert [p.name for p in path.parent.iterdir()] == ['x.json']


def test_resuming_a_logbook_forgets_what_came_after_and_keeps_other_phases(tmp_path):
    for phase in ('a', 'b'):
        with logbook.Logbook(tmp_path, phase, 0) as book:
            for step in (1, 2, 3):
                book.write(step, loss=step)
    with open(tmp_path / 'metrics.jsonl', 'a') as file:
        file.write('{"phase": "a", "st')  # torn by a kill
    logbook.Logbook(tmp_path, 'a', 1).write(2, loss=float('inf'))
    lines = [(line['phase'], line['step'], line['loss']) for line in logbook.read(tmp_path)]
    assert lines == [('a', 1, 1), ('b', 1, 1), ('b', 2, 2), ('b', 3, 3), ('a', 2, None)]


def test_user_errors_and_refusing_disks_are_one_sentence(capsys):
    for error, words in ((UserError('x.csv: no column'), 'repdiff: x.csv: no column'),
                         (OSError(28, 'No space left on device', 'f'), "cannot write 'f'")):
        with pytest.raises(SystemExit) as exit_, exit_on_user_error():
            raise error
        assert exit_.value.code == 2
        printed = capsys.readouterr().err
        assert words in printed and printed.count('\n') == 1
    with pytest.raises(ZeroDivisionError), exit_on_user_error():
        1 / 0


def test_progress_prints_plain_lines_off_a_terminal(capsys):
    progress = Progress(4, 'work', 'images', interval_s=0)
    progress.update(2, loss=0.5)
    progress.update(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith('work: 2/4 50%') and 'images/s' in lines[0] and 'loss 0.5' in lines[0]
    assert lines[1].startswith('work: 4/4 100%')
    progress.update(0, draws=3)
    assert capsys.readouterr().err == ''


def test_a_damaged_file_is_one_sentence_with_the_mend(tmp_path):
    path = tmp_path / 'x.npz'
    files.write_npz(path, a=np.arange(300), b=np.ones(3))
    whole = path.read_bytes()
    assert files.read_npz(path, 'mend')['a'][-1] == 299
    entry, end = whole.index(b'PK\1\2'), whole.index(b'PK\5\6')
    turned = [whole[:at] + bytes([whole[at] ^ 0xff]) + whole[at + 1:]  # a version, a flag, a place
              for at in (entry + 6, entry + 8, end + 16)]
    zeroed = whole[:60] + bytes(20) + whole[80:]
    for content in (b'', whole[:9], whole[:-9], zeroed, b'{', *turned):
        path.write_bytes(content)
        with pytest.raises(UserError, match='x.npz is damaged, .*; do this'):
            files.read_npz(path, 'do this')


@pytest.mark.parametrize('name, opened, mend', [
    ('config.json', lambda at: experiment.claim(at, config.base()), 'choose another --workdir'),
    ('card.json', lambda at: Card(at, config.base(), ''), 'remove it and run again'),
    ('model.json', lambda at: Ledger(at, {}), 'choose another --out'),
    ('predictions.jsonl', lambda at: Ledger(at, {}), 'remove it and run again'),
])
@pytest.mark.parametrize('content', [b'{"name": \n', b'\xff\xfe\n'])
def test_a_damaged_file_of_a_directory_is_one_sentence(tmp_path, name, opened, mend, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{name} is damaged, .*{mend}'):
        opened(tmp_path)


def test_a_workdir_in_which_nothing_was_computed_may_be_had_by_another_config(tmp_path):
    other = config.base()
    other.seed = 1
    (tmp_path / 'fold-0').mkdir()
    for place in (tmp_path, tmp_path / 'fold-0'):  # a run of folds, refused for its data
        experiment.claim(place, config.base())
    experiment.claim(tmp_path, other)
    assert json.loads((tmp_path / 'config.json').read_text())['seed'] == 1
    (tmp_path / 'card.json').write_text('{}')
    with pytest.raises(UserError, match='another value of config.seed'):
        experiment.claim(tmp_path, config.base())
