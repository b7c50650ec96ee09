import jax
import numpy as np
import pytest

from repdiff.convert import engine
from repdiff.convert.engine import Rule, dense, norm
from repdiff.errors import UserError


class Tensors:
    """A source in memory."""

    def __init__(self, tensors: dict[str, np.ndarray]):
        self.path = 'weights.pth'
        self.tensors = tensors
        self.shapes = {name: value.shape for name, value in tensors.items()}

    def read(self, name: str) -> np.ndarray:
        return self.tensors[name]


RULES = [
    Rule('mask', None),
    Rule('cls', 'cls', 'token'),
    *dense('stem', 'stem', 'conv'),
    *(rule for i, name in enumerate('qkv')
      for rule in dense(rf'layer\.(?P<block>\d+)\.{name}', 'blocks/qkv', part=(i, 3))),
    *norm('norm', 'norm'),
]


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, np.float32)


TARGET = {'cls': shape(4), 'stem': {'kernel': shape(2, 3, 5, 4), 'bias': shape(4)},
          'blocks': {'qkv': {'kernel': shape(2, 4, 12), 'bias': shape(2, 12)}},
          'norm': {'scale': shape(4), 'bias': shape(4)}}


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {'mask': (1, 4), 'cls': (1, 1, 4), 'stem.weight': (4, 5, 2, 3), 'stem.bias': (4,),
              'norm.weight': (4,), 'norm.bias': (4,)}
    for block in range(2):
        for name in 'qkv':
            shapes[f'layer.{block}.{name}.weight'] = (4, 4)
            shapes[f'layer.{block}.{name}.bias'] = (4,)
    return {name: rng.normal(size=size).astype(np.float32) for name, size in shapes.items()}


def test_every_value_lands_where_the_layouts_say(tensors):
    params = engine.convert(Tensors(tensors), RULES, TARGET)
    np.testing.assert_array_equal(params['cls'], tensors['cls'].reshape(4))
    np.testing.assert_array_equal(params['norm']['scale'], tensors['norm.weight'])
    for o, i, h, w in np.ndindex(4, 5, 2, 3):
        assert params['stem']['kernel'][h, w, i, o] == tensors['stem.weight'][o, i, h, w]
    for block in range(2):
        for part, name in enumerate('qkv'):
            for o, i in np.ndindex(4, 4):
                assert (params['blocks']['qkv']['kernel'][block, i, 4 * part + o]
                        == tensors[f'layer.{block}.{name}.weight'][o, i])
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


def test_leftovers_on_both_sides_are_listed(tensors):
    tensors['head.weight'] = tensors.pop('norm.weight')
    del tensors['layer.1.k.bias']
    with pytest.raises(UserError) as error:
        engine.convert(Tensors(tensors), RULES, TARGET)
    assert 'weights.pth' in str(error.value)
    assert 'names that the model does not have: head.weight' in str(error.value)
    assert 'does not fill: blocks/qkv/bias, norm/scale' in str(error.value)


def test_more_blocks_than_the_model_has_are_leftovers(tensors):
    tensors['layer.2.q.bias'] = tensors['layer.1.q.bias']
    with pytest.raises(UserError, match=r'does not have: layer\.2\.q\.bias'):
        engine.convert(Tensors(tensors), RULES, TARGET)


@pytest.mark.parametrize('name,bad', [
    ('stem.weight', (4, 5, 3, 2)), ('layer.1.v.weight', (4, 5)), ('stem.bias', (5,)),
    ('cls', (1, 2, 4)), ('norm.bias', (1, 4)), ('layer.0.q.weight', (4,))])
def test_wrong_shapes_are_named(tensors, name, bad):
    tensors[name] = np.zeros(bad, np.float32)
    with pytest.raises(UserError, match='wrong shapes') as error:
        engine.convert(Tensors(tensors), RULES, TARGET)
    assert f'{name} {list(bad)}' in str(error.value)


def test_shapes_are_checked_before_any_value_is_read(tensors):
    source = Tensors(tensors)
    source.read = pytest.fail
    del source.shapes['norm.bias']
    with pytest.raises(UserError, match='norm/bias'):
        engine.convert(source, RULES, TARGET)


def test_two_tensors_for_one_parameter_are_refused(tensors):
    rules = [*RULES, Rule('cls2', 'cls', 'token')]
    tensors['cls2'] = tensors['cls']
    with pytest.raises(UserError, match='cls and cls2 are two values'):
        engine.convert(Tensors(tensors), rules, TARGET)


def test_long_lists_are_cut_with_a_count(tensors):
    with pytest.raises(UserError, match='and 14 more'):
        engine.convert(Tensors({f'x{i}': tensors['cls'] for i in range(20)}), RULES, TARGET)


@pytest.mark.parametrize('other,fits', [(0, True), (1, False)])
def test_copies_must_be_equal(other, fits):
    rules = [Rule(r'layer\.(?P<block>\d+)\.t', 't', copies=True)]
    source = Tensors({f'layer.{i}.t': np.full(3, i * other, np.float32) for i in range(3)})
    if fits:
        np.testing.assert_array_equal(engine.convert(source, rules, {'t': shape(3)})['t'], 0)
    else:
        with pytest.raises(UserError, match=r'layer\.1\.t differs'):
            engine.convert(source, rules, {'t': shape(3)})
