"""Pictures: exact pixels of good files, a reason for each bad one."""

import numpy as np
import pytest
from PIL import Image

from repdiff.data import pictures
from repdiff.data.slices import Skipped


def one(path):
    items = list(pictures.read([path], root=path.parent))
    assert len(items) == 1
    return items[0]


GREY = np.random.default_rng(0).integers(0, 256, (6, 9), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8)


@pytest.mark.parametrize('suffix', ['png', 'tif', 'PNG'])
@pytest.mark.parametrize('pixels', [GREY, COLOUR], ids=['grey', 'colour'])
def test_exact_pixels(tmp_path, suffix, pixels):
    Image.fromarray(pixels).save(tmp_path / f'a.{suffix}')
    item = one(tmp_path / f'a.{suffix}')
    np.testing.assert_array_equal(item.pixels, pixels)
    assert (item.id, item.unit, item.label, item.patient) == (f'a.{suffix}', 'grey', None, '')


def test_jpeg_is_close(tmp_path):
    ramp = np.tile(np.arange(0, 250, 10, dtype=np.uint8), (16, 1))
    Image.fromarray(ramp).save(tmp_path / 'a.jpg', quality=95)
    assert np.abs(one(tmp_path / 'a.jpg').pixels.astype(int) - ramp).max() < 12


def test_grey_saved_as_colour_is_grey(tmp_path):
    Image.fromarray(np.stack([GREY] * 3, -1)).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(one(tmp_path / 'a.png').pixels, GREY)


def test_sixteen_bits_are_scaled(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 256 + 7).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(one(tmp_path / 'a.png').pixels, GREY)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize(('low', 'high', 'words'), [
    (0, 4095, 'values up to 4095 in 16 bits, so its white is unknown'),
    (0, 4096, None), (4096, 65535, None)])
def test_sixteen_bits_of_unknown_range_are_refused(tmp_path, suffix, low, high, words):
    Image.fromarray(np.array([[low, high]], np.uint16)).save(tmp_path / f'a.{suffix}')
    item = one(tmp_path / f'a.{suffix}')
    if words is None:
        np.testing.assert_array_equal(item.pixels, [[low // 256, high // 256]])
    else:
        assert isinstance(item, Skipped) and words in item.reason


@pytest.mark.parametrize(('low', 'high', 'words'), [
    (-1024, 40000, 'values down to -1024, as HU do; save CT as NIfTI or NumPy'),
    (0, 70000, 'values up to 70000, more than 16 bits')])
def test_integers_beyond_sixteen_bits_are_refused(tmp_path, low, high, words):
    Image.fromarray(np.array([[low, high]], np.int32)).save(tmp_path / 'a.tif')
    item = one(tmp_path / 'a.tif')
    assert isinstance(item, Skipped) and words in item.reason


def test_bad_files_have_reasons(tmp_path):
    (tmp_path / 'empty.png').write_bytes(b'')
    (tmp_path / 'text.jpg').write_text('not a picture')
    Image.fromarray(GREY).save(tmp_path / 'whole.png')
    whole = (tmp_path / 'whole.png').read_bytes()
    (tmp_path / 'cut.png').write_bytes(whole[:len(whole) // 2])
    Image.fromarray(GREY).save(tmp_path / 'two.tif', save_all=True,
                               append_images=[Image.fromarray(GREY)])
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / 'real.tif')
    Image.new('1', (8200, 8200)).save(tmp_path / 'vast.png')
    (tmp_path / 'gone.png').unlink(missing_ok=True)
    for name, words in [('empty.png', 'is not a readable picture'),
                        ('text.jpg', 'is not a readable picture'),
                        ('cut.png', 'is not a readable picture'), ('two.tif', 'holds 2 pictures'),
                        ('real.tif', 'holds fractions'), ('vast.png', 'more than 8192 x 8192'),
                        ('gone.png', 'is not a readable picture')]:
        item = one(tmp_path / name)
        assert isinstance(item, Skipped) and words in item.reason, item
        assert item.source == str(tmp_path / name) and item.reason.endswith('.')


def test_names_are_relative(tmp_path):
    (tmp_path / 'a').mkdir()
    Image.fromarray(GREY).save(tmp_path / 'a' / 'b.png')
    item, = pictures.read([tmp_path / 'a' / 'b.png'], root=tmp_path)
    assert item.id == 'a/b.png'
