"""Nothing that names a person gets past the gate, and the salt does not travel with the data."""

import dataclasses
import stat

import numpy as np
import pytest

from repdiff.data import deidentify
from repdiff.data.deidentify import Hasher
from repdiff.data.slices import Skipped, Slice
from repdiff.errors import UserError

SALT = b'0123456789abcdef'
ITEM = Slice(
    id='1.2.840.99.1', patient='MRN-771034', facility='Saint Elsewhere',
    pixels=np.zeros((2, 2), np.float32), unit='hu', label=1, markers=(1, 0), split='train',
    window=(40.0, 80.0), source='/export/DOE_JANE/1.dcm',
)  # fmt: skip


def test_hashes_are_stable_and_hang_on_salt_kind_and_name():
    names = [
        Hasher(salt).name(kind, raw)
        for salt in (SALT, SALT[::-1]) for kind in ('patient', 'slice') for raw in ('1', '2')
    ]  # fmt: skip
    assert len({name[-16:] for name in names}) == 8
    assert names[0] == Hasher(SALT).name('patient', '1') and names[0].startswith('patient-')
    assert Hasher(SALT).name('facility', '') == ''


def test_a_known_hash():
    # printf 'patient\0MRN' | openssl dgst -sha256 -hmac 0123456789abcdef
    assert Hasher(SALT).name('patient', 'MRN') == 'patient-2b7ed92e89241ff3'


def test_the_gate_hashes_every_name_and_keeps_the_rest():
    clean = deidentify.anonymise(ITEM, Hasher(SALT))
    written = repr(clean)
    for secret in ('840', 'MRN', '771034', 'Elsewhere', 'DOE', 'export'):
        assert secret not in written
    kept = {'pixels', 'unit', 'label', 'markers', 'mask', 'split', 'window'}
    for field in dataclasses.fields(Slice):
        same = getattr(clean, field.name) is getattr(ITEM, field.name)
        assert same == (field.name in kept), field.name


def test_the_gate_scrubs_reasons():
    item = Skipped(
        '/export/DOE_JANE/scan7.dcm',
        'is damaged (ValueError: cannot convert Jane Doe (7)); see /export/DOE_JANE/scan7.dcm.',
    )
    clean = deidentify.anonymise(item, Hasher(SALT))
    assert clean.reason == 'is damaged (ValueError); see [removed].'
    assert 'DOE' not in clean.source and 'scan7' not in clean.source


@pytest.mark.parametrize('message, scrubbed', [
    ('is not axial.', 'is not axial.'),
    ('claims 60000 by 60000, not 4096.', 'claims 60000 by 60000, not 4096.'),
    ('has RescaleIntercept -1024.0.', 'has RescaleIntercept -1024.0.'),
    ('born 1961-07-04, scanned 19991231', 'born [removed], scanned [removed]'),
    ('UID 1.2.840.113619.2.5', 'UID [removed]'),
    ('ROE^RICHARD^Q was here', '[removed] was here'),
    (r'C:\scans\roe\1.dcm is bad', '[removed] is bad'),
    ('roe_richard.nii.gz is bad', '[removed] is bad'),
])  # fmt: skip
def test_scrub(message, scrubbed):
    assert deidentify.scrub(message) == scrubbed


def test_the_salt_file_is_made_once_private_and_outside(tmp_path):
    data = tmp_path / 'data'
    path = tmp_path / 'keys' / 'salt'
    first = deidentify.read_salt(path, outside=data)
    assert deidentify.read_salt(path, outside=data) == first and len(first) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert deidentify.read_salt(tmp_path / 'other', outside=data) != first
    with pytest.raises(UserError, match='inside the dataset'):
        deidentify.read_salt(data / 'salt', outside=data)
    assert not data.exists()
    path.write_text('short')
    with pytest.raises(UserError, match='5 bytes'):
        deidentify.read_salt(path, outside=data)
    with pytest.raises(UserError, match='cannot read'):
        deidentify.read_salt(tmp_path / 'keys', outside=data)


def test_a_short_salt_is_refused_and_none_is_shown():
    with pytest.raises(UserError, match='too few'):
        Hasher(b'short')
    assert '0123' not in repr(Hasher(SALT))


def test_the_private_mapping_stays_outside(tmp_path):
    path = tmp_path / 'mapping.json'
    deidentify.write_mapping(path, {'patient-1': 'DOE'}, outside=tmp_path / 'data')
    assert 'DOE' in path.read_text() and stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UserError, match='inside the dataset'):
        deidentify.write_mapping(tmp_path / 'data' / 'm.json', {}, outside=tmp_path / 'data')
