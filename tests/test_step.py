"""The training step: against optax by hand, with accumulation, and on eight devices."""

import contextlib
from math import prod

import flax.traverse_util
import hlo
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from repdiff import abstract, optim, sharding
from repdiff import config as configs
from repdiff.checkpoint import Checkpoints
from repdiff.compile import compile_step
from repdiff.diffusion.schedule import linear
from repdiff.latents.frontend import fit_pca
from repdiff.models.dit import SIZES, DiT
from repdiff.models.vit import ViT
from repdiff.objectives.augment import Augmentation
from repdiff.objectives.denoise import Pretrain
from repdiff.step import create_state, make_train_step
from repdiff.zeroshot.score import Scorer

KEY = jax.random.key(11)
DEPTH = 3


def quadratic(params, frozen, batch, key):
    """A loss whose noise is the batch's own, so that parts of a batch average to the whole."""
    loss = jnp.mean(jnp.square(batch['x'] @ params['kernel'] - frozen['y']))
    return loss, {'loss': loss}


def setting():
    params = {'kernel': jax.random.normal(KEY, (4, 3))}
    tx = optim.adamw(optim.learning_rate(0.1, 2, 10, 'cosine'), b1=0.9, b2=0.99, weight_decay=0.1,
                     clip_norm=0.5)
    batch = {'x': jax.random.normal(jax.random.key(1), (8, 4))}
    return params, tx, {'y': jnp.array([1.0, 2.0, 3.0])}, batch


def test_step_equals_optax_by_hand():
    params, tx, frozen, batch = setting()
    step = make_train_step(quadratic, tx, ema_decay=0.99, accumulate=1)
    state = create_state(params, tx)
    by_hand, opt_state, ema = params, tx.init(params), params
    for n in range(3):
        state, scalars = step(state, frozen, batch, KEY)
        loss, grads = jax.value_and_grad(lambda p: quadratic(p, frozen, batch, KEY)[0])(by_hand)
        updates, opt_state = tx.update(grads, opt_state, by_hand)
        by_hand = optax.apply_updates(by_hand, updates)
        decay = min(0.99, (1 + n) / (10 + n))
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, by_hand)
        np.testing.assert_allclose(scalars['loss'], loss, rtol=1e-6)
    np.testing.assert_allclose(state.params['kernel'], by_hand['kernel'], rtol=1e-6)
    np.testing.assert_allclose(state.ema['kernel'], ema['kernel'], rtol=1e-5)
    assert int(state.step) == 3


@pytest.mark.parametrize('accumulate', [2, 4])
def test_accumulation_equals_the_whole_batch_and_moves_the_ema_once(accumulate):
    params, tx, frozen, batch = setting()
    results = []

    def augment(key, batch):
        return {'x': batch['x'] + jax.random.normal(key, batch['x'].shape)}

    for parts in (1, accumulate):
        step = make_train_step(quadratic, tx, ema_decay=0.9, accumulate=parts, augment=augment)
        results.append(step(create_state(params, tx), frozen, batch, KEY))
    (whole, scalars), (parted, parted_scalars) = results
    np.testing.assert_allclose(parted.params['kernel'], whole.params['kernel'], rtol=1e-5)
    np.testing.assert_allclose(parted.ema['kernel'], whole.ema['kernel'], rtol=1e-5)
    np.testing.assert_allclose(parted_scalars['loss'], scalars['loss'], rtol=1e-5)


def test_each_step_draws_new_noise_and_a_repeated_step_the_same():
    def noisy(params, frozen, batch, key):
        draw = jax.random.normal(key)
        return draw * params['kernel'].sum(), {'loss': draw}

    params, tx, frozen, batch = setting()
    step = make_train_step(noisy, tx, ema_decay=0.9, accumulate=1)
    state = create_state(params, tx)
    after, first = step(state, frozen, batch, KEY)
    _, second = step(after, frozen, batch, KEY)
    assert first['loss'] != second['loss']
    assert first['loss'] == step(state, frozen, batch, KEY)[1]['loss']


def denoising():
    """A small representation-conditioned pre-training step on augmented images."""
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
    basis = fit_pca(images, patch=2, channels=4, whiten=0.0)
    sizes = dict(width=16, depth=DEPTH, heads=2, patch=1)
    objective = Pretrain(
        linear(1000),
        DiT(**sizes, channels=4, conditioning='representation', representation='pooled'),
        ViT(**sizes, grid=(4, 4)), drop_rate=0.3, noise=0.1,
    )
    tx = optim.adamw(optim.learning_rate(1e-3, 0, 10, 'constant'), b1=0.9, b2=0.99,
                     weight_decay=0.01, clip_norm=1.0)
    params = objective.init(KEY, jnp.zeros((1, 4, 4, 4)))
    params = jax.tree.map(
        lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    batch = {'image': images, 'label': np.zeros(16, np.int32)}
    return objective, tx, params, {'frontend': basis}, batch


MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2)]


@pytest.fixture(scope='module')
def compiled():
    """The denoising step on one device, and compiled for each mesh of eight."""
    objective, tx, params, frozen, batch = denoising()
    augment = Augmentation(flip=True, shift=1, rotate=10.0, zoom=0.1, brightness=13.0)
    step = make_train_step(objective, tx, ema_decay=0.9, accumulate=1, augment=augment)
    start = create_state(params, tx)
    meshes = {shape: sharding.make_mesh(*shape) for shape in MESHES}
    steps = {
        shape: compile_step(step, start, frozen, batch, mesh) for shape, mesh in meshes.items()
    }
    return start, jax.jit(step), meshes, steps, frozen, batch


def run_on(compiled, shape, state):
    """(state, scalars) after one step on the mesh of `shape`, from a state on any."""
    _, _, meshes, steps, frozen, batch = compiled
    mesh = meshes[shape]
    placed = jax.device_put(jax.tree.map(jnp.copy, state), sharding.state_shardings(state, mesh))
    whole = sharding.replicated(mesh)
    return steps[shape].call(
        placed, jax.device_put(frozen, whole), sharding.to_devices(batch, mesh),
        jax.device_put(KEY, whole),
    )


@pytest.mark.parametrize('shape', MESHES)
def test_a_step_on_eight_devices_equals_one_device(compiled, shape):
    start, single, _, _, frozen, batch = compiled
    expected, scalars = single(start, frozen, batch, KEY)
    found, found_scalars = run_on(compiled, shape, start)
    for name in scalars:  # the norm of the gradient, too
        np.testing.assert_allclose(found_scalars[name], scalars[name], rtol=1e-5, err_msg=name)
    # Adam's first step is the sign of a gradient alone; its moments have the sizes.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max()),
        found.opt_state, expected.opt_state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.params,
                 expected.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found.ema, expected.ema)


@pytest.mark.parametrize('shape', MESHES)
def test_the_state_is_donated_so_that_a_step_has_one_in_memory(compiled, shape):
    made = compiled[3][shape]
    assert 0 < made.outputs < made.arguments / 20  # scalars and alignment alone are new


VECTORS = ('bias', 'scale', 'ls1', 'ls2', 'cls_token', 'mask_token', 'null')  # of one width


def test_fsdp_gives_every_device_an_eighth_of_all_but_vectors_their_ema_and_moments(compiled):
    start = compiled[0]
    state, _ = run_on(compiled, (1, 8, 1), start)
    small = 0
    for path, array in jax.tree.leaves_with_path((state.params, state.ema, state.opt_state)):
        shares = {shard.data.nbytes for shard in array.addressable_shards}
        if array.ndim and getattr(path[-1], 'key', None) not in VECTORS:
            assert shares == {array.nbytes // 8}, path
        else:
            small += array.nbytes
    held = sum(array.addressable_shards[0].data.nbytes for array in jax.tree.leaves(state))
    total = sum(array.nbytes for array in jax.tree.leaves(state))
    assert held <= total / 8 + small
    arguments = compiled[3][1, 8, 1].arguments  # the compiler's own count: the state, and a batch
    assert held <= arguments <= 1.2 * held


@pytest.mark.parametrize('name', ['pretrain', 'tune'])
def test_at_xl_size_a_device_holds_an_eighth(name):
    config = configs.base()
    config.update({'model': SIZES['XL'], 'latents': {'kind': 'haar'}})
    state = abstract.phase(configs.recipe(config, 'rc_ldt'), name).state
    places = sharding.state_shardings(state, sharding.make_mesh(1, 8, 1))
    total = held = 0
    for array, place in zip(*map(jax.tree.leaves, (state, places)), strict=True):
        total += array.size
        held += np.prod(place.shard_shape(array.shape))
    assert total > 4 * 600e6  # parameters, EMA and two moments
    assert held < 1.01 * total / 8


def parameters_of(state):
    """All parameters, their shapes as a block uses them, and how many numbers their gradients have.

    The mask token has none here, and the class token's is that of the first position.
    """
    flat = flax.traverse_util.flatten_dict(state.params, sep='/')
    shapes = {array.shape['/blocks/' in path:] for path, array in flat.items()}
    used = [array for path, array in flat.items() if not path.endswith(('mask_token', 'cls_token'))]
    return flat, shapes, sum(array.size for array in used)


def test_data_parallel_steps_reduce_each_gradient_once_and_move_nothing_else(compiled):
    found = hlo.collectives(compiled[3][8, 1, 1].call.as_text())
    _, _, numbers = parameters_of(compiled[0])
    assert {one.kind for one in found} == {'all-reduce'}
    extra = hlo.elements(found, DEPTH) - numbers
    assert 0 < extra < 10  # the loss and the like


# Nothing that is trained lies before these, so the backward pass does without them.
FIRST = ('patch_embed/kernel', 'pos_embed', 't_embed/fc1/kernel', 'label_embed/embedding')


def check_fsdp(program, state):
    """A sharded parameter is gathered where the forward pass uses it and, where the gradient goes
    on to what lies before it, again in the backward pass. Its gradient is reduced once: XLA for GPU
    and TPU makes that a reduce-scatter, XLA for CPU an all-reduce of which each device keeps its
    part. Activations and optimizer state never move."""
    found = hlo.collectives(program.as_text())
    flat, shapes, numbers = parameters_of(state)
    gathers = [one for one in found if one.kind == 'all-gather']
    sharded = [path for path in flat if not path.endswith(VECTORS)]
    again = [path for path in sharded if not path.endswith(FIRST)]
    assert len(gathers) == len(sharded) + len(again)

    def flattened(shape):
        return tuple(sorted((prod(shape[:-1]), shape[-1])))

    flat_shapes = {flattened(shape) for shape in shapes if len(shape) > 1}
    for one in gathers:
        [shape] = one.shapes
        assert flattened(shape) in flat_shapes, shape
    reduced = [one for one in found if one.kind in ('all-reduce', 'reduce-scatter')]
    extra = hlo.elements(reduced, DEPTH) - numbers
    assert 0 < extra < 50  # the loss, and each sharded parameter's part of the gradient norm
    assert len(gathers) + len(reduced) == len(found)


def test_fsdp_steps_gather_parameters_reduce_gradients_and_move_nothing_else(compiled):
    check_fsdp(compiled[3][1, 8, 1].call, compiled[0])


def test_so_do_those_of_tuning():
    config = configs.base()
    config.update({
        'data': {'image_size': 32}, 'tune': {'batch': 16},
        'model': {'width': 16, 'depth': DEPTH, 'heads': 2, 'unroll': False},
    })
    phase = abstract.phase(configs.recipe(config, 'rc_ldt_paper'), 'tune')
    check_fsdp(phase.compile(sharding.make_mesh(1, 8, 1)).call, phase.state)


def test_a_run_goes_on_on_another_mesh_with_the_same_losses(compiled, tmp_path):
    start, _, meshes, _, _, _ = compiled
    losses = {}
    state = run_on(compiled, (1, 8, 1), start)[0]
    with contextlib.closing(Checkpoints(tmp_path, 2)) as checkpoints:
        checkpoints.save(1, state, {}, None)
        checkpoints.wait()
        for shape, mesh in meshes.items():
            like = jax.tree.map(
                lambda array, place: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place),
                start, sharding.state_shardings(start, mesh))
            moved, _ = checkpoints.restore(like, 1)
            losses[shape] = []
            for _ in range(2):
                moved, scalars = run_on(compiled, shape, moved)
                losses[shape].append(float(scalars['loss']))
    for shape in MESHES:
        np.testing.assert_allclose(losses[shape], losses[1, 8, 1], rtol=1e-5)


def test_scores_on_eight_devices_equal_those_on_one():
    dit = DiT(width=16, depth=2, heads=2, patch=1, channels=4, conditioning='label', classes=2)
    z0, count = np.asarray(jax.random.normal(KEY, (4, 4, 4, 4))), np.arange(16)
    params = dit.init(KEY, z0, jnp.zeros(4), jnp.zeros(4, int))['params']
    params = jax.tree.map(
        lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    found = []
    for devices, shape in ((1, (1, 1, 1)), (8, (2, 2, 2))):
        mesh = Mesh(np.asarray(jax.devices()[:devices]).reshape(shape), sharding.AXES)
        scorer = Scorer(lambda params, *given: dit.apply({'params': params}, *given),
                        linear(1000), kinds=('l2',), passes=16, mesh=mesh)
        placed = jax.device_put(params, sharding.param_shardings(params, mesh))
        errors = scorer.on(placed, np.arange(2), KEY, z0, np.arange(8).reshape(4, 2))
        found.append(errors(count % 4, count // 4 % 2, count // 8, 100 + count))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_devices_draw_different_noise_and_the_same_as_one_device_would():
    def draw(params, frozen, batch, key):
        eps = jax.random.normal(key, batch['x'].shape)
        return jnp.mean(eps @ params['final']['linear']['kernel']), {'eps': eps}

    params, tx, frozen, batch = setting()
    params = {'final': {'linear': params}}
    step = make_train_step(draw, tx, ema_decay=0.9, accumulate=1)
    state, mesh = create_state(params, tx), sharding.make_mesh(2, 4, 1)
    eps = np.asarray(step(state, frozen, batch, KEY)[1]['eps'])
    made = compile_step(step, state, frozen, batch, mesh)
    placed = jax.device_put(state, sharding.state_shardings(state, mesh))
    whole = sharding.replicated(mesh)
    _, found = made.call(placed, jax.device_put(frozen, whole), sharding.to_devices(batch, mesh),
                         jax.device_put(KEY, whole))
    np.testing.assert_allclose(found['eps'], eps, rtol=1e-6)
    assert len({row.tobytes() for row in eps}) == 8  # one row a device
