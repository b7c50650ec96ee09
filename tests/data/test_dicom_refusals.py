"""DICOM that is no CT slice, or no whole file: left out with a reason, before it costs anything."""

import logging
import os
import sys
import warnings

import ct_files
import numpy as np
import pytest
from pydicom import uid

from repdiff.data import dicom, dicom_pixels
from repdiff.data.slices import Skipped, Slice
from repdiff.errors import UserError

STORED = ct_files.random_picture(0)


def read(paths, root):
    return list(dicom.read(paths, root=root, note=lambda *remark: None))


def reason(dataset, tmp_path):
    items = read([ct_files.save(dataset, tmp_path / 'a.dcm')], tmp_path)
    assert len(items) == 1 and isinstance(items[0], Skipped), items
    return items[0].reason


@pytest.mark.parametrize('tags, words', [
    ({'Modality': 'MR'}, 'modality MR'),
    ({'Modality': None}, 'no Modality'),
    ({'ImageType': ['ORIGINAL', 'PRIMARY', 'LOCALIZER']}, 'localizer'),
    ({'SOPClassUID': uid.SecondaryCaptureImageStorage}, 'Secondary Capture'),
    ({'ImageOrientationPatient': [1, 0, 0, 0, 0, -1]}, 'not axial'),
    ({'ImageOrientationPatient': [0, 1, 0, 0, 0, -1]}, 'not axial'),
    ({'ImageOrientationPatient': [1, 0, 0, 1, 0, 0]}, 'orthogonal'),
    ({'ImageOrientationPatient': None}, 'no ImageOrientationPatient'),
    ({'RescaleSlope': None}, 'no RescaleSlope'),
    ({'RescaleSlope': 0}, 'RescaleSlope 0'),
    ({'RescaleSlope': 1e9}, 'no HU'),
    ({'RescaleType': 'Z_EFF'}, 'other than HU'),
    ({'Modality': 'XYZ'}, 'modality unknown'),
    ({'SOPClassUID': '1.2.3'}, 'thing unknown'),
    ({'Rows': None}, 'no Rows'),
    ({'BitsStored': None}, 'no BitsStored'),
    ({'BitsStored': 17}, '17 bits'),
    ({'HighBit': 15}, 'HighBit'),
    ({'PixelData': None}, 'no pixel data'),
    ({'PhotometricInterpretation': 'PALETTE COLOR'}, 'no grey image'),
    ({'PixelSpacing': [0.5, 1]}, 'not square'),
    ({'Rows': 60000, 'Columns': 60000}, '60000'),
    ({'NumberOfFrames': 2000000000}, '2000000000 frames'),
    ({'Rows': 2048, 'Columns': 2048}, 'cannot be decoded'),
])  # fmt: skip
def test_what_cannot_be_used_has_a_reason(tmp_path, tags, words):
    assert words in reason(ct_files.dicom(STORED, **tags), tmp_path)


def test_a_codestream_larger_than_its_header_is_refused_before_decoding(tmp_path):
    for syntax, frame in (
        (uid.JPEGLosslessSV1, ct_files.jpeg_lossless(STORED, bits=12)),
        (uid.JPEGLSLossless, ct_files.JPEG_LS),
    ):
        at = frame.index(b'\xff\xf7' if syntax == uid.JPEGLSLossless else b'\xff\xc3') + 5
        bomb = frame[:at] + b'\xff\xff\xff\xff' + frame[at + 4 :]
        dataset = ct_files.with_codestream(ct_files.dicom(STORED), [bomb], syntax)
        assert '65535 by 65535' in reason(dataset, tmp_path)
    dataset = ct_files.dicom(STORED)
    dataset.compress(uid.JPEG2000Lossless)
    at = dataset.PixelData.index(b'\xff\x4f\xff\x51') + 8
    dataset.PixelData = dataset.PixelData[:at] + b'\x00\x00\xff\xff' + dataset.PixelData[at + 4 :]
    assert '65535' in reason(dataset, tmp_path)


def test_monochrome1_without_air_is_left_out(tmp_path):
    stored = np.full((64, 64), 1500)
    text = reason(ct_files.dicom(stored, PhotometricInterpretation='MONOCHROME1'), tmp_path)
    assert 'no air at its rim' in text


def test_a_large_deflated_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_pixels, 'MAX_DEFLATED', 500)
    dataset = ct_files.dicom(STORED)
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    assert 'is deflated' in reason(dataset, tmp_path)


def test_truncated_and_foreign_files_are_left_out_with_a_reason(tmp_path):
    path = ct_files.save(ct_files.dicom(STORED), tmp_path / 'a.dcm')
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    (tmp_path / 'b.dcm').write_bytes(b'not a DICOM file')
    (tmp_path / 'c.dcm').write_bytes(b'')
    (tmp_path / 'd.dcm').mkdir()
    items = read(sorted(tmp_path.iterdir()), tmp_path)
    assert all(isinstance(item, Skipped) for item in items)
    reasons = {item.source[-5]: item.reason for item in items}
    assert set(reasons) == set('abcd')
    assert 'decoded' in reasons['a'] and reasons['b'] == reasons['c'] == 'is not DICOM.'
    assert reasons['d'] == 'is not a file.'


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    assert not dicom.is_dicom(tmp_path / 'pipe')
    assert read([tmp_path / 'pipe'], tmp_path)[0].reason == 'is not a file.'


def test_a_repeated_image_is_left_out(tmp_path):
    dataset = ct_files.dicom(STORED)
    paths = [ct_files.save(dataset, tmp_path / name) for name in ('a.dcm', 'b.dcm')]
    items = read(paths, tmp_path)
    assert [item.reason for item in items if isinstance(item, Skipped)] == [
        'repeats the image of another file, by its SOPInstanceUID.'
    ]
    assert sum(isinstance(item, Slice) for item in items) == 1


def test_no_reason_quotes_the_patient(tmp_path):
    path = ct_files.save(ct_files.dicom(STORED), tmp_path / 'a.dcm')
    content = path.read_bytes()
    at = content.index(b'CS\x02\x00CT')
    # The modality's length now runs over the institution and the patient's name.
    path.write_bytes(content[: at + 2] + b'\x50\x00' + content[at + 4 :])
    item, = read([path], tmp_path)
    assert 'DOE' not in item.reason and 'Elsewhere' not in item.reason


def test_no_warning_or_log_quotes_a_tag(tmp_path, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        path = ct_files.save(ct_files.dicom(STORED, Modality='DOE^JANE'), tmp_path / 'a.dcm')
    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert isinstance(read([path], tmp_path)[0], Skipped)
    assert caplog.text == '' and not logging.root.manager.disable


def test_without_the_ct_extra_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / 'a').write_bytes(b'')
    monkeypatch.setitem(sys.modules, 'pydicom', None)
    with pytest.raises(UserError, match=r"needs pydicom.* pip install 'repdiff\[ct\]'"):
        list(dicom.read([tmp_path / 'a'], root=tmp_path, note=print))
