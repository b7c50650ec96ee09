"""NIfTI in: the same axial slices from every storage order, and no trust in headers."""

import gzip
import itertools
import sys
import tracemalloc

import ct_files
import nibabel
import numpy as np
import pytest
from nibabel import orientations

from repdiff.data import nifti
from repdiff.data.slices import Skipped
from repdiff.errors import UserError


def read(path):
    notes = []
    items = nifti.read([path], root=path.parent, note=lambda source, text: notes.append(text))
    return list(items), notes


def reason(path):
    items, _ = read(path)
    assert len(items) == 1 and isinstance(items[0], Skipped), items
    return items[0].reason


@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
@pytest.mark.parametrize('signs', [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_every_storage_order_gives_the_same_slices(tmp_path, order, signs):
    volume, affine = ct_files.volume()
    turn = np.array(list(zip(order, signs)), float)
    stored = orientations.apply_orientation(volume, turn)
    turned = affine @ orientations.inv_ornt_aff(turn, volume.shape)
    items, notes = read(ct_files.nifti(stored, turned, tmp_path / 'a.nii.gz'))
    assert len(items) == 4 and notes == []
    for z, item in enumerate(items):
        np.testing.assert_array_equal(item.pixels, volume[:, :, z].T)
    numbers = (1, 2, 3, 4) if signs[2] > 0 else (4, 3, 2, 1)
    assert [item.id for item in items] == [f'a.nii.gz#{number}' for number in numbers]


def test_slope_and_intercept_and_float_gaps(tmp_path):
    volume, affine = ct_files.volume()
    data = volume.astype(np.float32)
    data[0, 0, 0] = np.nan
    header = nibabel.Nifti1Image(data, affine).header
    header['vox_offset'], header['magic'] = 352, b'n+1'
    header['scl_slope'], header['scl_inter'] = 0.5, -10
    path = tmp_path / 'a.nii'
    path.write_bytes(header.binaryblock + b'\0' * 4 + data.tobytes(order='F'))
    items, _ = read(path)
    expected = volume[:, :, 0].T * 0.5 - 10
    expected[0, 0] = -1000
    np.testing.assert_array_equal(items[0].pixels, expected.astype(np.float32))


def test_nifti_2(tmp_path):
    volume, affine = ct_files.volume()
    nibabel.save(nibabel.Nifti2Image(volume, affine), tmp_path / 'a.nii')
    items, _ = read(tmp_path / 'a.nii')
    np.testing.assert_array_equal(items[3].pixels, volume[:, :, 3].T)


def test_values_without_air_are_noted(tmp_path):
    volume, affine = ct_files.volume()
    _, notes = read(ct_files.nifti(np.abs(volume), affine, tmp_path / 'a.nii'))
    assert len(notes) == 1 and 'may not be HU' in notes[0]


def patched(tmp_path, zipped=False, **fields):
    volume, affine = ct_files.volume()
    path = ct_files.nifti(volume, affine, tmp_path / 'a.nii')
    content = path.read_bytes()
    header = nibabel.Nifti1Header(content[:348])
    for name, value in fields.items():
        header[name] = value
    content = header.binaryblock + content[348:]
    if zipped:
        path = tmp_path / 'a.nii.gz'
        path.write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('fields, words', [
    ({'dim': [3, 512, 512, 900, 1, 1, 1, 1]}, 'too short'),
    ({'dim': [3, 30000, 30000, 900, 1, 1, 1, 1]}, 'voxels; at most'),
    ({'dim': [4, 18, 22, 4, 2, 1, 1, 1]}, 'not that of one volume'),
    ({'dim': [3, -18, 22, 4, 1, 1, 1, 1]}, 'not that of one volume'),
    ({'vox_offset': 1e30}, 'start at byte'),
    ({'vox_offset': np.nan}, 'start at byte'),
    ({'datatype': 128, 'bitpix': 24}, 'not one number each'),
    ({'datatype': 1234}, 'damaged'),
    ({'qform_code': 0, 'sform_code': 0}, 'no orientation'),
    ({'srow_x': [0, 0, 0, 0]}, 'no map to space'),
    ({'srow_x': [-5, 0, 0, 0]}, 'not acquired axially'),
    ({'magic': b'ni1'}, 'half of a pair'),
    ({'scl_slope': 1e20}, 'no HU'),
])  # fmt: skip
def test_headers_are_not_believed(tmp_path, zipped, fields, words):
    assert words in reason(patched(tmp_path, zipped, **fields))


def test_a_gzip_bomb_costs_no_memory(tmp_path):
    path = patched(tmp_path, dim=[3, 512, 512, 500, 1, 1, 1, 1])
    bomb = tmp_path / 'bomb.nii.gz'
    bomb.write_bytes(gzip.compress(path.read_bytes()[:352] + b'\0' * (8 << 20)))
    tracemalloc.start()
    text = reason(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 'too short' in text and peak < 4 << 20


def test_truncated_and_foreign_files(tmp_path):
    volume, affine = ct_files.volume()
    path = ct_files.nifti(volume, affine, tmp_path / 'a.nii')
    path.write_bytes(path.read_bytes()[:-10])
    assert 'too short' in reason(path)
    zipped = ct_files.nifti(volume, affine, tmp_path / 'b.nii.gz')
    zipped.write_bytes(zipped.read_bytes()[:-40])
    assert 'damaged' in reason(zipped)
    (tmp_path / 'c.nii').write_bytes(b'PK\3\4' + b'\0' * 600)
    assert reason(tmp_path / 'c.nii') == 'is not NIfTI.'
    assert reason(tmp_path / 'none.nii') == 'is not a file.'
    assert nifti.is_nifti('X.NII.GZ') and not nifti.is_nifti('nii.png')


def test_without_the_ct_extra_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / 'a').write_bytes(b'')
    monkeypatch.setitem(sys.modules, 'nibabel', None)
    with pytest.raises(UserError, match=r"needs nibabel.* pip install 'repdiff\[ct\]'"):
        list(nifti.read([tmp_path / 'a'], root=tmp_path, note=print))
