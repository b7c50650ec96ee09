"""r of a user's own files: prepared as the run's, under hidden names, never of the reference."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from repdiff import finished, generate
from repdiff.errors import UserError
from repdiff.generation import conditions
from repdiff.generation.studio import Studio


@pytest.fixture(scope='module')
def studio(workdir):
    return Studio(workdir, finished.config_of(workdir), 'test', batch=8)


@pytest.fixture(scope='module')
def files(studio, tmp_path_factory):
    """Pictures of the first slices of validation and test, and what is none."""
    folder = tmp_path_factory.mktemp('files')
    for name in ('valid', 'test'):
        split = studio.dataset.split(name)
        for i in range(3):
            Image.fromarray(split[i]['image'][..., 0]).save(folder / f'DOE_JANE_{name}_{i}.png')
    (folder / 'DOE_JANE_broken.png').write_bytes(b'\x89PNG broken')
    return folder


def prepared(studio, text, tmp_path, row='', reference='test'):
    condition = conditions.parse(text)
    model = studio.model(row or studio.row_for(condition))
    return conditions.prepare(condition, model, studio.setting, studio.dataset, scale=1.0, seed=0,
                              reference=reference, out=tmp_path)


@pytest.mark.parametrize('row', ['rc_ldt', 'rc_ldt_paper'])  # one vector an image; one a token
def test_r_is_that_of_the_same_slices_in_the_order_given(studio, files, tmp_path, row):
    text = f'files:{files}/DOE_JANE_valid_2.png,{files}/DOE_JANE_valid_0.png'
    given = prepared(studio, text, tmp_path, row)
    expected = conditions.representations(
        studio.model(row), studio.setting, studio.setting.splits['valid'], 'valid')
    np.testing.assert_allclose(given.values(np.arange(4)), expected[[2, 0, 2, 0]], atol=1e-5)
    split = studio.dataset.split('valid')
    np.testing.assert_array_equal(
        given.sources(np.arange(2)), [split[2]['image'], split[0]['image']])


def test_the_command_measures_them_and_names_nobody(workdir, files, tmp_path):
    for i in range(2):
        shutil.copy(files / f'DOE_JANE_valid_{i}.png', tmp_path)
    generate.main([f'--workdir={workdir}', f'--condition=files:{tmp_path}', '--samples=12',
                   '--steps=3', '--batch=8'])
    row = json.loads((workdir / 'generate' / 'table.json').read_text())['rows'][-1]
    assert row['name'] == 'rc_ldt files' and row['images'] == 12 and len(row['slices']) == 2
    assert row['copies']['source_distance'] > 0
    assert all(name.startswith('slice-') for name in row['slices'])
    for path in (workdir / 'generate').rglob('*'):
        assert 'DOE' not in path.name
        assert path.is_dir() or b'DOE' not in path.read_bytes()


def test_sets_of_other_files_do_not_mix(studio, files, tmp_path):
    names = [f'{files}/DOE_JANE_valid_{i}.png' for i in range(2)]
    about = {prepared(studio, f'files:{",".join(each)}', tmp_path).about['r']
             for each in (names, names[::-1], names[:1])}
    assert len(about) == 3


def test_the_reference_gives_no_r_under_any_name(studio, files, tmp_path):
    both = f'files:{files}/DOE_JANE_valid_0.png,{files}/DOE_JANE_test_1.png'
    with pytest.raises(UserError, match=r'\(path 2 .*\) shows an image of the test') as error:
        prepared(studio, both, tmp_path)
    assert 'DOE' not in str(error.value)
    prepared(studio, f'files:{files}/DOE_JANE_test_1.png', tmp_path, reference='valid')
    with pytest.raises(UserError, match='shows an image of the valid split'):
        prepared(studio, f'files:{files}/DOE_JANE_valid_0.png', tmp_path, reference='valid')


@pytest.mark.parametrize('options, words', [
    (['--condition=files'], 'name files or folders'),
    (['--condition=files:'], 'name files or folders'),
    (['--condition=files:FILES/DOE_JANE_none.png'], r'\(path 1 .*\) is neither a file'),
    (['--condition=files:FILES/DOE_JANE_valid_0.png,FILES/DOE_JANE_broken.png'], r'\(path 2 .*\) '),
    (['--condition=files:FILES/DOE_JANE_valid_0.png', '--row=unconditional_ldt'],
     'pre-trained without r'),
    (['--condition=files:FILES/DOE_JANE_valid_0.png', '--row=rc_ldt_paper', '--guidance=2'],
     'never learned to denoise'),
])
def test_bad_files_are_one_sentence(workdir, files, options, words):
    with pytest.raises(UserError, match=words) as error:
        generate.main([f'--workdir={workdir}',
                       *(option.replace('FILES', str(files)) for option in options)])
    assert '\n' not in str(error.value) and 'DOE' not in str(error.value)
