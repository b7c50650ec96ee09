"""Settings to data sets: simulated, of files, of TFDS; made once and cached."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from repdiff import config as configs
from repdiff import experiment, finished, prepare
from repdiff.data import phantom, png, records, sources
from repdiff.errors import UserError


def make_settings(source, **changes):
    return sources.DataSettings(**{
        'name': 'made', 'source': str(source), 'files': (), 'labels': '', 'label_format': 'csv',
        'label': 'auto', 'classes': (), 'markers': (), 'key_column': 'auto',
        'patient_column': 'auto', 'facility_column': 'auto', 'split_column': '',
        'window_column': 'auto', 'image_size': 16, 'channels': 1, 'window': 'brain',
        'head_mask': False, 'crop': False, 'pretrain_facilities': (),
        'downstream_facilities': (), 'deidentify': True,
        'fractions': {'train': 0.5, 'valid': 0.25, 'test': 0.25}, 'seed': 0, 'simulated': None,
        **changes})


def simulated(**changes):
    simulation = phantom.Settings(image_size=16, pretrain=10, train=24, valid=24, test=24,
                                  slices_per_patient=4, positive_rate=0.3)
    return make_settings('simulated', simulated=simulation, **changes)


def make_pictures(root, patients=12):
    root.mkdir()
    lines = ['file,patient,hemorrhage']
    for patient in range(patients):
        pixels = np.random.default_rng(patient).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(root / f'{patient}.png')
        lines.append(f'{patient}.png,{patient},{patient % 2}')
    (root / 'labels.csv').write_text('\n'.join(lines))
    return root


def test_simulated(tmp_path):
    dataset = records.open(sources.ensure_prepared(simulated(), tmp_path))
    assert dataset.info['simulated'] and dataset.info['classes'] == ['no hematoma', 'hematoma']
    assert dataset.info['markers'] == list(phantom.MARKERS)
    assert {name: counts['images'] for name, counts in dataset.info['splits'].items()} == {
        'pretrain': 10, 'train': 24, 'valid': 24, 'test': 24}
    record = dataset.split('valid')[3]
    item = phantom.slice_at(simulated().simulated, 'valid', 3)
    low = item.window[0] - item.window[1] / 2
    grey = np.clip((item.pixels - low) / item.window[1], 0, 1) * 255
    assert np.abs(record['image'][..., 0] - grey).max() <= 0.51
    np.testing.assert_array_equal(record['mask'], item.mask)
    assert (record['id'], record['patient']) == (item.id, item.patient)
    assert record['markers'].tolist() == list(item.markers) and record['label'] == item.label


def test_slices_of_an_older_simulation_are_not_taken_from_the_cache(tmp_path, monkeypatch):
    first = sources.ensure_prepared(simulated(), tmp_path)
    assert sources.ensure_prepared(simulated(), tmp_path) == first
    monkeypatch.setattr(phantom, 'code_hash', lambda: 'of other code')
    assert sources.ensure_prepared(simulated(), tmp_path) != first


def test_prepared_once(tmp_path, monkeypatch):
    first = sources.ensure_prepared(simulated(), tmp_path)
    stamp = (first / 'prepare.json').stat().st_mtime_ns
    assert sources.ensure_prepared(simulated(), tmp_path) == first
    assert (first / 'prepare.json').stat().st_mtime_ns == stamp
    other = simulated()
    other = dataclasses.replace(other, simulated=dataclasses.replace(other.simulated, seed=1))
    assert sources.ensure_prepared(other, tmp_path) != first
    monkeypatch.chdir(tmp_path)  # wherever the command runs
    assert sources.ensure_prepared(simulated(), tmp_path) == first


def test_files_that_change_are_prepared_again(tmp_path):
    root = make_pictures(tmp_path / 'pictures')
    settings = make_settings(root)
    first = sources.ensure_prepared(settings, tmp_path / 'cache')
    assert sources.ensure_prepared(settings, tmp_path / 'cache') == first
    os.utime(root / '3.png', ns=(1, 1))
    second = sources.ensure_prepared(settings, tmp_path / 'cache')
    assert second != first
    with (root / 'labels.csv').open('a') as file:
        file.write('\n')
    assert sources.ensure_prepared(settings, tmp_path / 'cache') not in (first, second)


def test_added_patients_move_nobody(tmp_path):
    root = make_pictures(tmp_path / 'pictures')
    settings = make_settings(root)
    before = records.open(sources.ensure_prepared(settings, tmp_path / 'cache'))
    before = {name: set(before.load(name)['patient']) for name in before.splits}
    for patient in range(12, 40):
        pixels = np.random.default_rng(patient).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(root / f'{patient}.png')
        with (root / 'labels.csv').open('a') as file:
            file.write(f'\n{patient}.png,{patient},{patient % 2}')
    after = records.open(sources.ensure_prepared(settings, tmp_path / 'cache'))
    for name, patients in before.items():
        assert patients <= set(after.load(name)['patient'])
    assert {name: counts['patients'] for name, counts in after.info['splits'].items()} == {
        'train': 20, 'valid': 10, 'test': 10}


def test_the_same_content_has_one_fingerprint(tmp_path):
    one = make_settings(make_pictures(tmp_path / 'one'), deidentify=False)
    other = make_settings(make_pictures(tmp_path / 'other'), deidentify=False)
    assert len({records.open(sources.ensure_prepared(each, tmp_path / 'cache')).info['fingerprint']
                for each in (one, other)}) == 1


def test_splits_do_not_depend_on_the_salt(tmp_path):
    settings = make_settings(make_pictures(tmp_path / 'pictures'))
    loaded = [records.open(sources.ensure_prepared(settings, tmp_path / cache)).load('test')
              for cache in ('a', 'b')]
    assert (loaded[0]['patient'] != loaded[1]['patient']).all()
    np.testing.assert_array_equal(loaded[0]['image'], loaded[1]['image'])


def test_a_prepared_directory_is_taken_as_it_is(tmp_path):
    first = sources.ensure_prepared(simulated(), tmp_path / 'cache')
    assert sources.ensure_prepared(make_settings(first), tmp_path / 'other') == first
    assert not (tmp_path / 'other').exists()


@pytest.mark.parametrize('changes, has', [
    ({'image_size': 32, 'channels': 3}, {'image_size': 16, 'channels': 1}),
    ({'window': 'bone'}, {'window': 'subdural'}),
    ({'crop': True}, {'crop': False}),
])
def test_a_prepared_directory_of_other_images_is_refused_with_both_mends(tmp_path, changes, has):
    made = {'window': 'subdural', 'head_mask': True}
    first = sources.ensure_prepared(simulated(**made), tmp_path / 'cache')
    with pytest.raises(UserError) as refused:
        sources.ensure_prepared(make_settings(first, **made | changes), tmp_path / 'other')
    run = ' '.join(f'--config.data.{key}={value}' for key, value in has.items())
    options = {'image_size': '--image-size=32 --channels=3', 'window': '--window=bone',
               'crop': '--crop'}[next(iter(changes))]
    assert f'run with {run}, or prepare it again with {options}.' in str(refused.value)


def test_what_the_config_leaves_open_a_prepared_directory_decides(tmp_path):
    first = sources.ensure_prepared(simulated(window='subdural', head_mask=True), tmp_path)
    config = configs.base()
    config.data.source, config.data.image_size, config.cache = str(first), 16, str(tmp_path)
    prepared = finished.preparation(experiment.prepared(config).info)
    assert [prepared[key] for key in ('window', 'head_mask', 'crop')] == ['subdural', True, False]
    config.data.window = 'bone'
    with pytest.raises(UserError, match='has window subdural, but the config asks for window bone'):
        experiment.prepared(config)


def test_other_code_prepares_anew(tmp_path, monkeypatch):
    first = sources.ensure_prepared(simulated(), tmp_path / 'cache')
    monkeypatch.setattr(sources, 'FORMAT', sources.FORMAT + 1)
    assert sources.ensure_prepared(simulated(), tmp_path / 'cache') != first


def test_an_unreadable_image_stops_the_main_job(tmp_path):
    root = make_pictures(tmp_path / 'pictures')
    (root / '3.png').write_bytes(b'broken')
    with pytest.raises(UserError, match="file 'file-.*' is not a readable picture"):
        sources.ensure_prepared(make_settings(root), tmp_path / 'cache')
    assert os.listdir(tmp_path / 'cache') == ['salt']


class _Digits(tfds.core.GeneratorBasedBuilder):
    """Colour pictures of three classes in TFDS's usual splits."""

    name = 'digits'
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            'image': tfds.features.Image(shape=(12, 12, 3), encoding_format='png'),
            'label': tfds.features.ClassLabel(names=['a', 'b', 'c'])}))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(60), 'test': self._generate_examples(9)}

    def _generate_examples(self, count):
        for number in range(count):
            pixels = np.random.default_rng([count, number]).integers(0, 256, (12, 12, 3), np.uint8)
            yield number, {'image': png.encode_png(pixels), 'label': number % 3}


@pytest.fixture
def digits(tmp_path):
    builder = _Digits(data_dir=str(tmp_path / 'tfds'), file_format='array_record')
    builder.download_and_prepare()
    return f'tfds:{builder.data_dir}'


def test_tfds_keeps_its_test_split(tmp_path, digits):
    settings = make_settings(digits, channels=3, image_size=12,
                             fractions={'pretrain': 0.4, 'train': 0.3, 'valid': 0.2, 'test': 0.1})
    dataset = records.open(sources.ensure_prepared(settings, tmp_path / 'cache'))
    assert dataset.info['classes'] == ['a', 'b', 'c']
    counts = {name: counts['images'] for name, counts in dataset.info['splits'].items()}
    assert counts['test'] == 9 and sum(counts.values()) == 69
    assert abs(counts['pretrain'] - 60 * 0.4 / 0.9) <= 3
    wanted = {np.random.default_rng([9, number]).integers(0, 256, (12, 12, 3), np.uint8).tobytes():
              number % 3 for number in range(9)}
    loaded = dataset.load('test')
    assert wanted == {image.tobytes(): label for image, label
                      in zip(loaded['image'], loaded['label'], strict=True)}


def test_tfds_has_a_page(tmp_path, digits):
    prepare.main([f'--source={digits}', f'--out={tmp_path / "out"}', '--image-size=12',
                  '--channels=3', '--preview', '--processes=1'])
    page = (tmp_path / 'out' / 'prepare.html').read_text()
    assert page.count('<img src="data:image/png;base64,') == 1 + 4 * 3  # pairs, splits x classes
    assert '69 patients of one image each' in page


def test_tfds_in_another_format(tmp_path, digits):
    about = Path(digits.removeprefix('tfds:')) / 'dataset_info.json'
    about.write_text(about.read_text().replace('array_record', 'tfrecord'))
    with pytest.raises(UserError, match='is not on disk as array_record; it needs'):
        sources.ensure_prepared(make_settings(digits), tmp_path / 'cache')


@pytest.mark.parametrize('name', ['tfds:no_such_data_set', 'tfds:/nowhere'])
def test_unknown_tfds(tmp_path, name):
    with pytest.raises(UserError, match='is no data set that TFDS knows'):
        sources.ensure_prepared(make_settings(name), tmp_path)


@pytest.mark.parametrize(('changes', 'words'), [
    ({'image_size': 4}, 'image_size is 4'), ({'channels': 4}, 'channels is 4'),
    ({'window': 'brains'}, 'neither a preset'), ({'crop': True}, 'crop needs the head mask'),
    ({'source': 'simulated'}, 'needs the settings of the simulation'),
    ({'pretrain_facilities': ('1',)}, 'need downstream_facilities'),
    ({'fractions': {'train': 2.0}}, 'sum to 1')])
def test_settings_that_do_not_fit(changes, words):
    with pytest.raises(UserError, match=words):
        make_settings(**{'source': 'somewhere', **changes})
