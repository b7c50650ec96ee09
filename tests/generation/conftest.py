"""A workdir whose rows have random weights in every parameter: nothing is trained."""

import json

import jax
import pytest

from configs import hematoma
from repdiff import config as configs
from repdiff import experiment, optim, phases, sharding
from repdiff.checkpoint import Checkpoints
from repdiff.files import write_json
from repdiff.step import create_state


def randomised(params, seed):
    """The tree with noise on every leaf, so that zero-initialised gates let signals through."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return structure.unflatten([leaf + 0.1 * jax.random.normal(key, leaf.shape)
                                for leaf, key in zip(leaves, keys)])


@pytest.fixture(scope='session')
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp('generate')
    config = hematoma.get_config('smoke')
    config.cache = str(root / 'cache')
    config.rows = ('rc_ldt', 'rc_ldt_paper', 'unconditional_ldt', 'ldt_from_scratch')
    config.model.depth = 1
    for split, images in (('pretrain', 48), ('train', 24), ('valid', 16), ('test', 16)):
        config.data.simulated[split] = images
    dataset = experiment.prepared(config)
    recipes = {row: configs.recipe(config, row) for row in config.rows}
    setting = experiment.make_setting(
        config, list(recipes.values()), dataset, sharding.make_mesh(-1, 1, 1))
    tx = optim.adamw(lambda step: 0.1, b1=0.9, b2=0.99, weight_decay=0.0, clip_norm=1.0)
    path = root / 'workdir'
    write_json(path / 'config.json', json.loads(config.to_json()))
    for seed, (row, recipe) in enumerate(recipes.items()):
        pretrain = phases.pretrain_objective(recipe, setting.z_shape)
        tune = phases.tune_objective(recipe, pretrain, len(setting.classes))
        for name, objective in (('pretrain', pretrain), ('tune', tune)):
            if not recipe[name].steps:
                continue
            params = objective.init(jax.random.key(seed), jax.numpy.zeros((1, *setting.z_shape)))
            state = create_state(randomised(params, seed), tx)
            checkpoints = Checkpoints(path / 'checkpoints' / f'{row}.{name}', 1)
            checkpoints.save(20, state, {}, 0.5 if name == 'tune' else None)
            checkpoints.wait()
            checkpoints.close()
    return path
