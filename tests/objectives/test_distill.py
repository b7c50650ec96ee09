"""Self-distillation: each loss by hand, the teacher, the crops, what shows a collapse, devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import ClosedJaxpr, Literal, Var, jaxpr_as_fun

from repdiff import sharding
from repdiff.compile import compile_step
from repdiff.models.heads import PrototypeHead
from repdiff.models.vit import ViT
from repdiff.objectives import distill
from repdiff.objectives.crops import block_masks, random_crops, resize_rows
from repdiff.objectives.distill import Distill, Views
from repdiff.step import create_state, make_train_step

KEY = jax.random.key(3)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_sinkhorn_uses_prototypes_equally_and_leaves_out_rows_of_no_weight():
    logits, weights = normal(12, 4), np.array([1.0] * 8 + [0.0] * 4, np.float32)
    found = np.asarray(distill.sinkhorn(jnp.asarray(logits), 0.5, jnp.asarray(weights)))
    alone = np.asarray(distill.sinkhorn(jnp.asarray(logits[:8]), 0.5, jnp.ones(8)))
    np.testing.assert_allclose(found[:8], alone, rtol=1e-4)
    np.testing.assert_array_equal(found[8:], 0)
    np.testing.assert_allclose(alone.sum(1), 1, rtol=1e-5)
    q = np.exp(logits[:8].astype(np.float64) / 0.5)
    for _ in range(3):
        q = q / q.sum(0) / 4
        q = q / q.sum(1, keepdims=True) / 8
    np.testing.assert_allclose(alone, q * 8, rtol=1e-4)
    sharp = np.asarray(distill.sinkhorn(20 * jnp.tile(jnp.eye(4), (2, 1)), 0.5, jnp.ones(8)))
    np.testing.assert_allclose(sharp, np.tile(np.eye(4), (2, 1)), atol=1e-5)


def test_sinkhorn_stays_finite_where_the_compiler_divides_once_by_the_product_of_all_divisors():
    # XLA makes a / (b * c) of (a / b) / c; for a GPU it did so with the whole chain.
    logits, weights = normal(12, 4), np.array([1.0] * 8 + [0.0] * 4, np.float32)
    jaxpr = jax.make_jaxpr(distill.sinkhorn)(logits, 0.04, weights).jaxpr
    kept = {name: (x, 1) for name, x in zip(jaxpr.invars, (logits, 0.04, weights))}

    def value(of):
        return of.val if isinstance(of, Literal) else kept[of][0] / kept[of][1]

    for equation in jaxpr.eqns:
        inputs, outputs = equation.invars, equation.outvars
        if equation.primitive.name == 'div' and isinstance(inputs[0], Var):
            numerator, divisor = kept[inputs[0]]
            kept[outputs[0]] = numerator, divisor * value(inputs[1])
        else:
            given = [x for x in inputs if isinstance(x, Var)]
            one = jaxpr.replace(invars=given, outvars=outputs, eqns=[equation])
            values = jaxpr_as_fun(ClosedJaxpr(one, []))(*map(value, given))
            kept |= {name: (x, 1) for name, x in zip(outputs, values)}
    expected = distill.sinkhorn(logits, 0.04, weights)
    np.testing.assert_allclose(value(jaxpr.outvars[0]), expected, rtol=1e-4)


def test_dino_and_ibot_equal_a_loop_over_pairs_and_hidden_patches():
    targets = np.asarray(jax.nn.softmax(normal(5, 2, 7)))
    log_p = np.asarray(jax.nn.log_softmax(normal(5, 4, 7, seed=1)))
    pairs = [-(targets[b, i] * log_p[b, j]).sum()
             for b in range(5) for i in range(2) for j in range(4) if i != j]
    np.testing.assert_allclose(distill.dino_loss(targets, log_p), np.mean(pairs), rtol=1e-5)
    mask = np.random.default_rng(2).random((2, 4)) < 0.5
    mask[:, 0] = True
    t, p = (np.asarray(of(normal(2, 4, 7))) for of in (jax.nn.softmax, jax.nn.log_softmax))
    each = [np.mean([-(t[b, n] * p[b, n]).sum() for n in np.flatnonzero(mask[b])])
            for b in range(2)]
    np.testing.assert_allclose(distill.ibot_loss(t, p, mask), np.mean(each), rtol=1e-5)


def test_koleo_is_minus_the_log_distance_to_the_nearest():
    square = jnp.array([[3.0, 0], [0, 2], [-1, 0], [0, -5]])  # on the unit circle: √2 apart
    np.testing.assert_allclose(distill.koleo_loss(square), -np.log(2) / 2, rtol=1e-5)
    x = normal(9, 5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = [min(np.linalg.norm(a - b) for j, b in enumerate(unit) if j != i)
               for i, a in enumerate(unit)]
    found = distill.koleo_loss(jnp.asarray(x))
    np.testing.assert_allclose(found, -np.log(nearest).mean(), rtol=1e-4)


def test_losses_equal_pytorch():
    torch = pytest.importorskip('torch')
    x, logits = normal(16, 6), normal(16, 8)
    t = torch.nn.functional.normalize(torch.tensor(x), dim=-1)
    dots = t @ t.T
    dots.fill_diagonal_(-1)
    nearest = dots.max(1).indices
    koleo = -torch.log(torch.nn.PairwiseDistance(2, eps=1e-8)(t, t[nearest]) + 1e-8).mean()
    np.testing.assert_allclose(distill.koleo_loss(jnp.asarray(x)), koleo.numpy(), rtol=1e-5)
    q = torch.exp(torch.tensor(logits) / 0.1).T
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(1, keepdim=True) * 8
        q /= q.sum(0, keepdim=True) * 16
    found = distill.sinkhorn(jnp.asarray(logits), 0.1, jnp.ones(16))
    np.testing.assert_allclose(found, (q * 16).T.numpy(), rtol=1e-3, atol=1e-6)
    head = PrototypeHead(12, 5, 9, jnp.float32)
    params = jax.tree.map(lambda a: a + 0.3 * normal(*a.shape),
                          head.init(KEY, jnp.zeros((1, 6)))['params'])
    h = torch.tensor(x)
    for name in ('fc1', 'fc2', 'fc3'):
        layer = {k: torch.tensor(np.asarray(v)) for k, v in params[name].items()}
        h = h @ layer['kernel'] + layer['bias']
        h = torch.nn.functional.gelu(h) if name != 'fc3' else h
    last = torch.nn.functional.normalize(torch.tensor(np.asarray(params['last'])), dim=0)
    expected = torch.nn.functional.normalize(h, dim=-1) @ last
    np.testing.assert_allclose(head.apply({'params': params}, x), expected.numpy(), atol=1e-5)


def test_collapse_shows():
    same, spread = np.ones((32, 8), np.float32), normal(32, 8)
    assert float(distill.feature_std(same)) < 1e-3 and float(distill.feature_std(spread)) > 0.8
    one = jnp.tile(jnp.eye(4)[0], (6, 2, 1))
    found = distill.collapse(one, one, jnp.asarray(same))
    assert max(float(value) for value in found.values()) < 1e-3
    all_alike = jnp.full((6, 2, 4), 0.25)
    assert float(distill.collapse(all_alike, all_alike, spread)['teacher_entropy']) > 0.999


def test_a_resize_of_the_whole_axis_is_the_identity_and_halving_averages():
    whole = resize_rows(jnp.zeros(()), jnp.ones(()), 8, 8, jnp.ones(()))
    np.testing.assert_allclose(whole, np.eye(8), atol=1e-6)
    half = resize_rows(jnp.zeros(()), jnp.ones(()), 8, 4, jnp.ones(()))
    np.testing.assert_allclose(
        half @ np.arange(8.0), [0.71428573, 2.5, 4.5, 6.285714], rtol=1e-5)
    part = resize_rows(jnp.array(0.25), jnp.array(0.5), 8, 4, jnp.ones(()))
    np.testing.assert_allclose(part @ np.arange(8.0), [2, 3, 4, 5], rtol=1e-5)


def test_half_of_the_crops_are_mirrored_and_half_are_blurred():
    options = {'count': 8, 'size': 8, 'scale': (0.5, 0.6), 'jitter': 0.0}
    ramp = jnp.broadcast_to(jnp.arange(16.0)[:, None], (16, 16, 16, 1))
    crops = np.asarray(random_crops(KEY, ramp, blur=0.0, **options))
    rises = crops[..., -1, 0] > crops[..., 0, 0]
    assert (rises.all(-1) | (~rises).all(-1)).all() and 0.35 < rises.mean() < 0.65
    sharp, blurred = (
        np.asarray(random_crops(KEY, jnp.asarray(normal(16, 16, 16, 1)), blur=blur, **options))
        for blur in (0.0, 3.0))
    softer = blurred.std((2, 3, 4)) < 0.98 * sharp.std((2, 3, 4))
    assert 0.3 < softer.mean() < 0.7
    same = np.abs(blurred - sharp).max((2, 3, 4)) < 1e-5
    assert 0.35 < same.mean() < 0.65 and not (same & softer).any()


def test_crops_differ_and_masks_have_their_share():
    images = jnp.asarray(normal(3, 16, 16, 1))
    crops = random_crops(KEY, images, count=4, size=8, scale=(0.1, 0.5), jitter=0.2, blur=1.0)
    assert crops.shape == (3, 4, 8, 8, 1)
    flat = np.asarray(crops).reshape(12, -1)
    assert np.linalg.norm(flat[:, None] - flat, axis=-1)[~np.eye(12, dtype=bool)].min() > 0.1
    plain = random_crops(KEY, jnp.ones((3, 16, 16, 1)), count=4, size=8, scale=(0.1, 0.5),
                         jitter=0.0, blur=1.0)
    np.testing.assert_allclose(plain, 1, rtol=1e-5)
    mask = np.asarray(block_masks(KEY, 64, (6, 6), (0.1, 0.5)))
    hidden = mask.sum(1)
    assert hidden.min() >= 3 and hidden.max() <= 18 and len(set(hidden)) > 5
    neighbours = (mask.reshape(64, 6, 6)[:, ::2] & mask.reshape(64, 6, 6)[:, 1::2]).sum()
    assert neighbours > 0.35 * mask.sum()  # whole blocks; singles would give 0.15


@pytest.fixture(scope='module')
def stepped():
    """Objective, state behind the prototypes' rest, batch, step, what it makes on one device."""
    vit = ViT(width=16, depth=1, heads=2, patch=4, grid=(2, 2), layer_scale=1.0)
    objective = Distill(
        vit, PrototypeHead(8, 4, 6, jnp.float32),
        Views(8, 4, 2, (0.3, 1.0), (0.1, 0.3), 0.1, 0.5),
        0.1, (0.04, 0.07), 10, 5, (0.3, 0.5), 1.0, 0.1)
    rng = np.random.default_rng(0)
    batch = {'image': rng.integers(0, 256, (8, 12, 12, 1), np.uint8)}
    shapes = jax.eval_shape(objective.init, KEY, jnp.zeros((1, 12, 12, 1)))
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    step = make_train_step(objective, optax.sgd(0.1), ema_decay=lambda n: 0.75, accumulate=1,
                           reads=distill.reads)
    state = create_state(params, optax.sgd(0.1)).replace(step=jnp.int32(7))
    return objective, state, batch, step, jax.jit(step)(state, {}, batch, KEY)


def test_the_teacher_gets_no_gradient_and_prototypes_stand_still_at_first(stepped):
    objective, state, batch, _, _ = stepped

    def gradients(step):
        def total(student, teacher):
            return objective(student, {'teacher': teacher, 'step': step}, batch, KEY)[0]

        return jax.grad(total, (0, 1))(state.params, state.params)

    student, teacher = jax.jit(gradients)(jnp.int32(0))
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(teacher))
    assert float(jnp.abs(student['dino']['last']).max()) == 0
    assert float(jnp.abs(student['ibot']['fc1']['kernel']).max()) > 0
    assert float(jnp.abs(student['backbone']['mask_token']).max()) > 0


def test_the_teachers_temperature_rises_over_the_warm_up(stepped):
    objective, state, batch, _, _ = stepped
    whole, _ = objective.views.draw(jax.random.split(KEY)[0], batch['image'])
    features = objective.vit.apply(
        {'params': state.params['backbone']}, whole.reshape(-1, *whole.shape[2:]))['cls']
    logits = objective.head.apply({'params': state.params['dino']}, features)
    for step, temperature in ((0, 0.04), (5, 0.055), (10, 0.07), (30, 0.07)):
        frozen = {'teacher': state.params, 'step': jnp.int32(step)}
        found = objective(state.params, frozen, batch, KEY)[1]['teacher_entropy']
        targets = distill.sinkhorn(logits, temperature, jnp.ones(len(logits)))
        np.testing.assert_allclose(found, distill.entropy(targets).mean(), rtol=1e-4)


def test_the_teacher_is_the_ema(stepped):
    _, state, _, _, (after, scalars) = stepped
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, state.params, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.ema, expected)
    moved = jnp.abs(after.params['dino']['last'] - state.params['dino']['last'])
    assert float(moved.max()) > 0
    assert {'teacher_entropy', 'feature_std', 'prototype_use', 'koleo'} <= scalars.keys()


def test_a_step_on_eight_devices_equals_one_device(stepped):
    _, state, batch, step, (expected, scalars) = stepped
    mesh = sharding.make_mesh(2, 2, 2)
    placed = jax.device_put(state, sharding.state_shardings(state, mesh))
    after, found = compile_step(step, state, {}, batch, mesh).call(
        placed, {}, sharding.to_devices(batch, mesh),
        jax.device_put(KEY, sharding.replicated(mesh)))
    for name in scalars:  # the losses compare images of all devices
        np.testing.assert_allclose(found[name], scalars[name], rtol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), after.ema, expected.ema)

    def gradient(start, end):  # plain descent by 0.1 of it
        return (np.asarray(start) - end) / 0.1

    def same(start, one, other):
        wanted = gradient(start, other)
        np.testing.assert_allclose(
            gradient(start, one), wanted, atol=1e-4 * np.abs(wanted).max() + 2e-6)

    jax.tree.map(same, state.params, after.params, expected.params)
