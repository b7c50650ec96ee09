"""Sweeps: points override the config, parts share the runs out, finished runs are gathered."""

import csv
import json
from pathlib import Path

import pytest

from configs import hematoma
from repdiff import config as configs
from repdiff import sweep
from repdiff.errors import UserError
from repdiff.eval.metrics import NAMES

STUDIES = str(Path(__file__).parents[1] / 'configs' / 'sweeps.py')


@pytest.mark.parametrize('name', ['labels', 'unlabelled', 'contrast', 'lesion_size',
                                  'facility_shift', 'image_size', 'tune_rate', 'transfer'])
def test_every_point_of_every_study_builds(name, tmp_path):
    study = sweep.read_study(f'{STUDIES}:{name}')
    made = sweep.cells(study, configs.base(), [0, 3], tmp_path)
    assert len(made) == 2 * len(study['points'])
    assert len({cell.workdir for cell in made}) == len(made)
    assert [cell.config.seed for cell in made] == [0] * (len(made) // 2) + [3] * (len(made) // 2)
    assert len({cell.config.to_json() for cell in made}) == len(made)
    for cell in made:
        for row in cell.config.rows:
            configs.recipe(cell.config, row)  # raises where a key is unknown


def test_every_row_that_is_tuned_has_the_rates_of_the_study(tmp_path):
    study = sweep.read_study(f'{STUDIES}:tune_rate')
    for cell in sweep.cells(study, hematoma.get_config('compare'), [0], tmp_path):
        recipes = {row: configs.recipe(cell.config, row) for row in cell.config.rows}
        assert {recipe.tune.learning_rate for recipe in recipes.values()
                if recipe.method != 'probe'} == {float(cell.point)}


def test_images_of_all_sizes_have_as_many_tokens(tmp_path):
    for cell in sweep.cells(sweep.read_study(f'{STUDIES}:image_size'), configs.base(), [0], tmp_path):
        config = cell.config
        assert config.distill.global_size == config.data.image_size
        for patch in (config.latents.patch * config.model.patch, config.backbone.patch):
            assert config.data.image_size == 8 * patch


def test_parts_share_all_runs_out():
    parts = [sweep.part(range(11), f'{i}/4') for i in range(4)]
    assert sorted(sum(map(list, parts), [])) == list(range(11))
    assert max(map(len, parts)) - min(map(len, parts)) == 1
    for text in ('4/4', '-1/4', 'x', '1'):
        with pytest.raises(UserError, match='--part'):
            sweep.part(range(3), text)


def test_finished_runs_are_gathered_and_validation_chooses_a_point(tmp_path, monkeypatch):
    study = sweep.read_study(f'{STUDIES}:labels')
    made = sweep.cells(study, configs.base(), [0, 1], tmp_path)
    for number, cell in enumerate(made[:7]):
        cell.workdir.mkdir(parents=True)
        (cell.workdir / 'results.json').write_text(json.dumps({'models': [
            {'name': name, 'floor': name == 'f', 'rule': {'valid_auroc': 1 - number / 20},
             **dict.fromkeys(NAMES, number / 10)}
            for name in ('a', 'f')]}))
    rings = []
    draw = sweep.figure.draw
    monkeypatch.setattr(sweep.figure, 'draw', lambda *given: rings.append(given[2]) or draw(*given))
    first, *others = sweep.gather(study, made, tmp_path).splitlines()
    assert first.startswith('7 of 10 runs')
    # Runs 0 and 5, and 1 and 6, are of one point each; the test split prefers the second.
    assert others == ['a: best on validation at share of the training patients that are labelled '
                      '0.05, mean AUROC 0.875 of 2 seeds']
    assert rings == [{'a': '0.05'}]
    with open(tmp_path / 'sweep.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14 and rows[2]['point'] == '0.1' and rows[2]['auroc'] == '0.1'
    assert rows[2]['valid_auroc'] == '0.95'
    assert (tmp_path / 'sweep.png').stat().st_size > 10_000


def test_bad_studies_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no study 'x'"):
        sweep.read_study(f'{STUDIES}:x')
    with pytest.raises(UserError, match='no file'):
        sweep.read_study('configs/none.py:x')
    with pytest.raises(UserError, match="point 'p' of 's'"):
        sweep.cells({'name': 's', 'points': {'p': {'tune': {'stepz': 1}}}}, configs.base(), [0],
                    tmp_path)
