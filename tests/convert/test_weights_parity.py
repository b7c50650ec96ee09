"""PyTorch files: read through weights_only loading; pickled code is refused and never runs."""

import argparse
import pickle

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from repdiff.convert import weights
from repdiff.errors import UserError


class Bomb:
    """Unpickling it makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return __import__('os').mkdir, (str(self.path),)


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        with weights.opened(path):
            pass
    assert str(path) in str(error.value) and '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize('new_format', [True, False])
@pytest.mark.parametrize('key', [None, 'state_dict', 'model', 'ema'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_state_dicts_are_read(tmp_path, new_format, key, dtype):
    path = tmp_path / 'weights.pth'
    state = {'a': torch.arange(6).reshape(2, 3).to(dtype)}
    torch.save(state if key is None else {key: state, 'epoch': 3}, path,
               _use_new_zipfile_serialization=new_format)
    with weights.opened(path) as file:
        assert file.shapes == {'a': (2, 3)}
        assert file.read('a').dtype == np.float32
        np.testing.assert_array_equal(file.read('a'), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize('new_format', [True, False])
def test_pickled_code_does_not_run(tmp_path, new_format):
    path, crater = tmp_path / 'weights.pth', tmp_path / 'crater'
    torch.save({'a': torch.zeros(2), 'bomb': Bomb(crater)}, path,
               _use_new_zipfile_serialization=new_format)
    assert 'holds pickled code' in refusal(path)
    assert not crater.exists()


def test_plain_pickle_does_not_run(tmp_path):
    path, crater = tmp_path / 'weights.bin', tmp_path / 'crater'
    path.write_bytes(pickle.dumps(Bomb(crater), protocol=2))
    refusal(path)
    assert not crater.exists()


def test_whole_modules_are_refused(tmp_path):
    path = tmp_path / 'module.pt'
    torch.save(torch.nn.Linear(2, 2), path)
    assert 'holds pickled code' in refusal(path)


def test_training_file_of_dit_is_read_with_its_arguments(tmp_path):
    path = tmp_path / '0400000.pt'
    torch.save({'model': {'a': torch.zeros(1)}, 'ema': {'a': torch.ones(1)},
                'opt': {'state': {}}, 'args': argparse.Namespace(lr=1e-4, name='DiT')}, path)
    with weights.opened(path) as file:
        assert file.read('a') == 1


@pytest.mark.parametrize('new_format', [True, False])
def test_truncated_files(tmp_path, new_format):
    path = tmp_path / 'weights.pth'
    torch.save({'a': torch.randn(100, 10)}, path, _use_new_zipfile_serialization=new_format)
    data = path.read_bytes()
    for length in range(1, len(data), 97):
        path.write_bytes(data[:length])
        refusal(path)


def test_a_damaged_tensor_is_refused_and_not_converted(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'a': torch.zeros(1000)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(2000)) + 1000] ^= 1
    path.write_bytes(bytes(data))
    assert 'is damaged at' in refusal(path)


def test_a_pytorch_that_can_run_hidden_code_is_refused(tmp_path, monkeypatch):
    path = tmp_path / 'weights.pth'
    torch.save({'a': torch.zeros(2)}, path)
    monkeypatch.setattr(torch, '__version__', '2.5.1+cpu')
    assert 'pip install -U torch' in refusal(path)


@pytest.mark.parametrize('content', [{'a': 1}, [torch.zeros(1)], {}, torch.zeros(3),
                                     {'a': {'b': torch.zeros(1)}}])
def test_files_without_a_table_of_tensors(tmp_path, content):
    path = tmp_path / 'weights.pt'
    torch.save(content, path)
    assert 'no table of named tensors' in refusal(path)


def test_integer_tensors_are_refused(tmp_path):
    path = tmp_path / 'weights.pt'
    torch.save({'a': torch.zeros(3, dtype=torch.int8)}, path)
    assert 'int8' in refusal(path)
