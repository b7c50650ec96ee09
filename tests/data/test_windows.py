"""Windows: exact grey values, names, numbers, channels and facilities."""

import numpy as np
import pytest

from repdiff.data import windows
from repdiff.errors import UserError


def test_exact_values_of_the_brain_window():
    # 80 HU over 255 steps: 0 -> 0, 40 -> 127.5 rounds up, 80 -> 255, and the ends saturate.
    hu = np.array([[-1000, -1, 0, 10, 40, 79, 80, 3000]], np.float32)
    grey = windows.apply(hu, windows.parse('brain'))
    assert grey.shape == (1, 8, 1) and grey.dtype == np.uint8
    # 10 / 80 * 255 = 31.875 and 79 / 80 * 255 = 251.8125
    assert grey[0, :, 0].tolist() == [0, 0, 0, 32, 128, 252, 255, 255]


@pytest.mark.parametrize('name, centre, width', [
    ('brain', 40, 80), ('subdural', 75, 215), ('stroke', 40, 40), ('bone', 600, 2800),
    ('soft_tissue', 40, 375),
])  # fmt: skip
def test_presets_follow_the_formula(name, centre, width):
    hu = np.arange(-1200, 3100, dtype=np.float32)[None]
    expected = []
    for value in hu[0].astype(int).tolist():
        # round(255 (value - centre + width / 2) / width) in whole numbers, halves up
        steps = (510 * (2 * value - 2 * centre + width) + 2 * width) // (4 * width)
        expected.append(min(max(steps, 0), 255))
    assert windows.apply(hu, windows.parse(name))[0, :, 0].tolist() == expected


def test_channels_are_stacked_in_order():
    chosen = windows.parse('brain+subdural+bone')
    hu = np.array([[60.0]], np.float32)
    # 60/80, (60 - 75 + 107.5)/215 and (60 - 600 + 1400)/2800 of 255
    assert windows.apply(hu, chosen)[0, 0].tolist() == [191, 110, 78]


def test_numbers():
    assert windows.parse('35.5/90+-20/300') == ((35.5, 90), (-20, 300))


def test_facilities():
    mapping = windows.parse_facilities('A=35/90, B=subdural,*=brain')
    assert windows.of_facility(mapping, 'A') == ((35, 90),)
    assert windows.of_facility(mapping, 'elsewhere') == ((40, 80),)
    assert windows.of_facility(windows.parse_facilities('stroke'), 'A') == ((40, 40),)
    with pytest.raises(UserError, match="facility 'C' has no window.*A"):
        windows.of_facility(windows.parse_facilities('A=brain'), 'C')


@pytest.mark.parametrize('text, words', [
    ('brian', 'neither a preset'), ('40', 'neither'), ('40/0', 'width above 0'),
    ('40/-80', 'width above 0'), ('nan/80', 'finite'), ('1/2+1/2+1/2+1/2', 'at most three'),
    ('A=brain,A=bone', 'each facility once'), ('A=brain,bone', 'FACILITY=WINDOW'),
    ('A=brain,B=brain+bone', 'different numbers of channels'),
])  # fmt: skip
def test_bad_windows_are_one_clear_sentence(text, words):
    with pytest.raises(UserError, match=words):
        windows.parse_facilities(text)
