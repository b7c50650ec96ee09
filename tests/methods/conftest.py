"""A small setting: bright and dark images of three unequal classes, on one device."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from repdiff import config as configs
from repdiff import sharding
from repdiff.data import pipeline
from repdiff.latents import frontend
from repdiff.phases import Setting

SIDE = 8


def records(count, seed):
    """Noise on a grey level that tells the class: 0 of most images, 1 of a quarter, 2 of one."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        label = 2 if number == 0 else int(number % 4 == 1)
        image = 90 + 25 * label + rng.normal(0, 40, (SIDE, SIDE, 1))
        yield {'image': image.clip(0, 255).astype(np.uint8), 'label': label,
               'id': f'{seed}-{number}'}


@pytest.fixture(scope='module')
def setting():
    """Without a test split, as rows are trained and chosen."""
    splits = {name: pipeline.examples(list(records(24, seed)))
              for seed, name in enumerate(('pretrain', 'train', 'valid'))}
    front = frontend.fit_pca(splits['pretrain'].columns['image'], 4, 6, 0.0)
    mesh = Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1, 1), sharding.AXES)
    return Setting(mesh, splits, ('a', 'b', 'c'), front, (2, 2, 6), jax.random.key(5),
                   np.arange(24).astype(str))


@pytest.fixture
def config():
    """The base config with small networks of 4-pixel patches."""
    made = configs.base()
    made.update({
        'data': {'image_size': SIDE}, 'latents': {'patch': 4, 'channels': 6},
        'model': {'width': 16, 'depth': 3, 'unroll': False},
        'backbone': {'width': 16, 'depth': 2, 'patch': 4},
        'distill': {'global_size': 16, 'local_size': 8, 'local_crops': 1, 'prototypes': 8,
                    'hidden': 8, 'bottleneck': 4},
        'pretrain': {'batch': 8}, 'tune': {'batch': 12, 'steps': 6, 'checkpoint_every': 1},
        'augmentation': {'shift': 0, 'rotate': 0.0, 'zoom': 0.0},
        'log_every': 2,
    })
    return made
