"""Rows that self-distillation pre-trains: the warning of a collapse, and images of other sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff import abstract
from repdiff import config as configs
from repdiff.data import pipeline
from repdiff.methods import classify, distill
from repdiff.step import create_state, make_train_step


def test_a_collapse_is_said_aloud(config, setting, capsys):
    phase = distill.pretrain_phase(config, 'dinov2', setting)
    rng = np.random.default_rng(0)
    spread = jax.tree.map(lambda x: rng.normal(0, 1, x.shape).astype(np.float32), phase.params)
    score, logged = phase.evaluate(spread)
    assert score is None and logged['valid_feature_std'] > 2 * distill.COLLAPSED
    assert logged['valid_teacher_entropy'] < 0.95 and capsys.readouterr().err == ''
    # Prototypes of one direction are alike to every image.
    spread['dino']['last'] = spread['dino']['last'][:, :1].repeat(
        spread['dino']['last'].shape[1], 1)
    _, logged = phase.evaluate(spread)
    assert logged['valid_teacher_entropy'] > 0.999
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'gives every image all prototypes alike' in said
    # Without its patches the network says the same of every image.
    spread['backbone']['patch_embed'] = jax.tree.map(
        np.zeros_like, spread['backbone']['patch_embed'])
    _, logged = phase.evaluate(spread)
    assert logged['valid_feature_std'] < 1e-3
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'warning: dinov2.pretrain: the features of all images' in said
    assert 'lower pretrain.learning_rate or raise distill.koleo_weight' in said


def test_momentum_and_weight_decay_rise_by_half_a_cosine():
    config = configs.base()
    config.update({'distill': {'momentum': (0.9, 1.0), 'weight_decay': (0.04, 0.4)},
                   'pretrain': {'steps': 60}})
    course = distill.course(config)
    for share, step in ((0, 0), (0.25, 20), (0.5, 30), (0.75, 40), (1, 60)):  # (1 − cos πx) / 2
        np.testing.assert_allclose(course['ema_decay'](step), 0.9 + 0.1 * share, rtol=1e-6)
        np.testing.assert_allclose(course['weight_decay'](step), 0.04 + 0.36 * share, rtol=1e-6)


def test_the_recipe_tells_clusters_apart(config, setting):
    """The DINO loss leaves log K, where a teacher stays that says the same of every image."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 256, (8, 3, 3)).repeat(4, 1).repeat(4, 2)
    images = (centres.repeat(4, 0) + rng.normal(0, 10, (32, 12, 12))).clip(0, 255)
    split = pipeline.examples([
        {'image': image[..., None].astype(np.uint8), 'label': 0, 'id': str(number)}
        for number, image in enumerate(images)])
    setting = dataclasses.replace(
        setting, splits=dict.fromkeys(('pretrain', 'train', 'valid'), split))
    config.update({
        'distill': {'global_size': 8, 'local_size': 4, 'local_crops': 2, 'prototypes': 32,
                    'hidden': 16, 'bottleneck': 8},
        'backbone': {'depth': 1}, 'pretrain': {'batch': 32, 'steps': 200, 'warmup_steps': 25}})
    phase = distill.pretrain_phase(configs.recipe(config, 'dinov2'), 'dinov2', setting)
    step = jax.jit(make_train_step(
        phase.loss_fn, phase.tx, ema_decay=phase.ema_decay, accumulate=1, reads=phase.reads))
    state = create_state(phase.params, phase.tx)
    for _ in range(phase.steps):
        batch = {'image': next(phase.iterator)['image']}
        state, found = step(state, {}, batch, jax.random.key(0))
    assert found['dino'] < 0.9 * np.log(32)
    assert 0.1 < found['teacher_entropy'] < 0.95


def test_it_is_planned_as_it_is_trained(config, setting):
    recipe = configs.recipe(config, 'dinov2')
    phase = distill.pretrain_phase(recipe, 'dinov2', setting)
    planned = abstract.phase(recipe, 'pretrain', classes=3)
    state = jax.eval_shape(lambda params: create_state(params, phase.tx), phase.params)
    assert jax.tree.map(str, planned.state) == jax.tree.map(str, state)
    batch = next(phase.iterator)
    assert {name: (x.shape, x.dtype) for name, x in planned.batch.items()} == {
        name: (x.shape, x.dtype) for name, x in batch.items()}
    after, scalars = jax.eval_shape(
        planned.train_step, planned.state, {}, planned.batch, jax.random.key(0))
    assert 'ibot' in after.ema and 'loss' in scalars
    tuned = abstract.phase(recipe, 'tune', classes=3).state.params  # of the crops' positions
    assert tuned['backbone']['pos_embed'].shape == (1 + 4 * 4, 16)


@pytest.mark.parametrize('side', [8, 24])  # beside crops of 16
def test_positions_are_resized_to_images_of_another_size_than_the_crops(
        config, setting, side, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (4, side, side, 1), np.uint8)
    split = pipeline.examples([
        {'image': image, 'label': 0, 'id': str(i)} for i, image in enumerate(images)])
    setting = dataclasses.replace(setting, splits=dict.fromkeys(('train', 'valid'), split))
    found = distill.objective(config)
    shapes = jax.eval_shape(found.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    start = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes['backbone'])
    monkeypatch.setattr(classify, 'fresh', lambda name, setting, init, shape: jax.eval_shape(
        init, setting.key, jnp.zeros((1, *shape))))
    phase = classify.tune_phase(config, 'dinov2', setting, found.vit, start)
    assert phase.params['backbone']['pos_embed'].shape == (1 + 4 * 4, 16)
    assert jax.eval_shape(phase.loss_fn.logits, phase.params, images).shape == (4, 3)
