"""A run over an earlier data set: reads what is new only, and moves nobody."""

import os

import numpy as np
import pytest
from picture_source import edit, make_source, patients_of, picture, run

from repdiff.data import earlier, pictures


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / 'source')


@pytest.fixture
def read_files(monkeypatch):
    """Names of the pictures that are read from now on."""
    names = []
    original = pictures.read

    def read(paths, *, root):
        names.extend(path.name for path in paths)
        return original(paths, root=root)

    monkeypatch.setattr(pictures, 'read', read)
    return names


def test_a_second_run_reads_nothing_and_changes_nothing(tmp_path, source, read_files):
    first = run(tmp_path)
    before = {name: first.load(name) for name in first.splits}
    assert len(read_files) == 24
    read_files.clear()
    second = run(tmp_path)
    assert read_files == [] and second.info['fingerprint'] == first.info['fingerprint']
    for name, columns in before.items():
        for key, column in second.load(name).items():
            np.testing.assert_array_equal(column, columns[key])


def test_a_second_run_reads_what_is_new_and_moves_nobody(tmp_path, source, read_files):
    before = {patient: name for name, group in patients_of(run(tmp_path)).items()
              for patient in group}
    make_source(source, patients=20)
    (source / 'slices' / '00_0.png').unlink()
    edit(source, lambda lines: [line for line in lines if '00_0' not in line])
    unchanged = set(read_files) - {'00_0.png'}
    for name in unchanged:
        os.utime(source / 'slices' / name, ns=(1, 1))
    run(tmp_path)
    read_files.clear()
    picture(source / 'slices' / '01_1.png', 999)
    picture(source / 'slices' / '20_0.png', 998)
    edit(source, lambda lines: [*lines, 'slices/20_0.png,Secret20,Clinic0,1,0,1,train'])
    dataset = run(tmp_path)
    assert sorted(read_files) == ['01_1.png', '20_0.png']
    after = {patient: name for name, group in patients_of(dataset).items() for patient in group}
    assert len(after) == 21 and before.items() <= after.items()
    assert sum(counts['images'] for counts in dataset.info['splits'].values()) == 40


def test_a_second_run_takes_new_labels_without_reading(tmp_path, source, read_files):
    run(tmp_path, '--label=label')
    read_files.clear()
    edit(source, lambda lines: [line.replace(',1,0,1,', ',1,0,0,').replace(',0,1,0,', ',1,1,1,')
                                for line in lines])
    dataset = run(tmp_path, '--label=label')
    assert read_files == []
    loaded = [dataset.load(name) for name in dataset.splits]
    assert sum(split['label'].sum() for split in loaded) == 18


@pytest.mark.parametrize('option', ['--seed=1', '--image-size=12', '--fractions=train=.6,valid=.2,'
                                    'test=.2', '--keep-names', '--head-mask'])
def test_other_settings_read_everything_again(tmp_path, source, read_files, option):
    run(tmp_path)
    read_files.clear()
    run(tmp_path, option)
    assert len(read_files) == 24


def test_other_code_reads_everything_again_and_moves_nobody(
        tmp_path, source, read_files, monkeypatch):
    before = {patient: name for name, group in patients_of(run(tmp_path)).items()
              for patient in group}
    make_source(source, patients=20)
    read_files.clear()
    monkeypatch.setattr(earlier, 'FORMAT', earlier.FORMAT + 1)
    groups = patients_of(run(tmp_path))
    assert len(read_files) == 40
    after = {patient: name for name, group in groups.items() for patient in group}
    assert len(after) == 20 and before.items() <= after.items()


def test_damaged_files_are_tried_again(tmp_path, source, read_files):
    whole = (source / 'slices' / '00_0.png').read_bytes()
    (source / 'slices' / '00_0.png').write_bytes(b'broken')
    assert len(run(tmp_path).info['skipped']) == 1
    read_files.clear()
    assert len(run(tmp_path).info['skipped']) == 1
    assert read_files == ['00_0.png']
    (source / 'slices' / '00_0.png').write_bytes(whole)
    assert run(tmp_path).info['skipped'] == []


def test_facilities_by_their_raw_names_though_hidden(tmp_path, source, read_files):
    for _ in range(2):  # the second time from the earlier data set
        dataset = run(tmp_path, '--downstream-facilities=Clinic0,Clinic1',
                      '--fractions=train=0.4,valid=0.3,test=0.3')
        assert len(set(dataset.load('pretrain')['facility'])) == 1
        assert dataset.info['splits']['pretrain']['patients'] == 4
    assert len(read_files) == 24
