"""A workdir whose rows have random weights in every parameter: nothing is trained."""

import json

import jax
import numpy as np
import pytest

from configs import hematoma
from repdiff import config as configs
from repdiff import experiment, sharding
from repdiff.card import Card
from repdiff.checkpoint import Checkpoints
from repdiff.files import write_json
from repdiff.methods import denoise
from repdiff.step import TrainState


def randomised(shapes, seed):
    """Arrays of these shapes with noise in every one: zero-initialised gates pass signals."""
    rng = np.random.default_rng(seed)

    def draw(path, shape):
        centre = 1.0 if path[-1].key == 'scale' else 0.0
        return jax.numpy.asarray(centre + 0.2 * rng.standard_normal(shape.shape), shape.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope='session')
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp('generate')
    config = hematoma.get_config('smoke')
    config.cache = str(root / 'cache')
    config.rows = ('rc_ldt', 'rc_ldt_paper', 'unconditional_ldt', 'vit')
    config.model.depth = 1
    for split, images in (('pretrain', 48), ('train', 24), ('valid', 16), ('test', 16)):
        config.data.simulated[split] = images
    dataset = experiment.prepared(config)
    recipes = {row: configs.recipe(config, row) for row in config.rows}
    setting = experiment.make_setting(
        config, list(recipes.values()), dataset, sharding.make_mesh(-1, 1, 1))
    path = root / 'workdir'
    write_json(path / 'config.json', json.loads(config.to_json()))
    Card(path, config, dataset.info['fingerprint'])
    for seed, (row, recipe) in enumerate(recipes.items()):
        if recipe.method != 'denoise':
            continue  # a row to compare with, which nothing here reads
        pretrain = denoise.pretrain_objective(recipe, setting.z_shape)
        tune = denoise.tune_objective(recipe, pretrain, len(setting.classes))
        for name, objective in (('pretrain', pretrain), ('tune', tune)):
            if not recipe[name].steps:
                continue
            z0 = jax.ShapeDtypeStruct((1, *setting.z_shape), np.float32)
            params = randomised(jax.eval_shape(objective.init, jax.random.key(0), z0), seed)
            state = TrainState(step=jax.numpy.int32(20), params=params, ema=params, opt_state={})
            checkpoints = Checkpoints(path / 'checkpoints' / f'{row}.{name}', 1)
            checkpoints.save(20, state, {}, 0.5 if name == 'tune' else None)
            checkpoints.wait()
            checkpoints.close()
    return path
