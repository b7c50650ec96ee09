"""The mesh and the partition rules."""

import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from repdiff import sharding
from repdiff.errors import UserError


def test_one_axis_takes_what_is_left():
    assert dict(sharding.make_mesh(-1, 2, 2).shape) == {'data': 2, 'fsdp': 2, 'tensor': 2}
    assert dict(sharding.make_mesh(1, -1, 1).shape) == {'data': 1, 'fsdp': 8, 'tensor': 1}


@pytest.mark.parametrize('shape, words', [
    ((3, 1, 1), '3×1×1 does not fit 8 devices'), ((-1, 3, 1), 'does not fit'),
    ((-1, -1, 1), 'only one')])
def test_meshes_that_do_not_fit_are_one_sentence(shape, words):
    with pytest.raises(UserError, match=words):
        sharding.make_mesh(*shape)


def test_axes_that_do_not_divide_stay_whole_and_unknown_parameters_are_errors():
    mesh = sharding.make_mesh(1, 8, 1)
    params = {'blocks': {'mlp': {'fc1': {'kernel': jnp.zeros((2, 16, 6)), 'bias': jnp.zeros(6)},
                                 'fc2': {'kernel': jnp.zeros((2, 6, 12))}}}}
    found = sharding.param_shardings(params, mesh)['blocks']['mlp']
    assert found['fc1']['kernel'].spec == PartitionSpec(None, 'fsdp', 'tensor')
    assert found['fc2']['kernel'].spec == PartitionSpec(None, 'tensor', None)
    with pytest.raises(ValueError, match='mystery'):
        sharding.param_shardings({'mystery': jnp.zeros(3)}, mesh)
