"""Bad weight files: one sentence each, nothing run."""

import pickle
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from repdiff.convert import weights
from repdiff.errors import UserError


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / 'model.safetensors'
    save_file({'a': np.arange(6, dtype=np.float32).reshape(2, 3)}, path)
    return path


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        with weights.opened(path):
            pass
    text = str(error.value)
    assert str(path) in text and '\n' not in text and text.endswith('.')
    return text


def test_shapes_then_values(whole):
    with weights.opened(whole) as file:
        assert file.shapes == {'a': (2, 3)}
        np.testing.assert_array_equal(file.read('a'), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize('dtype', [np.float64, np.float16, ml_dtypes.bfloat16])
def test_every_float_becomes_float32(tmp_path, dtype):
    path = tmp_path / 'half.safetensors'
    save_file({'a': np.array([0.5, -2], dtype)}, path)
    with weights.opened(path) as file:
        value = file.read('a')
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, [0.5, -2])


def test_truncated_safetensors_anywhere(whole, tmp_path):
    data = whole.read_bytes()
    cut = tmp_path / 'cut.safetensors'
    for length in range(1, len(data)):
        cut.write_bytes(data[:length])
        refusal(cut)


def test_corrupt_header(whole):
    data = bytearray(whole.read_bytes())
    data[12:20] = b'\xff' * 8
    whole.write_bytes(data)
    assert 'not a whole safetensors file' in refusal(whole)


def test_quantised_numbers_are_refused(tmp_path):
    path = tmp_path / 'int8.safetensors'
    save_file({'a': np.zeros(3, np.int8)}, path)
    assert 'I8' in refusal(path)


def test_nan_is_refused(tmp_path):
    path = tmp_path / 'nan.safetensors'
    save_file({'a': np.array([1, np.nan], np.float32)}, path)
    with weights.opened(path) as file, pytest.raises(UserError, match='a holds NaN'):
        file.read('a')


@pytest.mark.parametrize('content,says', [
    (b'', 'empty'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:1\n', 'Git LFS pointer'),
    (b'<!DOCTYPE html><html>Not found</html>', 'neither'),
    (bytes(range(200)), 'neither')])
def test_foreign_files(tmp_path, content, says):
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    assert says in refusal(path)


def test_missing_file_and_folder(tmp_path):
    assert 'cannot read' in refusal(tmp_path / 'none.pth')
    assert 'cannot read' in refusal(tmp_path)


@pytest.mark.parametrize('kind', ['pickle', 'zip'])
def test_without_torch_its_files_are_refused_in_words(tmp_path, monkeypatch, kind):
    path = tmp_path / 'weights.pth'
    if kind == 'pickle':
        path.write_bytes(pickle.dumps({'a': 1}))
    else:
        with zipfile.ZipFile(path, 'w') as file:
            file.writestr('archive/data.pkl', b'')
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert 'needs PyTorch' in refusal(path)


def test_settings_beside_a_file(whole):
    assert weights.settings(whole) == {}
    whole.with_name('config.json').write_text('{"hidden_size": 3}')
    assert weights.settings(whole) == {'hidden_size': 3}
    for bad in ('{', '[1]', '\xff'):
        whole.with_name('config.json').write_bytes(bad.encode('latin-1'))
        with pytest.raises(UserError, match=r'config\.json'):
            weights.settings(whole)
