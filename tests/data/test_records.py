"""Records: what is written is what is read, without TensorFlow, whole or not at all."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from repdiff.data import builder, png, records
from repdiff.errors import UserError


def make_info(**changes):
    return {'name': 'made up', 'simulated': True, 'classes': ['no', 'yes'],
            'markers': ['a', 'b', 'c'], 'masks': True, 'image_size': 8, 'channels': 1,
            'fingerprint': 'f', 'skipped': [], **changes}


def make_records(count, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return [{'image': rng.integers(0, 256, (8, 8, channels), np.uint8), 'label': i % 3 - 1,
             'id': f'slice é{i}', 'patient': f'p{i // 2}', 'facility': str(i % 4),
             'markers': (i % 2, 1, 0), 'mask': rng.integers(0, 2, (8, 8), np.uint8)}
            for i in range(count)]


@pytest.mark.parametrize('channels', [1, 2, 3])
def test_round_trip(tmp_path, channels):
    wanted = make_records(7, channels)
    dataset = records.write({'valid': wanted[5:], 'train': wanted[:5]}, tmp_path / 'out',
                            make_info(channels=channels))
    got = [*dataset.split('train'), *dataset.split('valid')]
    for one, other in zip(got, wanted, strict=True):
        assert set(one) == set(other)
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    assert got[0]['image'].dtype == np.uint8 and got[0]['label'].dtype == np.int32
    assert records.open(tmp_path / 'out').info['splits'] == {
        'train': {'images': 5, 'patients': 3, 'positives': 1, 'per_class': [2, 1],
                  'facilities': {'0': 2, '1': 1, '2': 1, '3': 1}},
        'valid': {'images': 2, 'patients': 2, 'positives': 1, 'per_class': [0, 1],
                  'facilities': {'1': 1, '2': 1}}}
    assert os.listdir(tmp_path) == ['out']


def test_load_stacks_everything(tmp_path):
    wanted = make_records(6)
    loaded = records.write({'test': wanted}, tmp_path / 'out', make_info()).load('test')
    np.testing.assert_array_equal(loaded['image'], [one['image'] for one in wanted])
    np.testing.assert_array_equal(loaded['mask'], [one['mask'] for one in wanted])
    np.testing.assert_array_equal(loaded['markers'], [one['markers'] for one in wanted])
    assert loaded['label'].tolist() == [-1, 0, 1, -1, 0, 1] and loaded['label'].dtype == np.int32
    assert loaded['patient'].tolist() == ['p0', 'p0', 'p1', 'p1', 'p2', 'p2']


def test_without_masks_and_markers(tmp_path):
    wanted = [{**one, 'mask': None, 'markers': ()} for one in make_records(3)]
    dataset = records.write({'train': wanted}, tmp_path / 'out', make_info(masks=False, markers=[]))
    assert dataset.split('train')[1]['mask'] is None
    assert dataset.split('train')[1]['markers'].shape == (0,)
    assert 'mask' not in dataset.load('train')


def test_tfds_reads_it(tmp_path):
    wanted = make_records(4)
    records.write({'train': wanted}, tmp_path / 'out', make_info())
    source = tfds.builder_from_directory(str(tmp_path / 'out')).as_data_source(split='train')
    np.testing.assert_array_equal(source[2]['image'], wanted[2]['image'])


def test_a_large_split_has_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, '_SHARD_BYTES', 1000)
    wanted = make_records(30)
    dataset = records.write({'train': wanted}, tmp_path / 'out', make_info())
    assert len(list((tmp_path / 'out').glob('*train*'))) > 5
    for one, other in zip(dataset.split('train'), wanted, strict=True):
        np.testing.assert_array_equal(one['image'], other['image'])
        assert one['id'] == other['id']


def test_writing_again_replaces(tmp_path):
    for count in (3, 5):
        dataset = records.write({'train': make_records(count)}, tmp_path / 'out', make_info())
        assert len(dataset.split('train')) == count
    assert os.listdir(tmp_path) == ['out']


def test_a_failed_writer_leaves_the_old_set(tmp_path):
    def broken():
        yield from make_records(3)
        raise UserError('the source broke')

    with pytest.raises(UserError, match='the source broke'):
        records.write({'train': broken()}, tmp_path / 'out', make_info())
    assert os.listdir(tmp_path) == []
    records.write({'train': make_records(2)}, tmp_path / 'out', make_info())
    with pytest.raises(UserError, match='the source broke'):
        records.write({'train': broken()}, tmp_path / 'out', make_info())
    assert os.listdir(tmp_path) == ['out']
    assert len(records.open(tmp_path / 'out').split('train')) == 2


SLOW_WRITER = """
import sys, time
import numpy as np
from repdiff.data import builder, png, records

def endless():
    for i in range(10 ** 6):
        if i == 3:
            print('writing', file=sys.stderr, flush=True)
        time.sleep(0.01)
        yield {'image': np.full((8, 8, 1), i % 256, np.uint8), 'label': 0, 'id': str(i),
               'patient': '', 'facility': ''}

records.write({'train': endless()}, sys.argv[1], {
    'classes': ['a', 'b'], 'markers': [], 'masks': False, 'image_size': 8, 'channels': 1})
"""


def test_a_killed_writer_leaves_nothing(tmp_path):
    writer = subprocess.Popen([sys.executable, '-c', SLOW_WRITER, str(tmp_path / 'out')],
                              stderr=subprocess.PIPE)
    assert writer.stderr.readline() == b'writing\n'
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert not (tmp_path / 'out').exists()
    records.write({'train': make_records(2)}, tmp_path / 'out', make_info())
    assert os.listdir(tmp_path) == ['out']


def test_a_swap_half_done_is_taken_back(tmp_path):
    records.write({'train': make_records(2)}, tmp_path / 'out', make_info())
    (tmp_path / 'out').rename(tmp_path / '.out.older')
    records.recover(tmp_path / 'out')
    assert os.listdir(tmp_path) == ['out']


def test_no_tensorflow_and_light_workers(tmp_path):
    """grain imports JAX where it is installed, so the pipeline does; what prepares does not."""
    records.write({'train': make_records(2)}, tmp_path / 'out', make_info())
    program = ('import sys; from repdiff.data import records; import repdiff.prepare;'
               'source = records.open(sys.argv[1]).split("train");'
               'source.load();'
               'print("jax" in sys.modules);'
               'from repdiff.data import pipeline;'
               'list(pipeline.eval_batches(source, batch=2));'
               'print("tensorflow" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', program, str(tmp_path / 'out')],
                          capture_output=True, text=True, check=True)
    assert done.stdout == 'False\nFalse\n'


@pytest.mark.parametrize('content', [None, '', '{', '{"splits": {}}'])
def test_no_data_set(tmp_path, content):
    if content is not None:
        (tmp_path / 'prepare.json').write_text(content)
    with pytest.raises(UserError, match='holds no prepared data set'):
        records.open(tmp_path)


def test_unknown_split(tmp_path):
    dataset = records.write({'train': make_records(2)}, tmp_path / 'out', make_info())
    with pytest.raises(UserError, match="has no split 'valid'; it has train"):
        dataset.split('valid')


def test_pixel_hash_tells_content_apart():
    image = np.arange(4, dtype=np.uint8).reshape(2, 2)
    assert png.pixel_hash(image) == png.pixel_hash(image.copy())
    assert png.pixel_hash(image) != png.pixel_hash(image.reshape(4, 1))
    assert png.pixel_hash(np.zeros((2, 2), np.uint8)) is None
