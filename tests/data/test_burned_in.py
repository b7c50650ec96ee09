"""A data set whose files do not tell of burned-in text says so once, and stays usable."""

import ct_files
import numpy as np
import pytest
from PIL import Image

from repdiff import prepare
from repdiff.data import records

ASKED = 'look at the contact sheet for burned-in text'


def save(kind, path, number):
    if kind == 'pictures':
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24), np.uint8)
        Image.fromarray(pixels).save(path)
    else:
        ct_files.save(ct_files.dicom(
            ct_files.random_picture(number, (24, 24)), PatientID=f'p{number}',
            SeriesInstanceUID=f'1.2.{number}',
            BurnedInAnnotation='NO' if kind == 'told' else None), path)


@pytest.mark.parametrize(('kind', 'remarks'), [
    ('told', []),
    ('untold', [f'does not say whether text is burned in (40 DICOM files in all): {ASKED}']),
    ('pictures', [f'no picture says whether text is burned in (40 in all): {ASKED}']),
])
def test_one_remark_which_strict_runs_and_later_runs_keep(tmp_path, capsys, kind, remarks):
    (tmp_path / 'source').mkdir()
    lines = ['file,patient,label,split']
    for number in range(40):
        name = f'{number:02}.{"png" if kind == "pictures" else "dcm"}'
        save(kind, tmp_path / 'source' / name, number)
        lines.append(f'{name},p{number},{number % 2},{("train", "valid", "test")[number // 2 % 3]}')
    (tmp_path / 'source' / 'labels.csv').write_text('\n'.join(lines))
    for _ in range(2):
        prepare.main([f'--source={tmp_path / "source"}', f'--out={tmp_path / "out"}',
                      f'--salt-file={tmp_path / "salt"}', '--image-size=24', '--processes=1',
                      '--split-column=split', '--strict'])
        notes = records.open(tmp_path / 'out').info['notes']
        assert [note['remark'] for note in notes] == remarks
    said = capsys.readouterr().err
    assert said.count('reading DICOM headers: 40/40 100%') == (kind != 'pictures')
