"""Previews show slices as they are stored: labels' facility and window, nothing left out."""

import ct_files
import numpy as np
from PIL import Image

from repdiff import prepare
from repdiff.data import page, records

SPLITS = ('train', 'valid', 'test', 'train')  # of files 0 and 1, 2 and 3, ...
IDENTITY = np.diag([-1.0, -1.0, 5.0, 1.0])


def run(tmp_path, monkeypatch, *options):
    """The data set and the pairs of pictures that its page shows."""
    shown = []
    original = page.render
    monkeypatch.setattr(page, 'render', lambda spool, where, info, pairs: (
        shown.extend(pairs), original(spool, where, info, pairs))[1])
    prepare.main([f'--source={tmp_path / "source"}', f'--labels={tmp_path / "labels.csv"}',
                  f'--out={tmp_path / "out"}', f'--salt-file={tmp_path / "salt"}', '--label=bleed',
                  '--image-size=24', '--split-column=split', '--processes=1', '--preview',
                  *options])
    return records.open(tmp_path / 'out'), shown


def volumes(tmp_path, cells, header):
    """Six NIfTI volumes of one slice; `cells(number)` are their cells beyond the label."""
    (tmp_path / 'source').mkdir()
    lines = [f'file,patient,bleed,split,{header}']
    for number in range(6):
        values = np.random.default_rng(number).integers(-1000, 2000, (24, 24, 1)).astype(np.int16)
        ct_files.nifti(values, IDENTITY, tmp_path / 'source' / f'v{number}.nii.gz')
        lines.append(f'v{number}.nii.gz,p{number},{number % 2},{SPLITS[number // 2]},'
                     f'{cells(number)}')
    (tmp_path / 'labels.csv').write_text('\n'.join(lines))


def stored(dataset):
    return {record['image'].tobytes() for name in dataset.splits for record in dataset.split(name)}


def test_the_facility_of_a_row_decides_on_the_window(tmp_path, monkeypatch):
    volumes(tmp_path, lambda number: ('north', 'south')[number % 2], 'facility')
    dataset, shown = run(tmp_path, monkeypatch, '--window=north=bone,south=brain')
    assert {after.tobytes() for _, after in shown} == stored(dataset) and len(shown) == 6


def test_the_window_of_a_row_is_shown(tmp_path, monkeypatch):
    volumes(tmp_path, lambda number: ('bone', 'brain')[number % 2], 'window')
    dataset, shown = run(tmp_path, monkeypatch, '--window=subdural')
    assert {after.tobytes() for _, after in shown} == stored(dataset) and len(shown) == 6


def test_what_is_left_out_is_not_shown(tmp_path, monkeypatch):
    (tmp_path / 'source').mkdir()
    lines = ['file,patient,bleed,split']
    for number in range(7):
        shape = (24, 24, 3) if number == 6 else (24, 24)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, np.uint8)).save(
            tmp_path / 'source' / f'{number}.png')
        lines.append(f'{number}.png,p{number},{number % 2},{SPLITS[number // 2]}')
    (tmp_path / 'labels.csv').write_text('\n'.join(lines))
    dataset, shown = run(tmp_path, monkeypatch, '--channels=2')
    assert [item['reason'] for item in dataset.info['skipped']] == [
        'is in colour, which does not fit in two channels.']
    assert {after.tobytes() for _, after in shown} == stored(dataset) and len(shown) == 6
