"""Burned-in text: a check of the pixels, and one remark where files do not tell."""

import ct_files
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from repdiff import prepare
from repdiff.data import burned_in, phantom, records, windows

ASKED = ('look at the contact sheet for burned-in text, for the check of pixels does not see text '
         'over the head')
CORNERS = ((6, 6), (150, 6), (6, 234))  # of 256 pixels; no head-rest crosses them


@pytest.fixture(scope='module')
def slices():
    settings = phantom.Settings(image_size=256, pretrain=14, train=4, valid=0, test=0)
    return [*phantom.slices(settings, 'pretrain'), *phantom.slices(settings, 'train')]


def text(place, words='DOE JANE 1950', size=14, grey=255, side=256):
    """(side, side) uint8 with text on black."""
    picture = Image.new('L', (side, side))
    ImageDraw.Draw(picture).text(place, words, fill=grey, font=ImageFont.load_default(size))
    return np.asarray(picture)


def grey(item):
    return windows.apply(item.pixels, windows.parse('brain'))[..., 0]


def test_no_alarm_without_text(slices):
    rest = abs(np.hypot(np.mgrid[:256, :256][0] + 60, np.mgrid[:256, :256][1] - 128) - 308) < 2
    for item in slices:
        for pixels, unit in ((item.pixels, 'hu'), (grey(item), 'grey')):
            assert not burned_in.seen(pixels, unit)
            assert not burned_in.seen(np.where(rest, pixels.max(), pixels), unit)
    noise = np.random.default_rng(0).integers(0, 256, (3, 256, 256), np.uint8)
    assert not any(burned_in.seen(each, 'grey') for each in noise)


@pytest.mark.parametrize('corner', CORNERS)
@pytest.mark.parametrize('size', [10, 14, 20])
def test_text_in_a_corner_is_seen(slices, corner, size):
    """In HU as in grey, in colour, and at half the brightness where it is not small too."""
    item = slices[size % 9]
    drawn = text(corner, 'DOE JANE', size)
    assert burned_in.seen(np.maximum(item.pixels, drawn / 255 * 3000 - 1000), 'hu')
    for shown in (drawn, drawn // 2) if size > 10 else (drawn,):
        pixels = np.maximum(grey(item), shown)
        assert burned_in.seen(pixels, 'grey')
        assert burned_in.seen(np.stack([pixels, pixels, grey(item)], -1), 'grey')


def test_what_is_in_the_head_or_short_is_no_text(slices):
    item = slices[3]
    inside = text((90, 120), 'UOOU', 12) > 0
    assert not burned_in.seen(np.where(inside, 1500, item.pixels), 'hu')
    assert not burned_in.seen(np.maximum(grey(item), text((6, 6), 'L')), 'grey')
    assert burned_in.seen(text((40, 100)), 'grey')  # a page of text has no head


def save(kind, path, number):
    if kind == 'pictures':
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24), np.uint8)
        Image.fromarray(pixels).save(path)
    else:
        ct_files.save(ct_files.dicom(
            ct_files.random_picture(number, (24, 24)), PatientID=f'p{number}',
            SeriesInstanceUID=f'1.2.{number}',
            BurnedInAnnotation='NO' if kind == 'told' else None), path)


def run(tmp_path, lines, *options):
    (tmp_path / 'source' / 'labels.csv').write_text('\n'.join(lines))
    prepare.main([f'--source={tmp_path / "source"}', f'--out={tmp_path / "out"}',
                  f'--salt-file={tmp_path / "salt"}', '--image-size=24', '--processes=1',
                  '--split-column=split', '--strict', *options])
    return [note['remark'] for note in records.open(tmp_path / 'out').info['notes']]


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
    for _ in range(2):
        assert run(tmp_path, lines) == remarks
    said = capsys.readouterr().err
    assert said.count('reading DICOM headers: 40/40 100%') == (kind != 'pictures')


@pytest.mark.parametrize(('options', 'advice'), [
    ((), 'look at it before you share the data set'),
    (('--head-mask',), 'the head mask removes what lies beside the head, so look for more')])
def test_a_series_and_a_picture_with_text_are_remarked(tmp_path, slices, capsys, options, advice):
    (tmp_path / 'source').mkdir()
    lines = ['file,patient,label,split']
    for number in range(6):
        split = ('train', 'valid', 'test')[number // 2]
        lines.append(f's{number}.dcm,Ann-4711,1,train')
        hu = slices[number].pixels if number % 2 else np.maximum(
            slices[number].pixels, text((6, 6), 'DOE JANE') / 255 * 3000 - 1000)
        ct_files.save(ct_files.dicom(
            np.clip(hu + 1024, 0, 4095), InstanceNumber=number, PatientID='Ann-4711',
            ImagePositionPatient=[0, 0, number]), tmp_path / 'source' / f's{number}.dcm')
        lines.append(f'g{number}.png,p{number},{number % 2},{split}')
        Image.fromarray(np.maximum(grey(slices[9 + number]), text((6, 6), 'DOE JANE')
                                   * (number == 4))).save(tmp_path / 'source' / f'g{number}.png')
    for _ in range(2):
        remarks = [remark for remark in run(tmp_path, lines, *options)
                   if remark.startswith(burned_in.REMARK)]
        assert sorted(remarks) == [f'{burned_in.REMARK} in 3 of 6 slices: {advice}',
                                   f'{burned_in.REMARK}: {advice}']
    said = capsys.readouterr()
    assert said.out.count('2 remarks say that text seems to be burned in') == 2
    written = [path.read_bytes() for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    assert not any(name in content for content in (*written, (said.out + said.err).encode())
                   for name in (b'DOE^', b'Ann-4711', b'1.2.3.4', b'Saint'))
