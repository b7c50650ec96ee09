"""Predicting from a workdir alone: every kind of file, bad ones, resuming, and what must not leak."""

import csv
import json
import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid

from repdiff import (
    config,
    early_stop,
    experiment,
    explain,
    finished,
    predict,
    predictions,
    sharding,
)
from repdiff.errors import UserError

SIZE = 32


def tiny(cache):
    """A config of a few steps on a few simulated slices, with a row of prototypes."""
    made = config.base()
    made.update({
        'cache': str(cache),
        'data': {'image_size': SIZE, 'simulated': {
            'pretrain': 32, 'train': 32, 'valid': 48, 'test': 24, 'positive_rate': 0.4}},
        'latents': {'patch': 8, 'channels': 16, 'fit_images': 32},
        'model': {'width': 32, 'depth': 1, 'heads': 2, 'unroll': False},
        'pretrain': {'steps': 3, 'batch': 16, 'warmup_steps': 1, 'checkpoint_every': 3},
        'tune': {'steps': 3, 'batch': 16, 'warmup_steps': 1, 'checkpoint_every': 3},
        'classify': {'t': (25, 75), 'draws': 1, 'budget': 16, 'min_draws': 8, 'batch': 16,
                     'passes': 64},
        'evidence': {'draws': 4, 'flips': 50, 'images': 4, 'smooth': 1.0},
        'eval': {'bootstrap': 20},
        'rows': ('rc_ldt', 'rc_ldt_prototypes'),
    })
    return made


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A finished workdir whose data set and cache are gone."""
    root = tmp_path_factory.mktemp('predict')
    experiment.run(tiny(root / 'cache'), root / 'workdir')
    shutil.rmtree(root / 'cache')
    return root / 'workdir'


@pytest.fixture(scope='module')
def files(run, tmp_path_factory):
    """A folder of a patient's files: pictures, a DICOM, a NIfTI volume, and some that are none."""
    import nibabel
    folder = tmp_path_factory.mktemp('files')
    with np.load(run / 'report' / 'samples.npz') as kept:
        images = kept['images']
    for i in range(3):
        Image.fromarray(images[i]).save(folder / f'DOE_JANE_{i}.png')
    hu = (images[3].astype(float) / 255 * 80 + 1024).astype('<u2')
    _dicom(hu, folder / 'scan.dcm')
    volume = np.stack([images[4], images[5]], -1).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.5, -0.5, 5.0, 1.0])),
                 folder / 'volume.nii.gz')
    (folder / 'broken.png').write_bytes(b'\x89PNG broken')
    (folder / 'notes.txt').write_text('no image')
    return folder


def _dicom(stored, path):
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.CTImageStorage, '1.2.3.4.5'
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = '1.2.3.4', '1.2.3'
    dataset.Modality, dataset.ImageType = 'CT', ['ORIGINAL', 'PRIMARY', 'AXIAL']
    dataset.PatientName, dataset.PatientID = 'DOE^JANE', 'MRN-771034'
    dataset.InstanceNumber, dataset.BurnedInAnnotation = 1, 'NO'
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient, dataset.PixelSpacing = [0, 0, 40], [0.5, 0.5]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, 'MONOCHROME2'
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = stored.tobytes()
    dataset['PixelData'].VR = 'OW'
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def call(run, out, *arguments):
    """The exit code, the table's rows and the JSON of a prediction."""
    salt = run / 'salt'
    salt.write_text('00' * 32)
    code = predict.main(['--workdir', str(run), '--out', str(out), '--salt-file', str(salt),
                         *map(str, arguments)])
    with open(out / 'predictions.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    return code, rows, json.loads((out / 'predictions.json').read_text())


def untimed(rows):
    return [{key: value for key, value in row.items() if key != 'seconds'} for row in rows]


@pytest.fixture(scope='module')
def whole(run, files, tmp_path_factory):
    """The folder predicted at once."""
    out = tmp_path_factory.mktemp('whole') / 'out'
    return out, *call(run, out, files)


def test_every_kind_of_file_is_answered_and_the_bad_ones_are_told(whole):
    out, code, rows, told = whole
    assert code == 1  # two files could not be read
    assert len(rows) == 6 and len(told['images']) == 6
    for row, image in zip(rows, told['images'], strict=True):
        assert 0 <= float(row['score']) <= 1 and row['class'] in ('no hematoma', 'hematoma')
        assert int(row['prediction']) == (float(row['score']) >= told['model']['threshold'])
        assert 8 <= int(row['draws']) <= 16 and float(row['seconds']) > 0
        assert Image.open(out / row['overlay']).size[0] >= 640
        assert 'no medical device' in row['notice'] and image['probabilities'][1] > 0
    assert 'no medical device' in told['notice']
    assert [row['number'] for row in rows[-2:]] == ['1', '2']  # slices of the volume
    assert len(told['refused']) == 2
    assert all(item['reason'].endswith('.') for item in told['refused'])


def test_names_and_persons_stay_out_of_everything_that_is_written(whole):
    out = whole[0]
    written = b''.join(path.read_bytes() for path in out.rglob('*') if path.is_file())
    for secret in (b'DOE', b'JANE', b'MRN-771034', b'scan.dcm', b'volume', b'broken', b'notes'):
        assert secret not in written
    assert whole[2][0]['file'].startswith('file-')


def test_the_same_again_and_what_is_there_is_not_done_again(run, whole, files, monkeypatch):
    out, _, rows, _ = whole
    monkeypatch.setattr(finished.Desk, 'answer', lambda *_: pytest.fail('answered again'))
    code, again, _ = call(run, out, files, '--keep-names')
    assert code == 1 and [row['score'] for row in again] == [row['score'] for row in rows]
    assert again[0]['file'].endswith('/DOE_JANE_0.png')  # the owner's wish


def test_a_killed_prediction_goes_on_and_ends_with_the_same_answers(
        run, whole, files, tmp_path, monkeypatch):
    """Killed after two images, in the middle of a line; without neighbours in the batch."""
    monkeypatch.setattr(predict, '_AT_ONCE', 2)
    kept = predictions.Ledger.add

    def killed(self, answers):
        kept(self, answers)
        with open(self._path, 'a') as file:
            file.write('{"content": "torn')
        raise KeyboardInterrupt

    monkeypatch.setattr(predictions.Ledger, 'add', killed)
    with pytest.raises(KeyboardInterrupt):
        call(run, tmp_path / 'out', files)
    monkeypatch.setattr(predictions.Ledger, 'add', kept)
    _, rows, _ = call(run, tmp_path / 'out', files)
    assert untimed(rows) == untimed(whole[2])
    lines = (tmp_path / 'out' / 'predictions.jsonl').read_text().splitlines()
    assert len({json.loads(line)['content'] for line in lines}) == len(lines) == 6


def test_an_image_from_elsewhere_is_called_far(run, whole, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (SIZE, SIZE), np.uint8)).save(tmp_path / 'noise.png')
    Image.fromarray(np.zeros((SIZE, SIZE), np.uint8)).save(tmp_path / 'black.png')
    code, rows, told = call(run, tmp_path / 'out', tmp_path / 'noise.png', tmp_path / 'black.png',
                            '--no-overlays')
    assert code == 0 and [row['argument'] for row in rows] == ['1', '2']
    assert all('far from the training data' in row['remark'] for row in rows)
    assert all(row['overlay'] == '' for row in rows)
    assert sum(row['remark'] != '' for row in whole[2][:3]) <= 1  # training slices are not


def test_prototypes_are_a_row_like_any_other(run, files, tmp_path):
    results = json.loads((run / 'results.json').read_text())
    row = next(row for row in results['models'] if row['name'] == 'rc_ldt_prototypes')
    assert 0 <= row['auroc'] <= 1 and row['tune_step'] == 0
    assert not (run / 'checkpoints' / 'rc_ldt_prototypes.pretrain').exists()  # it is rc_ldt's
    code, rows, told = call(run, tmp_path / 'out', files / 'DOE_JANE_0.png', '--no-overlays',
                            '--row=rc_ldt_prototypes')
    assert code == 0 and told['model']['row'] == 'rc_ldt_prototypes' and len(rows) == 1


@pytest.mark.parametrize('arguments, words', [
    (['--workdir=/nowhere', 'x.png'], "'/nowhere' has no config.json"),
    (['x.png'], 'required: --workdir'),
    (['--workdir=RUN', '--row=nobody', 'x.png'], "no row 'nobody'; it has rc_ldt"),
    (['--workdir=RUN', '--window=brian', 'x.png'], "window 'brian' is neither a preset"),
    (['--workdir=RUN', '--out=/proc/no', 'x.png'], "'/proc/no/predictions.csv' cannot be written"),
])
def test_bad_options_are_one_sentence(run, arguments, words):
    with pytest.raises(UserError, match='.') as error:
        predict.main([argument.replace('RUN', str(run)) for argument in arguments])
    assert words in str(error.value) and str(error.value).count('\n') == 0


def test_a_row_that_does_not_denoise_is_refused(run, tmp_path):
    config = json.loads((run / 'config.json').read_text())
    config['rows'].append('vit')
    (tmp_path / 'config.json').write_text(json.dumps(config))
    shutil.copy(run / 'preparation.json', tmp_path)
    with pytest.raises(UserError, match="'vit' is no denoiser .*; choose a row that denoises"):
        predict.main(['--workdir', str(tmp_path), '--row=vit', 'x.png'])


def test_an_output_of_another_model_is_refused_and_missing_files_are_told(
        run, whole, tmp_path, capsys):
    with pytest.raises(UserError, match='another model'):
        call(run, whole[0], '--row=rc_ldt_prototypes', 'x.png')
    code, rows, told = call(run, tmp_path / 'out', tmp_path / 'none.png')
    assert code == 1 and rows == [] and 'is neither a file nor a folder' in capsys.readouterr().err
    assert len(told['refused']) == 1


def test_the_run_shows_its_evidence(run):
    results = json.loads((run / 'results.json').read_text())
    assert results['evidence']['row'] == 'rc_ldt'
    assert set(results['evidence']['localisation']) == {'pointing', 'dice', 'dice_at_lesion_size'}
    for name in ('evidence', 'counterfactuals', 'localisation'):
        assert (run / 'report' / 'figures' / f'{name}.png').stat().st_size > 2000


def test_maps_do_not_depend_on_their_neighbours(run):
    row = finished.load(run, '', sharding.make_mesh(-1, 1, 1))
    explainer = explain.Explainer(row)
    rng = np.random.default_rng(0)
    found = [{'image': rng.integers(0, 256, (SIZE, SIZE, 1), np.uint8), 'id': f'{i}'}
             for i in range(3)]
    pairs = np.tile([1, 0], (3, 1))
    together = explainer.maps(found, pairs)
    alone = explainer.maps(found[2:], pairs[2:])[0]
    np.testing.assert_allclose(together[2].mean, alone.mean, atol=1e-9)
    np.testing.assert_array_equal(together[2].shown, alone.shown)


def test_early_stop_is_measured_on_a_finished_run(run, tmp_path, capsys):
    workdir = tmp_path / 'workdir'
    shutil.copytree(run, workdir)
    found = []
    for _ in range(2):
        early_stop.main([f'--workdir={workdir}', '--images=10', '--budget=32'])
        found.append(json.loads((workdir / 'report' / 'early_stop.json').read_text())['rc_ldt'])
    assert found[0]['curves'] == found[1]['curves']
    assert (found[0]['images'], found[0]['budget'], found[0]['timed']) == (10, 32, 10)
    for point in found[0]['curves']['fixed']:
        assert point['cost'] == point['draws'] / 32
    careful, bold = (found[0]['curves'][kind][-1] for kind in ('sequential', 'uncorrected'))
    assert careful['cost'] >= bold['cost']  # the more looks are paid for, the later the stop
    assert careful['cost'] < 1 or careful['agreement'] == 1
    assert 'by the clock, 10 images' in capsys.readouterr().out
    assert (workdir / 'report' / 'figures' / 'early_stop.png').stat().st_size > 2000


@pytest.mark.parametrize('option', ['--images=0', '--budget=0', '--row=vit'])
def test_early_stop_refuses_what_it_cannot_measure(run, option, capsys):
    with pytest.raises(SystemExit) as stopped:
        early_stop.main([f'--workdir={run}', option])
    name = option.partition('=')[0].strip('-')
    assert stopped.value.code == 2 and name in capsys.readouterr().err
