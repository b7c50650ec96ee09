"""Places that cannot be written are one sentence, before any file of the source is read."""

import numpy as np
import pytest
from PIL import Image

from repdiff import prepare
from repdiff.data import work
from repdiff.errors import UserError, check_writable, exit_on_user_error


def run(tmp_path, monkeypatch, option):
    (tmp_path / 'source').mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'source' / 'a.png')
    (tmp_path / 'source' / 'labels.csv').write_text('file,patient,label\na.png,p,1\n')
    (tmp_path / 'file').write_text('no directory, and no JSON')
    monkeypatch.setattr(work, 'do', lambda *job: pytest.fail('work began'))
    prepare.main([f'--source={tmp_path / "source"}', f'--out={tmp_path / "out"}',
                  f'--salt-file={tmp_path / "salt"}', '--processes=1',
                  option.replace('TMP', str(tmp_path))])


@pytest.mark.parametrize(('option', 'words'), [
    ('--out=/proc/abc/o', "data set '/proc/abc/o' cannot be written"),
    ('--out=/proc/o', "data set '/proc/o' cannot be written"),
    ('--out=TMP/file/o', "file/o' cannot be written .a part of its path is a file.; choose"),
    ('--out=TMP/file/o/p', "file/o/p' cannot be written .a part of its path is a file.; choose"),
    ('--salt-file=/proc/x/salt', "salt file '/proc/x/salt' cannot be written"),
    ('--salt-file=TMP/file/salt', 'salt file .* cannot be written .a part of its path is a file'),
    ('--mapping=/proc/x/m', "private mapping '/proc/x/m' cannot be written"),
    ('--mapping=TMP/file/m', 'private mapping .* cannot be written .a part of its path is a file'),
    ('--mapping=TMP/file', "private mapping .*file' exists and is no table of names in JSON"),
    ('--mapping=TMP/source', "private mapping .*source' exists and is no table of names in JSON"),
])
def test_one_sentence_before_the_work(tmp_path, monkeypatch, option, words):
    with pytest.raises(UserError, match=words) as caught:
        run(tmp_path, monkeypatch, option)
    assert '\n' not in str(caught.value) and not (tmp_path / 'out').exists()
    assert (tmp_path / 'file').read_text() == 'no directory, and no JSON'


def test_a_name_that_is_too_long(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught, exit_on_user_error():
        run(tmp_path, monkeypatch, f'--out=TMP/{"x" * 300}')
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.count('\n') == 1 and 'File name too long' in said


def test_a_good_place_is_left_empty(tmp_path):
    check_writable(tmp_path / 'new' / 'file', 'data set')
    assert list((tmp_path / 'new').iterdir()) == []
