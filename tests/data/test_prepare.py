"""The prepare command: pictures and a CSV to a data set, and a sentence for each bad input."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from picture_source import edit, make_source, patients_of, run

from repdiff import prepare
from repdiff.errors import UserError


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / 'source')


def test_everything_is_accounted_for(tmp_path, source):
    dataset = run(tmp_path)
    loaded = {name: dataset.load(name) for name in dataset.splits}
    assert sum(len(split['label']) for split in loaded.values()) == 24
    assert sum(split['label'].sum() for split in loaded.values()) == 6
    assert {name: (counts['patients'], counts['positives'])
            for name, counts in dataset.info['splits'].items()} == {
        'train': (6, 3), 'valid': (4, 2), 'test': (2, 1)}
    assert dataset.info['classes'] == ['no label', 'label']
    assert loaded['train']['image'].shape[1:] == (16, 16, 1)
    assert sorted(os.listdir(tmp_path)) == ['out', 'salt', 'source']


def test_exact_pixels_without_resizing(tmp_path, source):
    dataset = run(tmp_path, '--image-size=24', '--keep-names')
    got = {record['id']: record['image'][..., 0]
           for name in dataset.splits for record in dataset.split(name)}
    for path in (source / 'slices').iterdir():
        np.testing.assert_array_equal(got[f'slices/{path.name}'], np.asarray(Image.open(path)))


def test_a_patient_is_in_one_split_and_each_split_has_both_classes(tmp_path, source):
    dataset = run(tmp_path)
    groups = list(patients_of(dataset).values())
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    assert all(counts['per_class'][1] > 0 for counts in dataset.info['splits'].values())


def test_no_name_reaches_the_data_set(tmp_path, source):
    run(tmp_path)
    for path in (tmp_path / 'out').rglob('*'):
        if path.is_file():
            content = path.read_bytes()
            for name in (b'Secret', b'Clinic', b'00_0', str(source).encode()):
                assert name not in content, path


def test_split_column_stands(tmp_path, source):
    dataset = run(tmp_path, '--split-column=split', '--keep-names')
    assert patients_of(dataset) == {
        name: {f'Secret{2 * pair + k:02}' for pair in (place, place + 3) for k in (0, 1)}
        for place, name in enumerate(('train', 'valid', 'test'))}


def test_facilities_are_pretrained_on(tmp_path, source):
    edit(source, lambda lines: [lines[0], *(
        line.replace('Clinic1', 'Clinic0') for line in lines[1:])])
    dataset = run(tmp_path, '--downstream-facilities=Clinic0', '--keep-names')
    assert set(dataset.load('pretrain')['facility']) == {'Clinic2'}
    for name in ('train', 'valid', 'test'):
        assert set(dataset.load(name)['facility']) == {'Clinic0'}


def test_rules_make_labels_and_keep_markers(tmp_path, source):
    dataset = run(tmp_path, '--label=bleed = a | b')
    loaded = dataset.load('train')
    assert dataset.info['markers'] == ['a', 'b'] and dataset.info['classes'][1] == 'bleed'
    np.testing.assert_array_equal(loaded['markers'].max(1), loaded['label'])


def test_classes_by_name(tmp_path, source):
    dataset = run(tmp_path, '--label=facility', '--classes=auto',
                  '--fractions=train=0.4,valid=0.3,test=0.3')
    assert dataset.info['classes'] == ['Clinic0', 'Clinic1', 'Clinic2']


def test_patients_without_labels_are_pretrained_on(tmp_path, source):
    edit(source, lambda lines: [
        line.replace(',0,0,0,', ',,0,0,').replace(',1,0,1,', ',,0,1,').replace(',0,1,0,', ',,1,0,')
        if line.split(',')[1] < 'Secret04' else line for line in lines])
    dataset = run(tmp_path, '--keep-names')
    assert patients_of(dataset)['pretrain'] == {'Secret00', 'Secret01', 'Secret02', 'Secret03'}


def test_several_processes_give_the_same_data_set(tmp_path):
    make_source(tmp_path / 'source', patients=90)
    one = run(tmp_path)
    two = run(tmp_path, '--processes=2', out='other')
    assert one.info['fingerprint'] == two.info['fingerprint']


def test_skipped_files_are_listed_or_errors(tmp_path, source):
    (source / 'slices' / '00_0.png').write_bytes(b'broken')
    (source / 'notes.txt').write_text('of no use')
    dataset = run(tmp_path)
    reasons = [item['reason'] for item in dataset.info['skipped']]
    assert len(reasons) == 2 and any('not a readable picture' in reason for reason in reasons)
    assert sum(counts['images'] for counts in dataset.info['splits'].values()) == 23
    with pytest.raises(UserError, match="'file-[0-9a-f]{16}' is not a readable picture"):
        run(tmp_path, '--strict')


def test_what_is_no_file_to_read_is_listed_too(tmp_path, source):
    (source / '.DS_Store').write_bytes(b'of the system')
    (source / '.trash').mkdir()
    (source / '.trash' / '9.png').write_bytes((source / 'slices' / '00_0.png').read_bytes())
    assert reasons(run(tmp_path, '--strict')) == 2 * ['is hidden: its name begins with a dot.']
    (tmp_path / 'elsewhere').mkdir()
    (source / 'more').symlink_to(tmp_path / 'elsewhere')
    os.mkfifo(source / 'pipe.png')
    assert reasons(run(tmp_path)) == [
        'is a link to a directory; give that itself.',
        *2 * ['is hidden: its name begins with a dot.'], 'is no file that can be read.']
    with pytest.raises(UserError, match="file 'file-[0-9a-f]{16}' is a link to a directory"):
        run(tmp_path, '--strict')


def reasons(dataset):
    return sorted(item['reason'] for item in dataset.info['skipped'])


@pytest.mark.parametrize(('change', 'options', 'words'), [
    (lambda line: line.replace('00_0.png,Secret00,Clinic0,0,', '00_0.png,Secret00,Clinic0,,'), (),
     "'file-[0-9a-f]{16}' has no label, which (train|valid|test) needs"),
    (lambda line: line.removesuffix('train') if '00_0' in line else line, ('--split-column=split',),
     "'file-[0-9a-f]{16}' has no split in the label file")])
def test_strict_refuses_a_slice_of_no_use(tmp_path, source, change, options, words):
    (source / 'README.md').write_text('of another kind')
    options = ('--label=label', *options)
    run(tmp_path, *options, '--strict')
    edit(source, lambda lines: list(map(change, lines)))
    assert len(run(tmp_path, *options).info['skipped']) == 2
    with pytest.raises(UserError, match=words):
        run(tmp_path, *options, '--strict')


def test_strict_pretrains_on_patients_without_labels(tmp_path, source):
    edit(source, lambda lines: [
        line.replace(',0,0,0,', ',,0,0,').replace(',0,1,0,', ',,1,0,')
        if 'Secret00' in line else line for line in lines])
    assert run(tmp_path, '--strict').info['splits']['pretrain']['patients'] == 1


def drop_column(name):
    def change(lines):
        at = lines[0].split(',').index(name)
        return [','.join(cell for i, cell in enumerate(line.split(',')) if i != at)
                for line in lines]
    return change


@pytest.mark.parametrize(('change', 'options', 'words'), [
    (drop_column('patient'), (), "no column 'patient'.*its columns are 'file', 'facility'"),
    (drop_column('file'), (), "no column 'file' or 'id', give .*--config.data.key_column .prepare: "
     "--key-column.*its columns are 'patient'"),
    (drop_column('label'), (), 'has no label column label, class, hematoma, hemorrhage; name one'),
    (drop_column('label'), ('--label=label',), "has no column 'label'; its columns are 'file'"),
    (lambda lines: [*lines, 'slices/x.png,P,C,0,0,0,train'], (),
     'row 26 of .* names a file that is not in'),
    (lambda lines: [lines[0], '', *lines[1:], 'slices/x.png,P,C,0,0,0,train'], (),
     'row 27 of .* names a file that is not in'),
    (lambda lines: [*lines, lines[1]], (), "row 26 of .* repeats the name of row 2"),
    (lambda lines: [*lines[:-1], lines[-1].replace('test', 'train')], ('--split-column=split',),
     'rows 24 and 25 of .* put one patient into two splits, test and train'),
    (lambda lines: [line.replace(',1,0,1,', ',0,0,1,') for line in lines], (),
     "has no example of class 'label'"),
    (lambda lines: [line.replace('train', 'practice') for line in lines], ('--split-column=split',),
     "row 2 of .* has no split in 'split'; use pretrain, train, valid or test"),
    (lambda lines: [lines[0], *(line.replace('Clinic0,0', 'Clinic0,Secret') for line in lines[1:])],
     (), "row 2 of .* is neither 0 nor 1 in 'label'; mend it"),
    (lambda lines: [lines[0], *(line.replace('Clinic0,0', 'Clinic0,Secret') for line in lines[1:])],
     ('--classes=0,1',), "row 2 of .* has none of the classes 0, 1 in 'label'"),
    (lambda lines: lines[1:], (), 'its first row seems to hold values where the names'),
    (lambda lines: [line.replace('file,patient', 'Secret,Secret') for line in lines], (),
     'columns 1 and 2 of .* have the same name'),
    (lambda lines: lines[:1], (), 'has no rows below its header'),
    (lambda lines: lines[:-1], ('--strict',), "'file-[0-9a-f]{16}' has no row in the label file"),
    (lambda lines: lines, ('--labels=nowhere.csv',), "cannot read the label file 'nowhere.csv'"),
    (lambda lines: lines, ('--downstream-facilities=Clinic7', '--keep-names'),
     "'Clinic7' has no images; the facilities are 'Clinic0', 'Clinic1'"),
    (lambda lines: lines, ('--fractions=train=1.5',), 'sum to 1'),
    (lambda lines: lines, ('--fractions=train',), 'should be like train=0.7'),
    (lambda lines: lines, ('--window=brian',), "window 'brian' is neither a preset"),
    (lambda lines: lines, ('--image-size=big',), 'invalid int value'),
    (lambda lines: lines, ('--crop',), 'crop needs the head mask'),
    (lambda lines: lines, ('--processes=0',), '--processes is 0'),
    (lambda lines: lines, ('--colour=Saint',), 'unrecognized arguments: --colour; see'),
    (lambda lines: lines, ('Elsewhere=bone',), '^a word stands by itself; quote a value that has'),
    (lambda lines: lines, ('--source=/nowhere',), "^source '/nowhere' is neither a file nor a dir"),
    (lambda lines: lines, ('--source=/nowhere/at/all',), 'is neither a file nor a directory'),
])
def test_bad_input_is_one_sentence(tmp_path, source, change, options, words):
    edit(source, change)
    with pytest.raises(UserError, match=words) as caught:
        run(tmp_path, *options)
    said = str(caught.value)
    assert '\n' not in said and not (tmp_path / 'out').exists()
    if '--keep-names' not in options:
        assert not [name for name in ('Secret', 'Clinic', 'slices/', '00_0') if name in said]


def test_same_pixels_in_two_splits(tmp_path, source):
    (source / 'slices' / '02_0.png').write_bytes((source / 'slices' / '00_0.png').read_bytes())
    with pytest.raises(UserError, match="'file-.*' .train. and 'file-.*' .valid.") as caught:
        run(tmp_path, '--split-column=split', f'--mapping={tmp_path / "private.json"}')
    names = json.loads((tmp_path / 'private.json').read_text())
    assert [names[each] for each in re.findall("'(file-[0-9a-f]{16})'", str(caught.value))] == [
        'slices/00_0.png', 'slices/02_0.png']


def test_the_page_tells_it_all(tmp_path, source):
    (source / 'slices' / '00_0.png').write_bytes(b'broken')
    run(tmp_path, '--preview', '--head-mask')
    page = (tmp_path / 'out' / 'prepare.html').read_text()
    assert page.count('<img src="data:image/png;base64,') == 1 + 6  # pairs, 3 splits x 2 classes
    assert 'is not a readable picture' in page and '12 patients' in page
    assert 'in at most 200 stored pictures a\nclass' in page
    assert '://' not in page and 'Secret' not in page


def test_a_directory_of_something_else_is_left_alone(tmp_path, source):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'thesis.txt').write_text('precious')
    with pytest.raises(UserError, match='exists and is no prepared data set'):
        run(tmp_path)
    assert (tmp_path / 'out' / 'thesis.txt').read_text() == 'precious'


def test_out_inside_the_source(tmp_path, source):
    with pytest.raises(UserError, match='lies inside the source'):
        run(tmp_path, out='source/out')


def test_the_command_says_it_in_one_line(tmp_path):
    done = subprocess.run([sys.executable, '-m', 'repdiff.prepare', '--source', str(tmp_path)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ('repdiff: the following arguments are required: --out; '
                           'see python -m repdiff.prepare --help.\n')


def test_the_help_says_what_is_not_looked_for():
    said = ' '.join(prepare.parser().format_help().split())
    assert 'Text burned in over the head is neither seen nor removed' in said
