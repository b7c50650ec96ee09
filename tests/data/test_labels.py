"""Label tables: rules, presets, names, and errors that say which row to mend."""

import itertools

import numpy as np
import pytest

from repdiff.data import labels, rule
from repdiff.data.slices import Slice
from repdiff.errors import UserError


def read(tmp_path, text, preset='csv', label='', classes=None, markers=(), **columns):
    (tmp_path / 'labels.csv').write_text(text)
    return labels.read(
        tmp_path / 'labels.csv',
        preset=preset,
        label=label,
        classes=classes,
        markers=markers,
        columns=labels.Columns(**columns),
    )


def a_slice(id='', source='', patient=''):
    pixels = np.zeros((16, 16), np.float32)
    return Slice(id, patient, '', pixels, 'hu', None, source=source)


# -- rules

@pytest.mark.parametrize('text, truth', [
    ('y = a | b & ~c', lambda a, b, c: a or (b and not c)),
    ('y = (a | b) & ~c', lambda a, b, c: (a or b) and not c),
    ('y = ~(a & b) | c & ~~a', lambda a, b, c: not (a and b) or (c and a)),
    ('y=a&b&c', lambda a, b, c: a and b and c),
])  # fmt: skip
def test_rules_agree_with_logic(text, truth):
    parsed = rule.parse(text)
    assert parsed.name == 'y' and set(parsed.markers) <= set('abc')
    for a, b, c in itertools.product((0, 1), repeat=3):
        assert parsed({'a': a, 'b': b, 'c': c}) == int(truth(a, b, c))


def test_an_unknown_marker_decides_nothing_that_others_decide():
    either, both = rule.parse('y = a | b'), rule.parse('y = a & ~b')
    assert either({'a': 1, 'b': None}) == 1 and either({'a': 0, 'b': None}) is None
    assert both({'a': 0, 'b': None}) == 0 and both({'a': 1, 'b': None}) is None


def test_a_column_alone_is_its_own_rule():
    parsed = rule.parse('hemorrhage')
    assert (parsed.name, parsed.markers) == ('hemorrhage', ('hemorrhage',))
    assert rule.parse('y = "blend sign" | b').markers == ('blend sign', 'b')


@pytest.mark.parametrize('text, words', [
    ('y = a |', 'the end where a column'), ('y = a b', "'b' where"), ('y = (a | b', 'never closes'),
    ('y = a || b', r"'\|' where a column"), ('y = a and b', "'and' where"), ('', 'the end'),
    ('a | b', 'no name'), ('y = x = a', 'one "="'), ('y = a + b', 'cannot be read'),
    ('y = __import__("os")', 'where'), ('y = ' + '(' * 5000 + 'a', 'at most 200'),
])  # fmt: skip
def test_bad_rules(text, words):
    with pytest.raises(UserError, match=words):
        rule.parse(text)


# -- plain CSV

MARKERS = 'file,who,where,set,hypodensities,blend_sign\n'


def test_markers_combine_into_one_label(tmp_path):
    table = read(
        tmp_path,
        MARKERS + 'a.png,p1,A,train,1,0\nsub/b.png,p2,B,val,0,0\nc.png,p3,A,,,\n',
        label='hematoma = hypodensities | blend_sign',
        key='file', patient='who', facility='where', split='set',
    )  # fmt: skip
    assert table.classes == ('no hematoma', 'hematoma')
    assert table.markers == ('hypodensities', 'blend_sign')
    a, b, c = (table.rows[name] for name in ('a.png', 'sub/b.png', 'c.png'))
    assert a == labels.Row('a.png', 1, (1, 0), 'p1', 'A', 'train')
    assert (b.label, b.split) == (0, 'valid')
    assert (c.label, c.markers, c.split) == (None, (-1, -1), None)


def test_multi_class_by_name_and_automatically(tmp_path):
    text = 'id,kind\n1,none\n2,stroke\n3,bleed\n4,\n'
    table = read(tmp_path, text, label='kind', classes=('none', 'bleed', 'stroke'), key='id')
    assert [row.label for row in table.rows.values()] == [0, 2, 1, None]
    table = read(tmp_path, text, label='kind', classes='auto', key='id')
    assert table.classes == ('bleed', 'none', 'stroke')
    with pytest.raises(UserError, match="row 3 .* has none of the classes none, bleed in 'kind'"):
        read(tmp_path, text, label='kind', classes=('none', 'bleed'), key='id')


def test_slices_are_found_by_id_path_and_stem(tmp_path):
    table = read(tmp_path, 'id,y\nslices/a.jpg,1\nb,0\n1.2.3,1\nv.nii.gz,0\nw#2,1\n',
                 label='y', key='id')  # fmt: skip
    assert table.find(a_slice(source='/data/x/slices/a.jpg')).label == 1
    assert table.find(a_slice(source='/data/other/a.jpg')) is None
    assert table.find(a_slice(source='/data/b.dcm')).key == 'b'
    assert table.find(a_slice(id='1.2.3', source='/data/IM0001')).key == '1.2.3'
    assert table.find(a_slice(id='s/v.nii.gz#7', source='/s/v.nii.gz')).key == 'v.nii.gz'
    assert table.find(a_slice(id='s/w.nii.gz#2', source='/s/w.nii.gz')).key == 'w#2'
    assert table.find(a_slice(id='s/w.nii.gz#3', source='/s/w.nii.gz')) is None


def test_patients_are_found_by_name_and_directory(tmp_path):
    table = read(tmp_path, 'who,y\nDOE,1\nROE,0\n', label='y', patient='who')
    assert table.of_patients
    assert table.find(a_slice(id='1.2', patient='DOE', source='/x/ROE/1.dcm')).key == 'DOE'
    assert table.find(a_slice(id='1.2', patient='7', source='/x/ROE/series/1.dcm')).key == 'ROE'
    assert table.find(a_slice(source='/x/ROE.nii.gz')).key == 'ROE'
    assert table.find(a_slice(source='/x/POE.nii.gz')) is None


@pytest.mark.parametrize('text, options, words', [
    ('', {}, 'is empty'),
    ('file,y\n', {}, 'no rows'),
    ('file;y\na;1\n', {}, 'semicolons'),
    ('file,y,y\na,1,1\n', {}, 'columns 2 and 3 of .* have the same name'),
    ('file,z\na,1\n', {}, "no column 'y'; its columns are 'file', 'z'"),
    ('name,y\na,1\n', {}, "no column 'file'"),
    ('file,y\na,1\nb,2\n', {}, "row 3 of .* is neither 0 nor 1 in 'y'"),
    ('file,y\na,1\n\nb,maybe\n', {}, "row 4 of .* is neither 0 nor 1 in 'y'"),
    ('file,y\na,1\na,0\n', {}, "row 3 of .* repeats the name of row 2;"),
    ('file,y\na,1\n,0\n', {}, "row 3 of .* has an empty 'file'"),
    ('file,y\na,1\nb\n', {}, 'row 3 of .* has 1 cells where the header has 2'),
    ('file,y\na,"1\n', {}, 'not a readable CSV'),
    ('file,y\na,1\n', {'split': 'y'}, "no split in 'y'; use pretrain"),
    ('file,y\na,1\n', {'key': ''}, 'need the column of file names'),
    ('file,y\na,1\n', {'preset': 'kaggle'}, 'unknown; there are csv, rsna'),
    ('file,y,z\na,1,0\n', {'label': 'l = y | z', 'classes': 'auto'}, 'one label column'),
])  # fmt: skip
def test_bad_tables_are_one_clear_sentence(tmp_path, text, options, words):
    with pytest.raises(UserError, match=words) as error:
        read(tmp_path, text, **({'label': 'y', 'key': 'file'} | options))
    assert '\n' not in str(error.value)


CELL = 'DOE^JANE 19500101'


@pytest.mark.parametrize('text, options', [
    (f'file,y\na,{CELL}\n', {}),
    (f'file,y\na,{CELL}\n', {'classes': ('no', 'yes')}),
    (f'file,y,set\na,1,{CELL}\n', {'split': 'set'}),
    (f'file,y,set\na,1,{CELL}\n', {'window': 'set'}),
    (f'file,y,m\na,1,{CELL}\n', {'markers': ('m',)}),
    (f'file,y\n{CELL},1\n{CELL},1\n', {}),
    (f'file,y\n{CELL},1,2\n', {}),
    (f'{CELL},1\nb,0\n', {}),
    (f'{CELL},{CELL}\nb,0\n', {}),
    (f'ID,Label\n{CELL},1\n', {'preset': 'rsna'}),
    (f'ID,Label\n{CELL}_a,1\n{CELL}_a,0\n', {'preset': 'rsna'}),
    (f'ID,Label\n{CELL}_a,1\nx_b,0\n', {'preset': 'rsna'}),
    (f'PatientNumber,SliceNumber,No_Hemorrhage\n{CELL},1,0\n', {'preset': 'ct_ich'}),
    (f'PatientNumber,SliceNumber,No_Hemorrhage\n1,{CELL},0\n', {'preset': 'ct_ich'}),
    (f'name,R1:ICH,R2:ICH,R3:ICH\nq,1,{CELL},0\n', {'preset': 'cq500'}),
])  # fmt: skip
def test_no_cell_is_quoted(tmp_path, text, options):
    with pytest.raises(UserError) as error:
        read(tmp_path, text, **({'label': 'y', 'key': 'file'} | options))
    said = str(error.value).replace(str(tmp_path), '')
    assert not [part for part in ('DOE', 'JANE', '1950') if part in said]


def test_a_repeated_patient_is_told_by_row_numbers(tmp_path):
    with pytest.raises(UserError, match='row 4 of .* repeats the name of row 2;') as error:
        read(tmp_path, 'patient,y\nMRN-771,1\nMRN-772,0\nMRN-771,0\n', label='y',
             patient='patient')  # fmt: skip
    assert 'MRN' not in str(error.value)


def test_missing_and_foreign_files(tmp_path):
    (tmp_path / 'labels.csv').write_bytes(b'file,y\n\xff\xfe,1\n')
    for path, words in ((tmp_path / 'none.csv', 'cannot read'), (tmp_path / 'labels.csv', 'UTF-8')):
        with pytest.raises(UserError, match=words):
            labels.read(path, preset='csv', label='y', classes=None, markers=(),
                        columns=labels.Columns(key='file'))  # fmt: skip


def test_a_byte_order_mark_and_quoted_line_breaks(tmp_path):
    table = read(tmp_path, '\ufefffile,y,remark\na,1,"two\nlines, one cell"\nb,0,\n',
                 label='y', key='file')  # fmt: skip
    assert [row.label for row in table.rows.values()] == [1, 0]


# -- public formats, on made-up rows

def test_rsna(tmp_path):
    kinds = ('epidural', 'subdural', 'any')
    lines = [f'ID_0a1_{kind},{value}' for kind, value in zip(kinds, '011')]
    lines += [f'ID_0b2_{kind},0' for kind in kinds] + ['ID_0a1_any,1']
    text = 'ID,Label\n' + '\n'.join(lines) + '\n'
    table = read(tmp_path, text, preset='rsna')
    assert table.classes == ('no hemorrhage', 'hemorrhage')
    assert table.find(a_slice(id='1.9', source='/rsna/ID_0a1.dcm')).label == 1
    assert table.find(a_slice(id='1.8', source='/rsna/ID_0b2.dcm')).label == 0
    table = read(tmp_path, text, preset='rsna', label='extra = epidural | subdural')
    assert table.rows['ID_0a1'].markers == (0, 1)
    with pytest.raises(UserError, match="row 8 .* contradicts an earlier row of its 'ID'"):
        read(tmp_path, text.replace('ID_0a1_any,1\n', 'ID_0a1_any,0\n', 2)
             .replace('ID_0a1_any,0', 'ID_0a1_any,1', 1), preset='rsna')  # fmt: skip
    with pytest.raises(UserError, match='no epidural, subdural for the image of row 9'):
        read(tmp_path, text + 'ID_0c3_any,0\n', preset='rsna')


def test_ct_ich(tmp_path):
    header = ('PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,'
              'Subdural,No_Hemorrhage,Fracture_Yes_No\n')  # fmt: skip
    text = header + '49,1,0,0,0,0,0,1,0\n49,14,0,1,0,0,0,0,0\n'
    table = read(tmp_path, text, preset='ct_ich')
    assert table.classes == ('no hemorrhage', 'hemorrhage')
    assert table.find(a_slice(source='/ct/Patients_CT/049/brain/1.jpg')).label == 0
    row = table.find(a_slice(id='049.nii#14', source='/ct/ct_scans/049.nii'))
    assert (row.label, row.patient) == (1, '049')
    table = read(tmp_path, text, preset='ct_ich', label='broken = Fracture_Yes_No')
    assert [row.label for row in set(table.rows.values())] == [0, 0]
    with pytest.raises(UserError, match="row 2 .* whole numbers in 'PatientN"):
        read(tmp_path, header + '49,x,0,0,0,0,0,1,0\n', preset='ct_ich')


def test_cq500_takes_the_majority_of_three(tmp_path):
    text = (
        'name,Category,R1:ICH,R1:SDH,R2:ICH,R2:SDH,R3:ICH,R3:SDH\n'
        'CQ500-CT-0,B1,1,0,0,0,1,0\nCQ500-CT-10,B1,0,1,0,1,1,0\n'
    )
    table = read(tmp_path, text, preset='cq500')
    assert table.of_patients
    folder = '/cq500/CQ500CT0 CQ500CT0/Unknown Study/CT Plain/CT000000.dcm'
    assert table.find(a_slice(id='1.2', source=folder)).label == 1
    assert table.find(a_slice(id='1.3', patient='CQ500-CT-10')).label == 0
    assert read(tmp_path, text, preset='cq500', label='SDH').rows['CQ500-CT-10'].label == 1
    with pytest.raises(UserError, match="no column 'R2:SDH'"):
        read(tmp_path, text.replace('R2:SDH', 'R2:EDH'), preset='cq500')
    with pytest.raises(UserError, match="row 3 .* 0 or 1 in each of 'R1:ICH'"):
        read(tmp_path, text.replace('B1,0,1', 'B1,?,1'), preset='cq500')
