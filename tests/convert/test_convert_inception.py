"""FID's Inception v3 against stored outputs of PyTorch (make_goldens.py)."""

import jax
import numpy as np
import pytest
from flax import traverse_util

import inception_reference as reference
from proven import assert_close, converted, golden
from repdiff.convert import inception
from repdiff.errors import UserError
from repdiff.generation import features

NAMES = {'kernel': 'conv.weight', 'scale': 'bn.weight', 'bias': 'bn.bias',
         'mean': 'bn.running_mean', 'var': 'bn.running_var'}


@pytest.fixture(scope='module')
def published():
    """Every tensor of the published layout, with its random values."""
    shapes = {'fc.weight': (1008, 2048), 'fc.bias': (1008,)}
    tree = traverse_util.flatten_dict(inception.shapes({'classes': 1008}))
    for (*module, leaf), value in tree.items():
        if module != ['fc']:
            shape = value.shape
            if len(shape) == 4:
                shape = tuple(shape[axis] for axis in (3, 2, 0, 1))
            shapes['.'.join([*module, NAMES[leaf]])] = shape
    return {name: reference.weight(name, shape) for name, shape in shapes.items()}


@pytest.fixture(scope='module')
def network(published, tmp_path_factory):
    """As `repdiff.generate --inception=` has it."""
    counters = {'Conv2d_1a_3x3.bn.num_batches_tracked': np.zeros((), np.int64)}
    place = tmp_path_factory.mktemp('inception')
    converted(place, 'inception', published | counters, {})
    return features.inception(str(place / 'out'))


@pytest.mark.parametrize('i, shape', [(0, (2, 64, 48, 1)), (1, (1, 320, 400, 3))])
def test_features_are_those_of_the_original(network, i, shape):
    found = jax.jit(network.apply)(network.params, reference.images(i, *shape))
    _, arrays = golden('inception')
    for name in ('pool', 'spatial', 'logits'):
        assert_close(found[name], arrays[f'{name}{i}'])
    assert found['spatial'].shape == (shape[0], 17 * 17 * 7)


def test_torchvisions_inception_is_refused(tmp_path, published):
    aux = {'AuxLogits.fc.bias': np.zeros(1000, np.float32)}
    with pytest.raises(UserError, match="torchvision's Inception v3, whose distances are no FID"):
        converted(tmp_path, 'inception', published | aux, {})


def test_another_network_is_refused(tmp_path):
    with pytest.raises(UserError, match='does not hold Inception v3 weights'):
        converted(tmp_path, 'inception', {'fc.weight': np.zeros((10, 4), np.float32)}, {})
