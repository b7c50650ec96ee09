"""Probes: scikit-learn's answer, chosen on validation alone, and features captured by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from repdiff.eval import probes
from repdiff.methods import denoise, distill, probe
from repdiff.methods.row import TrainedRow
from repdiff.models import layers
from repdiff.models.dit import Block, TimeEmbed, position_table


def labelled(rng, count, classes=3):
    return rng.permutation(np.arange(count) % classes)


def test_the_linear_rule_is_scikit_learns_on_the_same_features():
    rng = np.random.default_rng(0)
    labels = {'train': labelled(rng, 60), 'valid': labelled(rng, 45)}
    labels['train'][:6] = -1  # unlabelled: no part of it
    candidates = {
        name: tuple(scale * np.eye(3)[labels[split]] @ rng.normal(size=(3, 5))
                    + rng.normal(3, 2, (len(labels[split]), 5)) for split in ('train', 'valid'))
        for name, scale in (('weak', 0.3), ('strong', 1.0))}
    found = probes.linear(candidates, labels['train'], labels['valid'])
    best, known = (-1.0,), labels['train'] >= 0
    for name, (train, valid) in candidates.items():
        mean, std = train[known].mean(0), train[known].std(0)
        for strength in probes.STRENGTHS:
            model = LogisticRegression(C=strength, class_weight='balanced', max_iter=1000)
            model.fit((train[known] - mean) / std, labels['train'][known])
            auroc = roc_auc_score(labels['valid'], model.predict_proba((valid - mean) / std),
                                  multi_class='ovr', average='macro')
            if auroc > best[0]:
                best = auroc, name, strength, model.decision_function((valid - mean) / std)
    assert (found.features, found.strength, found.settings) == (*best[1:3], 10)
    np.testing.assert_allclose(found.valid_auroc, best[0], rtol=1e-9)
    np.testing.assert_allclose(found.logits(candidates[found.features][1]), best[3], atol=1e-6)


def test_neighbours_equal_a_loop():
    rng = np.random.default_rng(1)
    queries, features, labels = rng.normal(size=(4, 3)), rng.normal(size=(40, 3)), labelled(rng, 40)
    labels[::9] = -1
    found = probes.neighbours(queries, features, labels, 3)
    for query, shares in zip(queries, found, strict=True):
        near = sorted(((query @ x / np.linalg.norm(query) / np.linalg.norm(x), label)
                       for x, label in zip(features, labels, strict=True) if label >= 0),
                      reverse=True)[:20]
        votes = np.zeros(3)
        for cosine, label in near:
            votes[label] += np.exp(cosine / 0.07)
        np.testing.assert_allclose(shares, votes / votes.sum(), rtol=1e-6)


def test_block_and_t_are_the_best_on_validation_and_the_test_split_is_only_answered(
        config, setting, monkeypatch):
    rng, seen = np.random.default_rng(2), []
    labels = {split: setting.splits[split].labels() for split in ('train', 'valid')}
    telling = {'block 1 at t=10': ('train',), 'block 2 at t=10': ('train', 'valid'),
               'block 2 at t=50': ()}

    def features(config, setting, split, make, params):
        seen.append(split)
        truth = labels.get(split, labels['valid'])
        # In the test split block 1 would be the best.
        tells = {name: split in where or split == 'test' and name.startswith('block 1')
                 for name, where in telling.items()}
        return {name: 4.0 * tells[name] * np.eye(3)[truth] + rng.normal(0, 0.3, (len(truth), 3))
                for name in telling}

    monkeypatch.setattr(probe, '_features', features)
    config.probe.of = 'denoiser'
    objective = denoise.pretrain_objective(config, setting.z_shape)
    trained = TrainedRow(probe.Read(objective, {}), None, {}, 0, True)
    chosen = probe.choose(config, 'row', setting, trained, None)
    assert seen == ['train', 'valid']
    assert chosen.facts['scored'].startswith('block 2 at t=10, C=')
    assert chosen.facts['scored'].endswith('best of 15 on validation')
    assert (chosen.arrays['valid_scores'].argmax(1) == labels['valid']).all()


def params_of(objective, shape):
    """Random parameters, the gates that start at zero included."""
    shapes = jax.eval_shape(objective.init, jax.random.key(0), jnp.zeros((1, *shape)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize('condition, unroll', [('none', False), ('representation', True)])
def test_features_of_the_denoiser_are_its_tokens_block_by_block(config, setting, condition, unroll):
    config.pretrain.condition, config.model.unroll, config.probe.t = condition, unroll, (10, 300)
    objective = denoise.pretrain_objective(config, setting.z_shape)
    params, dit = params_of(objective, setting.z_shape), objective.denoiser
    read = probe.Read(objective, {'frontend': setting.frontend})
    found = probe._features(
        config, setting, 'valid', probe._of_denoiser(config, setting, read), params)
    assert list(found) == [f'block {b} at t={t}' for t in (10, 300) for b in (1, 2, 3)]

    valid, epsilon = setting.splits['valid'].columns, dit.mlp_epsilon

    @jax.jit
    def by_hand(p, images, ids, t):
        keys = jnp.stack([jax.random.fold_in(jax.random.fold_in(setting.purpose('probe'), i), j)
                          for i, j in ids])
        z0 = setting.frontend.encode(images)
        noise = jnp.stack([jax.random.normal(jax.random.fold_in(key, 0), z0.shape[1:])
                           for key in keys])
        kept = jnp.prod(jnp.where(jnp.arange(1000) <= t, 1 - jnp.linspace(1e-4, 0.02, 1000), 1))
        z_t = kept**0.5 * z0 + (1 - kept) ** 0.5 * noise
        x = layers.PatchEmbed(16, 1, jnp.float32).apply({'params': p['patch_embed']}, z_t)
        x += position_table(16, (2, 2))
        c = TimeEmbed(16, 0, jnp.float32).apply({'params': p['t_embed']}, jnp.full(len(z0), t))
        c, means = jax.nn.silu(c + p['null'] if condition == 'representation' else c), []
        for number in range(3):
            own = jax.tree.map(lambda a: a[number], p['blocks'])
            x, _ = Block(dit.heads, False, epsilon, jnp.float32).apply({'params': own}, x, c, None)
            means.append(x.mean(1))
        return means

    some = slice(0, 4)
    for t in config.probe.t:
        for number, mean in enumerate(
                by_hand(params['denoiser'], valid['image'][some], valid['id'][some], t), 1):
            np.testing.assert_allclose(found[f'block {number} at t={t}'][some], mean, atol=2e-4)


def test_features_of_a_distilled_row_are_dinov2s(config, setting):
    """Its linear evaluation reads the cls tokens of the last blocks behind the final norm."""
    objective = distill.objective(config)
    vit, params = objective.vit, params_of(objective, (8, 8, 1))
    found = probe._features(
        config, setting, 'valid',
        probe._of_distilled(config, setting, probe.Read(objective, {})), params)
    image = setting.splits['valid'].columns['image'] / 127.5 - 1
    p = params['backbone']
    blocks = jax.jit(lambda x: vit.apply({'params': p}, x, layers_out=(0, 1))['layers'])(
        image.astype(np.float32))
    blocks = [np.asarray(block) for block in blocks]

    def normed(x):
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-6)
        return unit * p['norm']['scale'] + p['norm']['bias']

    outputs = [normed(block) for block in blocks]
    mean, cls = outputs[-1][:, 1:].mean(1), [out[:, 0] for out in outputs]
    for name, parts in (('cls', cls[-1:]), ('cls and mean patch', [cls[-1], mean]),
                        ('cls of 2 blocks and mean patch', [*cls, mean])):
        np.testing.assert_allclose(found[name], np.concatenate(parts, -1), atol=2e-4)
