"""Real CT formats through the prepare command: HU, windows, labels of patients, no names."""

import json
import re

import ct_files
import numpy as np
import pytest

from repdiff import prepare
from repdiff.data import dicom, records, windows
from repdiff.errors import UserError

PLANTED = ('MRN-77', 'DOE^', 'Saint Elsewhere', '19500101', 'ACC-4711', '1.2.3.4', 'ward7')


def stored(patient, k):
    return ct_files.random_picture(10 * patient + k, (24, 24))


@pytest.fixture
def source(tmp_path):
    """Eight patients of three DICOM slices each, and labels of whole patients."""
    root = tmp_path / 'source' / 'ward7'
    lines = ['patient,bleed']
    for patient in range(8):
        folder = root / f'DOE_{patient}'
        folder.mkdir(parents=True)
        for k in range(3):
            dataset = ct_files.dicom(
                stored(patient, k), PatientID=f'MRN-77{patient}', PatientName=f'DOE^{patient}',
                PatientBirthDate='19500101', AccessionNumber='ACC-4711', InstanceNumber=k + 1,
                SeriesInstanceUID=f'1.2.3.4.{patient}', StudyDate='19500101',
                ImagePositionPatient=[0, 0, 5 * k])
            ct_files.save(dataset, folder / f'{k}.dcm')
        lines.append(f'MRN-77{patient},{patient % 2}')
    (tmp_path / 'labels.csv').write_text('\n'.join(lines))
    return tmp_path / 'source'


def run(tmp_path, *options):
    prepare.main([f'--source={tmp_path / "source"}', f'--labels={tmp_path / "labels.csv"}',
                  f'--out={tmp_path / "out"}', f'--salt-file={tmp_path / "salt"}', '--label=bleed',
                  '--image-size=24', '--fractions=train=0.5,valid=0.25,test=0.25', '--processes=1',
                  *options])
    return records.open(tmp_path / 'out')


def everything(dataset):
    return [record for name in dataset.splits for record in dataset.split(name)]


@pytest.mark.parametrize('window', ['brain', '50/200', 'brain+subdural+bone'])
def test_exact_windows_of_exact_hu(tmp_path, source, window):
    got = everything(run(tmp_path, f'--window={window}'))
    wanted = {windows.apply(stored(patient, k) - 1024.0, windows.parse(window)).tobytes():
              (patient % 2) for patient in range(8) for k in range(3)}
    assert wanted == {record['image'].tobytes(): int(record['label']) for record in got}


def test_window_of_a_facility(tmp_path, source):
    got = everything(run(tmp_path, '--window=Saint Elsewhere=bone,*=brain'))
    wanted = {windows.apply(stored(patient, k) - 1024.0, windows.parse('bone')).tobytes()
              for patient in range(8) for k in range(3)}
    assert wanted == {record['image'].tobytes() for record in got}


def test_slices_of_a_patient_stay_together_from_foot_to_head(tmp_path, source):
    dataset = run(tmp_path, f'--mapping={tmp_path / "private.json"}')
    raw = json.loads((tmp_path / 'private.json').read_text())
    for name in dataset.splits:
        loaded = dataset.load(name)
        patients = [raw[patient] for patient in loaded['patient']]
        assert patients == [each for each in sorted(set(patients)) for _ in range(3)]
        for image, patient, k in zip(loaded['image'], patients, 40 * [0, 1, 2]):
            hu = stored(int(patient[-1]), k) - 1024.0
            np.testing.assert_array_equal(image, windows.apply(hu, windows.parse('brain')))
    assert {raw[facility] for facility in loaded['facility']} == {'Saint Elsewhere'}


def test_nobody_is_named_in_any_byte(tmp_path, source, capfd):
    broken = source / 'ward7' / 'DOE_0' / '1.dcm'
    broken.write_bytes(broken.read_bytes()[:900])
    (source / 'ward7' / 'DOE^JOHN.txt').write_text('19500101')
    dataset = run(tmp_path, '--preview', '--window=Saint Elsewhere=bone,*=brain', '--processes=2',
                  f'--mapping={tmp_path / "private.json"}')
    assert len(dataset.info['skipped']) == 2
    assert (tmp_path / 'private.json').stat().st_mode & 0o777 == 0o600
    said = capfd.readouterr()
    outputs = [path.read_bytes() for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    for content in (*outputs, said.out.encode(), said.err.encode()):
        for name in PLANTED:
            assert name.encode() not in content


def test_the_facilities_of_windows_are_hidden_as_those_of_images(tmp_path, source):
    options = ('--window=Saint Elsewhere=bone, Beta Clinic = 40/80,*=brain',
               f'--mapping={tmp_path / "private.json"}')
    dataset = run(tmp_path, *options)
    raw = json.loads((tmp_path / 'private.json').read_text())
    shown = dataset.info['settings']['window']
    keys = list(windows.parse_facilities(shown))
    assert keys[2] == '*' and [raw[key] for key in keys[:2]] == ['Saint Elsewhere', 'Beta Clinic']
    assert keys[0] == everything(dataset)[0]['facility']
    assert shown in (tmp_path / 'out' / 'prepare.html').read_text()
    kept = run(tmp_path, *options, '--keep-names').info['settings']['window']
    assert list(windows.parse_facilities(kept)) == ['Saint Elsewhere', 'Beta Clinic', '*']


def test_a_repeated_image_is_left_out_in_every_run(tmp_path, source):
    first = source / 'ward7' / 'DOE_0' / '0.dcm'
    first.with_name('9.dcm').write_bytes(first.read_bytes())
    one, two = run(tmp_path), run(tmp_path)
    assert [item['reason'] for item in one.info['skipped']] == [
        'repeats the image of another file, by its SOPInstanceUID.']
    assert one.info['skipped'] == two.info['skipped']
    assert one.info['fingerprint'] == two.info['fingerprint']


@pytest.mark.parametrize('runs_before', [0, 1])
def test_strict_refuses_a_repeated_image(tmp_path, source, runs_before):
    first = source / 'ward7' / 'DOE_0' / '0.dcm'
    first.with_name('9.dcm').write_bytes(first.read_bytes())
    for _ in range(runs_before):
        run(tmp_path)
    with pytest.raises(UserError, match='repeats the image of another file, by its SOPInst'):
        run(tmp_path, '--strict')


@pytest.mark.parametrize('name', ['empty.dcm', 'empty.IMA'])
def test_strict_refuses_an_empty_dicom_file(tmp_path, source, name):
    (source / 'ward7' / 'README').write_text('of another kind')
    run(tmp_path, '--strict')
    (source / 'ward7' / name).write_bytes(b'')
    assert len(run(tmp_path).info['skipped']) == 2
    with pytest.raises(UserError, match='is no DICOM'):
        run(tmp_path, '--strict')


def damaged(source):
    path = source / 'ward7' / 'DOE_0' / '1.dcm'
    path.write_bytes(path.read_bytes()[:900])


def damaged_part(source):
    np.savez(source / 'ward7' / 'DOE_9.npz', JANE=np.array(['text']))


def same_pixels(source):
    for patient in range(8):
        ct_files.save(
            ct_files.dicom(stored(99, 0), PatientID=f'MRN-77{patient}',
                           SeriesInstanceUID=f'1.2.3.4.{patient}.1', InstanceNumber=9),
            source / 'ward7' / f'DOE_{patient}' / '9.dcm')


def same_image_name(source):
    """A slice of an array, and a DICOM image without a UID that is called like it."""
    np.save(source / 'ward7' / 'DOE^9.npy', np.zeros((2, 20, 20)))
    ct_files.save(ct_files.dicom(stored(9, 0), SOPInstanceUID=None),
                  source / 'ward7' / 'DOE^9.npy#1')


@pytest.mark.parametrize(('change', 'words'), [
    (damaged, 'is damaged|cannot be decoded|has'), (damaged_part, 'holds .*, not numbers'),
    (same_pixels, 'the same pixels in two splits'),
    (same_image_name, 'give the same image name')])
def test_an_error_names_nobody_but_the_private_table_does(tmp_path, source, change, words):
    change(source)
    private = tmp_path / 'private.json'
    with pytest.raises(UserError, match=words) as caught:
        run(tmp_path, '--strict', f'--mapping={private}')
    said = str(caught.value)
    assert said.endswith('(repdiff.prepare --mapping tells which).')
    assert not [name for name in (*PLANTED, 'DOE', 'JANE') if name in said]
    hidden = re.findall(r"'(file-[0-9a-f]{16})'", said)
    assert hidden and all('ward7/DOE' in json.loads(private.read_text())[name] for name in hidden)
    with pytest.raises(UserError, match="'ward7/DOE"):
        run(tmp_path, '--strict', '--keep-names')


@pytest.mark.parametrize('option', [
    '--window=Beta Clinic=bone', '--downstream-facilities=Beta Clinic'])
def test_an_error_names_no_facility_but_the_private_table_does(tmp_path, source, option):
    """Neither the one that was typed, nor those of the files."""
    private = tmp_path / 'private.json'
    with pytest.raises(UserError, match='has no (window|images)') as caught:
        run(tmp_path, option, f'--mapping={private}', '--processes=2')
    said = str(caught.value)
    assert not [name for name in (*PLANTED, 'Beta', 'Clinic') if name in said]
    hidden = re.findall(r"'(facility-[0-9a-f]{16})'", said)
    assert {json.loads(private.read_text())[name] for name in hidden} == {
        'Saint Elsewhere', 'Beta Clinic'}
    with pytest.raises(UserError, match="'Beta Clinic'"):
        run(tmp_path, option, '--keep-names')


@pytest.mark.parametrize('option', [
    '--window=Beta Clinic=bone,Gamma', '--window=Beta Clinic=bone,Gamma=brain+bone',
    '--window-column=hospital'])
def test_a_typing_error_shows_no_facility(tmp_path, source, option):
    lines = (tmp_path / 'labels.csv').read_text().splitlines()
    (tmp_path / 'labels.csv').write_text('\n'.join(
        [f'{lines[0]},hospital', *(f'{line},Gamma' for line in lines[1:])]))
    with pytest.raises(UserError, match='window') as caught:
        run(tmp_path, option)
    assert 'Beta' not in str(caught.value) and 'Gamma' not in str(caught.value)


def test_a_second_run_reads_only_what_is_new(tmp_path, source, monkeypatch):
    dataset = run(tmp_path)
    first = {name: set(dataset.load(name)['id']) for name in dataset.splits}
    folder = source / 'ward7' / 'DOE_8'
    folder.mkdir()
    ct_files.save(ct_files.dicom(stored(8, 0), PatientID='MRN-778', SeriesInstanceUID='1.2.3.4.8'),
                  folder / '0.dcm')
    with (tmp_path / 'labels.csv').open('a') as file:
        file.write('\nMRN-778,1')
    original, names = dicom.read_series, []
    monkeypatch.setattr(dicom, 'read_series', lambda series, note: (
        names.extend(header.path.parent.name for header in series.files),
        original(series, note=note))[1])
    second = run(tmp_path)
    assert names == ['DOE_8']
    assert sum(counts['images'] for counts in second.info['splits'].values()) == 25
    for name in first:
        assert first[name] <= set(second.load(name)['id'])


def test_volumes_and_arrays_beside_each_other(tmp_path):
    (tmp_path / 'source').mkdir()
    lines = ['file,patient,bleed']
    for number in range(6):
        values, affine = ct_files.volume()
        values[0, 0, 0] = number
        ct_files.nifti(values, affine, tmp_path / 'source' / f'v{number}.nii.gz')
        np.save(tmp_path / 'source' / f'a{number}.npy',
                np.random.default_rng(number).normal(40, 30, (2, 20, 20)))
        lines += [f'{file},p{number},{number % 2}'
                  for file in (f'v{number}.nii.gz', f'a{number}.npy')]
    (tmp_path / 'labels.csv').write_text('\n'.join(lines))
    # One mutated voxel does not make the other slices of a volume differ.
    with pytest.raises(UserError, match='have the same pixels in two splits'):
        run(tmp_path)
    for number in range(6):
        values, affine = ct_files.volume()
        values = np.roll(values, number, 0)
        ct_files.nifti(values, affine, tmp_path / 'source' / f'v{number}.nii.gz')
    dataset = run(tmp_path)
    assert sum(counts['images'] for counts in dataset.info['splits'].values()) == 6 * (4 + 2)


def test_rows_without_images_are_remarked(tmp_path, source):
    with (tmp_path / 'labels.csv').open('a') as file:
        file.write('\nMRN-999,1')
    notes = run(tmp_path).info['notes']
    assert {'source': '', 'remark': 'of 9 rows of the label file, 1 have no image here.'} in notes


def test_as_many_windows_as_channels(tmp_path, source):
    with pytest.raises(UserError, match='HU go through 1 windows where channels is 3'):
        run(tmp_path, '--channels=3')
    assert not (tmp_path / 'out').exists()


def test_the_private_table_stays_outside(tmp_path, source):
    with pytest.raises(UserError, match='lies inside --out'):
        run(tmp_path, f'--mapping={tmp_path / "out" / "names.json"}')
