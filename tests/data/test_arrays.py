"""NumPy files in: shapes, kinds, and nothing unpickled or allocated on a header's word."""

import io
import zipfile

import numpy as np
import pytest

from repdiff.data import arrays
from repdiff.data.slices import Skipped

RNG = np.random.default_rng(0)
HU = RNG.integers(-1000, 3000, (3, 20, 18)).astype(np.int16)
GREY = RNG.integers(0, 256, (3, 20, 18), np.uint8)
COLOUR = RNG.integers(0, 256, (2, 20, 18, 3), np.uint8)


def read(path):
    return list(arrays.read([path], root=path.parent))


def save(tmp_path, array):
    np.save(tmp_path / 'a.npy', array, allow_pickle=True)
    return tmp_path / 'a.npy'


@pytest.mark.parametrize('array, unit, slices', [
    (HU, 'hu', list(HU)), (HU[0], 'hu', [HU[0]]), (HU.astype(np.float64), 'hu', list(HU)),
    (HU[..., None], 'hu', list(HU)), (np.asfortranarray(HU), 'hu', list(HU)),
    (GREY, 'grey', list(GREY)), (GREY[0], 'grey', [GREY[0]]),
    (COLOUR, 'grey', list(COLOUR)), (COLOUR[0], 'grey', [COLOUR[0]]),
])  # fmt: skip
def test_shapes(tmp_path, array, unit, slices):
    items = read(save(tmp_path, array))
    assert [item.id for item in items] == [f'a.npy#{n + 1}' for n in range(len(slices))]
    for item, expected in zip(items, slices):
        assert item.unit == unit and item.patient == 'a.npy'
        assert item.pixels.dtype == (np.float32 if unit == 'hu' else np.uint8)
        np.testing.assert_array_equal(item.pixels, expected)


def test_archive(tmp_path):
    np.savez_compressed(tmp_path / 'a.npz', scan=HU, photo=GREY[0], words=np.array(['x']))
    items = read(tmp_path / 'a.npz')
    assert [item.id for item in items[:4]] == [
        'a.npz#scan#1', 'a.npz#scan#2', 'a.npz#scan#3', 'a.npz#photo#1',
    ]  # fmt: skip
    np.testing.assert_array_equal(items[2].pixels, HU[2])
    assert 'not numbers' in items[4].reason and items[4].source.endswith('a.npz#words')


@pytest.mark.parametrize('array, words', [
    (np.array([{'a': 1}]), 'not a readable array'),
    (np.array(['text']), 'not numbers'),
    (HU.astype(complex), 'not numbers'),
    (np.zeros((2, 3, 20, 20, 1), np.uint8), 'has shape'),
    (np.zeros(100, np.uint8), 'has shape'),
    (np.zeros((3, 3), np.uint8), '3 by 3'),
    (RNG.random((20, 20)), 'neither HU nor 8-bit'),
    (np.full((20, 20), np.nan), 'not finite'),
    (np.full((20, 20), 1e9), 'no HU'),
])  # fmt: skip
def test_what_cannot_be_used_has_a_reason(tmp_path, array, words):
    items = read(save(tmp_path, array))
    assert len(items) == 1 and isinstance(items[0], Skipped) and words in items[0].reason


def test_one_bad_slice_does_not_hide_the_others(tmp_path):
    array = HU.astype(np.float32)
    array[1, 0, 0] = np.inf
    items = read(save(tmp_path, array))
    assert [isinstance(item, Skipped) for item in items] == [False, True, False]
    assert items[1].source.endswith('a.npy#2')


def test_claims_larger_than_the_file(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {'descr': '<f8', 'fortran_order': False, 'shape': (100000, 4000, 4000)}
    )
    (tmp_path / 'a.npy').write_bytes(stream.getvalue() + b'\0' * 64)
    with zipfile.ZipFile(tmp_path / 'b.npz', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('x.npy', stream.getvalue() + b'\0' * 64)
    assert 'not a readable array' in read(tmp_path / 'a.npy')[0].reason
    assert 'claims' in read(tmp_path / 'b.npz')[0].reason


def test_truncated_and_foreign_files(tmp_path):
    path = save(tmp_path, HU)
    path.write_bytes(path.read_bytes()[:-10])
    (tmp_path / 'b.npz').write_bytes(b'PK\3\4')
    (tmp_path / 'c.npy').write_bytes(b'')
    assert 'not a readable array' in read(path)[0].reason
    assert 'not a readable archive' in read(tmp_path / 'b.npz')[0].reason
    assert 'not a readable array' in read(tmp_path / 'c.npy')[0].reason
    assert arrays.is_array('A.NPY') and not arrays.is_array('a.txt')
