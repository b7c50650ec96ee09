"""DICOM in: exact HU, order, orientation, compressed syntaxes, and what is noted."""

import ct_files
import numpy as np
import pytest
from pydicom import uid

from repdiff.data import dicom, dicom_tags

STORED = ct_files.random_picture(0)


def read(paths, root):
    notes = []
    items = list(dicom.read(paths, root=root, note=lambda source, text: notes.append(text)))
    return items, notes


def read_one(dataset, tmp_path):
    items, notes = read([ct_files.save(dataset, tmp_path / 'a.dcm')], tmp_path)
    assert len(items) == 1
    return items[0], notes


def test_values_become_exact_hu_with_the_raw_names(tmp_path):
    dataset = ct_files.dicom(STORED, WindowCenter=[35, 600], WindowWidth=[90, 2800])
    item, notes = read_one(dataset, tmp_path)
    np.testing.assert_array_equal(item.pixels, STORED - 1024)
    assert item.pixels.dtype == np.float32
    assert (item.unit, item.patient, item.facility) == ('hu', 'MRN-771034', 'Saint Elsewhere')
    assert item.id == dataset.SOPInstanceUID
    assert item.window == (35, 90) and item.label is None
    assert notes == []


@pytest.mark.parametrize('slope, intercept', [(1, -1024), (0.5, -1000.5), (-1, 3071)])
def test_slope_and_intercept(tmp_path, slope, intercept):
    dataset = ct_files.dicom(STORED, RescaleSlope=slope, RescaleIntercept=intercept)
    item, _ = read_one(dataset, tmp_path)
    np.testing.assert_array_equal(item.pixels, (STORED * slope + intercept).astype(np.float32))


@pytest.mark.parametrize('syntax', [
    uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless, uid.JPEG2000Lossless,
])  # fmt: skip
@pytest.mark.parametrize('signed', [False, True])
def test_every_lossless_syntax_gives_the_same_values(tmp_path, syntax, signed):
    values = STORED - 2048 * signed
    dataset = ct_files.dicom(values, PixelRepresentation=int(signed))
    if syntax in (uid.RLELossless, uid.JPEG2000Lossless):
        dataset.compress(syntax)
    elif syntax == uid.ExplicitVRBigEndian:
        dataset.PixelData = values.astype('>i2').tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    item, _ = read_one(dataset, tmp_path)
    np.testing.assert_array_equal(item.pixels, values - 1024)


@pytest.mark.parametrize('syntax', [uid.JPEGLossless, uid.JPEGLosslessSV1])
def test_lossless_jpeg(tmp_path, syntax):
    frame = ct_files.jpeg_lossless(STORED, bits=12)
    dataset = ct_files.with_codestream(ct_files.dicom(STORED), [frame], syntax)
    item, _ = read_one(dataset, tmp_path)
    np.testing.assert_array_equal(item.pixels, STORED - 1024)


def test_jpeg_ls(tmp_path):
    picture = ct_files.jpeg_ls_picture()
    dataset = ct_files.dicom(picture)
    ct_files.with_codestream(dataset, [ct_files.JPEG_LS], uid.JPEGLSLossless)
    item, _ = read_one(dataset, tmp_path)
    np.testing.assert_array_equal(item.pixels, picture - 1024)


def test_baseline_jpeg_within_its_loss(tmp_path):
    y, x = np.mgrid[:32, :40]
    picture = 3 * x + 2 * y
    dataset = ct_files.dicom(picture, BitsAllocated=8, BitsStored=8, HighBit=7)
    ct_files.with_codestream(dataset, [ct_files.jpeg_baseline(picture)], uid.JPEGBaseline8Bit)
    item, _ = read_one(dataset, tmp_path)
    assert np.abs(item.pixels + 1024 - picture).max() <= 3


def test_overlay_bits_above_the_stored_ones_are_dropped(tmp_path):
    dataset = ct_files.dicom(STORED)
    dataset.PixelData = (STORED | 0xA000).astype('<u2').tobytes()
    item, _ = read_one(dataset, tmp_path)
    np.testing.assert_array_equal(item.pixels, STORED - 1024)


@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize('limit', [None, 3])
def test_padding_becomes_air(tmp_path, signed, limit):
    stored = np.full((20, 20), 100)
    stored[0, :6] = np.arange(6)
    tags = {'PixelRepresentation': int(signed), 'PixelPaddingValue': 1}
    if limit is not None:
        tags['PixelPaddingRangeLimit'] = limit
    item, _ = read_one(ct_files.dicom(stored, **tags), tmp_path)
    expected = stored - 1024.0
    expected[0, 1 : (limit or 1) + 1] = -1000
    np.testing.assert_array_equal(item.pixels, expected)


def test_negative_padding_of_signed_values(tmp_path):
    stored = np.full((20, 20), 24)
    stored[:, :3] = -2000
    dataset = ct_files.dicom(
        stored, PixelRepresentation=1, BitsStored=16, HighBit=15, PixelPaddingValue=-2000
    )
    item, _ = read_one(dataset, tmp_path)
    assert (item.pixels[:, :3] == -1000).all() and (item.pixels[:, 3:] == -1000).all()


def head_in_air():
    y, x = np.mgrid[:64, :64]
    stored = np.where(np.hypot(y - 31.5, x - 31.5) < 24, 1060, 24)
    stored[20:30, 20:30] = 2000
    return stored


def test_monochrome1_is_inverted_only_where_its_values_are(tmp_path):
    stored = head_in_air()
    for values in (stored, 4095 - stored):
        dataset = ct_files.dicom(values, PhotometricInterpretation='MONOCHROME1')
        item, notes = read_one(dataset, tmp_path)
        np.testing.assert_array_equal(item.pixels, stored - 1024)
        assert notes == ([] if values is stored else ['values stored inverted; mended'])


def test_signed_values_stored_as_unsigned_are_unwrapped(tmp_path):
    hu = head_in_air() - 1024
    dataset = ct_files.dicom(hu % 4096, RescaleIntercept=0)
    item, notes = read_one(dataset, tmp_path)
    np.testing.assert_array_equal(item.pixels, hu)
    assert notes == ['values stored wrapped; mended']
    dense = np.full((64, 64), 200)
    dense[30:40, 30:40] = 3200
    item, notes = read_one(ct_files.dicom(dense, RescaleIntercept=0), tmp_path)
    np.testing.assert_array_equal(item.pixels, dense)
    assert notes == []


def test_inverted_signed_values(tmp_path):
    stored = head_in_air() - 1024
    dataset = ct_files.dicom(
        -1 - stored,
        PhotometricInterpretation='MONOCHROME1',
        PixelRepresentation=1,
        RescaleIntercept=0,
    )
    item, _ = read_one(dataset, tmp_path)
    np.testing.assert_array_equal(item.pixels, stored)


@pytest.mark.parametrize('along', [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)])
@pytest.mark.parametrize('sign', [1, -1])
def test_eight_orientations_show_the_same_picture(tmp_path, along, sign):
    along, down = np.array(along), sign * np.array([along[1], along[0], 0])
    picture = STORED[:20, :20]
    row, column = np.mgrid[:20, :20]
    # The patient's own axes: x to the left, y to the back, which the screen shows right and down.
    x, y = (column * along[axis] + row * down[axis] for axis in (0, 1))
    stored = picture[y - y.min(), x - x.min()]
    dataset = ct_files.dicom(stored, ImageOrientationPatient=[*along.tolist(), *down.tolist()])
    item, _ = read_one(dataset, tmp_path)
    np.testing.assert_array_equal(item.pixels, picture - 1024)


def test_slices_come_from_foot_to_head_series_by_series(tmp_path):
    paths = []
    for number, (series, z) in enumerate([('1.5', 30), ('1.6', 5), ('1.5', 10), ('1.5', 20)]):
        dataset = ct_files.dicom(
            STORED + number,
            SeriesInstanceUID=series,
            ImagePositionPatient=[0, 0, z],
            InstanceNumber=number,
        )
        paths.append(ct_files.save(dataset, tmp_path / f'{number}.dcm'))
    items, notes = read(paths, tmp_path)
    assert [item.source[-5] for item in items] == ['2', '3', '0', '1']
    assert notes == []


def test_without_positions_the_numbers_order_and_it_is_noted(tmp_path):
    paths = []
    for number in (3, 1, 2):
        dataset = ct_files.dicom(STORED, ImagePositionPatient=None, InstanceNumber=number)
        paths.append(ct_files.save(dataset, tmp_path / f'{number}.dcm'))
    items, notes = read(paths, tmp_path)
    assert [item.source[-5] for item in items] == ['1', '2', '3']
    assert len(notes) == 3 and 'no ImagePositionPatient' in notes[0]


def test_multi_frame_takes_each_frame_s_own_place_and_rescaling(tmp_path):
    frames = ct_files.random_picture(1, (3, 24, 20), bits=10)
    item_path = ct_files.save(ct_files.enhanced(frames, [30, 10, 20]), tmp_path / 'a.dcm')
    items, _ = read([item_path], tmp_path)
    assert [item.id[-2:] for item in items] == ['#2', '#3', '#1']
    for item, frame in zip(items, (1, 2, 0)):
        np.testing.assert_array_equal(item.pixels, frames[frame] * (1 + frame) - 1024)


def test_compressed_multi_frame(tmp_path):
    frames = ct_files.random_picture(2, (3, 24, 20), bits=10)
    dataset = ct_files.enhanced(frames, [0, 5, 10])
    dataset.compress(uid.RLELossless)
    items, _ = read([ct_files.save(dataset, tmp_path / 'a.dcm')], tmp_path)
    for frame, item in enumerate(items):
        np.testing.assert_array_equal(item.pixels, frames[frame] * (1 + frame) - 1024)


def test_files_without_preamble_are_read(tmp_path):
    path = ct_files.save(ct_files.dicom(STORED), tmp_path / 'meta')
    path.write_bytes(path.read_bytes()[132:])
    bare = ct_files.dicom(STORED, InstanceNumber=2)
    del bare.file_meta
    bare.save_as(tmp_path / 'bare', implicit_vr=True, little_endian=True)
    items, _ = read([path, tmp_path / 'bare'], tmp_path)
    for item in items:
        np.testing.assert_array_equal(item.pixels, STORED - 1024)


def test_burned_in_text_and_missing_patient_are_noted(tmp_path):
    item, notes = read_one(ct_files.dicom(STORED, BurnedInAnnotation='YES', PatientID=''), tmp_path)
    assert item.patient == '1.2.3'
    assert any('burned-in' in note for note in notes) and any('PatientID' in note for note in notes)


def test_files_that_do_not_tell_of_burned_in_text_are_noted_once(tmp_path):
    paths = [ct_files.save(ct_files.dicom(
        STORED + number, BurnedInAnnotation=told, SeriesInstanceUID=f'1.2.{number % 2}',
        ImagePositionPatient=[0, 0, number]), tmp_path / f'{number}.dcm')
        for number, told in enumerate(('NO', None, '', None))]
    items, notes = read(paths, tmp_path)
    assert len(items) == 4 and notes == [
        'does not say whether text is burned in (3 DICOM files in all): look at the contact sheet '
        'for burned-in text, for the check of pixels does not see text over the head']


def test_gantry_tilt_is_noted_from_the_tag_or_the_positions(tmp_path):
    _, notes = read_one(ct_files.dicom(STORED, GantryDetectorTilt=-15), tmp_path)
    assert notes == ['gantry tilt of 15.0 degrees; slices are kept as acquired']
    paths = []
    for number in range(2):
        place = [0, 5 * number * np.tan(np.radians(20)), 5 * number]
        dataset = ct_files.dicom(STORED + number, ImagePositionPatient=[round(v, 6) for v in place])
        paths.append(ct_files.save(dataset, tmp_path / f'{number}.dcm'))
    _, notes = read(paths, tmp_path)
    assert notes == ['gantry tilt of 20.0 degrees; slices are kept as acquired']


def test_to_display_keeps_a_standard_slice():
    np.testing.assert_array_equal(
        dicom_tags.to_display(STORED, np.array([1, 0, 0, 0, 1, 0.0])), STORED
    )
