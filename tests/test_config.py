"""Every preset of every experiment builds; recipes replace keys of the base and nothing else."""

import importlib.util
import json
from pathlib import Path

import pytest

from repdiff import config as configs
from repdiff import experiment, generate, predict
from repdiff.errors import UserError

CONFIGS = Path(__file__).parents[1] / 'configs'
EXPERIMENTS = [CONFIGS / f'{name}.py' for name in ('hematoma', 'ct_ich', 'cifar10')]


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def get_config(path, preset):
    return module_of(path).get_config(preset)


PRESETS = [(path, preset) for path in EXPERIMENTS for preset in ('', *module_of(path).PRESETS)]


@pytest.mark.parametrize('path, preset', PRESETS, ids=lambda part: getattr(part, 'stem', part))
def test_presets_build_with_all_their_rows_and_data(path, preset):
    config = get_config(path, preset)
    for row in config.rows:
        recipe = configs.recipe(config, row)
        if recipe.method == 'distill':  # prototypes wait until more than the warm-up has passed
            assert recipe.distill.freeze_last * recipe.pretrain.steps > recipe.pretrain.warmup_steps
    experiment.settings(config, config.data.source)


def test_the_papers_row_is_the_papers_recipe():
    row = configs.recipe(get_config(EXPERIMENTS[0], 'paper'), 'rc_ldt_paper')
    assert (row.representation.kind, row.representation.drop_rate) == ('tokens', 0)
    assert (row.tune.switch, row.tune.paired_weight) == ('paper', 0)
    assert (row.model.width, row.model.depth, row.model.heads, row.model.patch) == (768, 12, 12, 2)
    assert (row.tune.batch, row.tune.learning_rate, row.diffusion.steps) == (16, 1e-4, 1000)
    assert row.data.image_size == 256 and row.data.simulated.train == 1424
    assert not row.tune.balanced and row.tune.t_range == (0, 1000) and 500 in row.classify.t
    ours = configs.recipe(get_config(EXPERIMENTS[0], 'paper'), 'rc_ldt')
    assert ours.tune.balanced and ours.tune.paired_weight > 0 and ours.tune.t_range[1] <= 500
    assert max(ours.classify.t) < 500


def test_a_recipe_with_an_unknown_key_is_one_sentence():
    config = configs.base()
    config.unlock()
    config.recipes.rc_ldt = {'tune': {'stepz': 3}}
    with pytest.raises(UserError, match='recipes.rc_ldt'):
        configs.recipe(config.lock(), 'rc_ldt')
    with pytest.raises(UserError, match="no recipe 'x'"):
        configs.recipe(config, 'x')


@pytest.mark.parametrize('command', [generate, predict],
                         ids=lambda command: command.__name__)
def test_a_workdir_of_another_version_or_of_folds_is_refused(tmp_path, command):
    files = ['x.png'] if command is predict else []
    config = json.loads(configs.base().to_json())
    pooled = json.dumps(config | {'eval': config['eval'] | {'folds': 3}})
    del config['tune']['shots']
    for text, words in ((None, 'has no config.json'), ('{', 'not valid JSON'),
                        (pooled, 'pools the answers of folds .* such as .*fold-0'),
                        (json.dumps(config), r'another version .* other keys \(tune.shots\)')):
        if text:
            (tmp_path / 'config.json').write_text(text)
        with pytest.raises(UserError, match=words):
            command.main([f'--workdir={tmp_path}', *files])


@pytest.mark.parametrize('section, key, value, words', [
    ('tune', 'switch', 'nul', "'nul' in row 'rc_ldt'; choose from null, paper"),
    ('tune', 'label_start', 'means', 'choose from class_means, null, random'),
    ('pretrain', 'condition', 'r', 'choose from representation, none'),
    ('representation', 'kind', 'token', 'choose from pooled, tokens'),
    ('pretrain', 'decay', 'x', 'choose from cosine, constant'),
    ('classify', 'passes', 0, 'is 0 in .* choose at least 1'),
    ('classify', 't', (10, 1000), 'from 0 to 999'),
    ('classify', 't', (), 'from 0 to 999'),
    ('tune', 't_range', (0, 1001), 'end <= 1000'),
    ('tune', 't_range', (50, 50), 'first < end'),
    ('tune', 't_range', (0, 60), r'evidence.t is 75 .* from 0 to 59 \(tune.t_range\)'),
    ('evidence', 't', 100, 'from 0 to 99'),
])
def test_a_value_that_is_none_of_the_choices_is_one_sentence(section, key, value, words):
    config = configs.base()
    config[section][key] = value
    with pytest.raises(UserError, match=words):
        configs.recipe(config, 'rc_ldt')


def test_a_rows_own_values_are_checked_too():
    config = configs.base()
    with config.unlocked():
        config.recipes.rc_ldt_paper.tune.update({'switch': 'papers'})
    configs.recipe(config, 'rc_ldt')
    with pytest.raises(UserError, match="config.tune.switch is 'papers' in row 'rc_ldt_paper'"):
        configs.recipe(config, 'rc_ldt_paper')


def test_the_first_difference_of_two_configs_is_named():
    old = {'a': {'b': 1, 'c': [1, 2]}, 'd': 1}
    assert experiment.first_difference(old, old) is None
    assert experiment.first_difference(old, {**old, 'a': {'b': 1, 'c': [1, 3]}}) == 'config.a.c'
    assert experiment.first_difference(old, {**old, 'e': 1}) == 'config.e'


def test_a_row_takes_over_only_a_pretraining_that_would_be_its_own():
    config = configs.base()
    assert configs.recipe(config, 'rc_ldt_prototypes').pretrain.row == 'rc_ldt'
    with config.unlocked():
        config.recipes.rc_ldt.update({'representation': {'drop_rate': 0.5}})
    assert configs.recipe(config, 'rc_ldt_prototypes').representation.drop_rate == 0.5
    with config.unlocked():
        config.recipes.rc_ldt_prototypes.update({'representation': {'drop_rate': 0.2}})
    with pytest.raises(UserError, match=r"rc_ldt_prototypes: .*'rc_ldt', whose .*drop_rate"):
        configs.recipe(config, 'rc_ldt_prototypes')
