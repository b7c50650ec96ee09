"""Published weights in the method: training, scoring and the main job, from files made here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from proven import DIT, HEADS, converted, golden
from repdiff import config, experiment, phases, published, sharding, train
from repdiff.benchmark.convert import write_source
from repdiff.convert import store
from repdiff.data import pipeline
from repdiff.errors import UserError
from repdiff.generation import features
from repdiff.methods import denoise, zeroshot
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT

SIZE = 32  # pixels; the VAE makes 4x4 latents of them


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Directories of converted random weights, by kind."""
    root = tmp_path_factory.mktemp('weights')
    settings = {'dinov2': HEADS, 'dit': DIT, 'sd_vae': {'norm_num_groups': 2}}
    for kind, given in settings.items():
        (root / kind).mkdir()
        converted(root / kind, kind, golden(kind)[0], given)
    return {kind: str(root / kind / 'out') for kind in settings}


class Source:
    """Twelve random images in two classes, grey or in colour."""

    def __init__(self, channels=1):
        self.channels = channels

    def __len__(self):
        return 12

    def __getitem__(self, index):
        shape = (SIZE, SIZE, self.channels)
        image = np.random.default_rng(index).integers(0, 256, shape, np.uint8)
        return {'image': image, 'label': np.int32(index % 2), 'id': str(index)}


def small(weights, encoder='joint', latents='pca', kind='pooled', denoiser=False):
    """A config of two steps a phase, with published weights where they are asked for."""
    made = config.base()
    made.update({
        'latents': {'kind': latents, 'weights': weights['sd_vae'], 'patch': 8, 'channels': 4},
        'augmentation': {'shift': 0, 'rotate': 0.0, 'zoom': 0.0, 'brightness': 0.0},
        'encoder': {'kind': encoder, 'weights': weights['dinov2'], 'image_size': 24},
        'representation': {'kind': kind},
        'model': {'width': 32, 'depth': 2, 'heads': 2, 'patch': 2, 'unroll': False,
                  'weights': weights['dit'] if denoiser else ''},
        'pretrain': {'steps': 2, 'batch': 4, 'checkpoint_every': 2, 'learning_rate': 1e-2,
                     'warmup_steps': 0},
        'tune': {'steps': 2, 'batch': 4, 'checkpoint_every': 2,
                 'label_start': 'class_means' if kind == 'pooled' else 'null'},
        'classify': {'t': (100,), 'draws': 1, 'batch': 12},
    })
    return made


def setting_of(made, cache, channels=1):
    """The setting of a run on the twelve images, one device, and their pixels."""
    images = pipeline.examples(Source(channels))
    splits = {name: images for name in ('pretrain', 'train', 'valid')}
    front = experiment.fit_frontend(made, images)
    z_shape = front.encode(images[0]['image'][None]).shape[1:]
    if made.latents.kind == 'sd_vae':
        made.cache = str(cache)
        splits = experiment.cached(made, front, splits, 'data', published.on_pixels(made))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), sharding.AXES)
    return phases.Setting(mesh, splits, ('a', 'b'), front, z_shape, jax.random.key(0),
                          np.arange(12).astype(str))


@pytest.mark.parametrize('encoder, latents, kind, denoiser, channels', [
    ('joint', 'sd_vae', 'pooled', False, 1),
    ('dinov2_frozen', 'sd_vae', 'pooled', True, 3),
    ('dinov2_tuned', 'pca', 'tokens', True, 1),
])
def test_trains_and_scores(weights, tmp_path, encoder, latents, kind, denoiser, channels):
    made = small(weights, encoder, latents, kind, denoiser)
    setting = setting_of(made, tmp_path, channels)

    def run(phase):
        return train.train(phase, workdir=tmp_path, mesh=setting.mesh, key=jax.random.key(1))

    phase = denoise.pretrain_phase(made, 'row', setting)
    pretrained = run(phase).params
    assert ('encoder' in phase.params) == (encoder != 'dinov2_frozen')
    assert ('encoder' in phase.frozen) == (encoder == 'dinov2_frozen')
    assert moved(phase.params['denoiser'], pretrained['denoiser'])
    if encoder == 'dinov2_tuned':
        given = store.load(weights['dinov2'], 'dinov2')[1]
        jax.tree.map(np.testing.assert_array_equal, phase.params['encoder'], given)
        assert moved(given, pretrained['encoder'])
    phase = denoise.tune_phase(made, 'row', setting, pretrained)
    tuned = run(phase).params
    evaluator = zeroshot.make_evaluator(made, phase.loss_fn, setting)
    z0, ids = zeroshot.latents(made, setting, 'valid')
    errors = evaluator.sweep(tuned, np.arange(2), z0, ids, zeroshot.sweep_steps(made, 1))
    assert errors.shape == (12, 2, 1, 1) and np.isfinite(errors).all()


def moved(before, after):
    """Whether any parameter differs."""
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), before, after)
    return not all(jax.tree.leaves(same))


def test_cached_latents_are_the_encoder_s_and_keep_their_pixels(weights, tmp_path):
    made = small(weights, 'dinov2_frozen', 'sd_vae')
    setting = setting_of(made, tmp_path)
    [batch] = pipeline.eval_batches(setting.splits['valid'], batch=12)
    images = np.stack([Source()[i]['image'] for i in range(12)])
    np.testing.assert_array_equal(batch['image'], images)
    direct = jax.jit(lambda vae, images: vae.encode(images))(setting.frontend, images)
    np.testing.assert_allclose(batch['z0'], direct, atol=1e-5 * float(jnp.abs(direct).max()))
    phase = denoise.pretrain_phase(made, 'row', setting)
    drawn = phase.augment(jax.random.key(2), next(phase.iterator))
    assert drawn['z0'].shape == (4, 4, 4, 4) and drawn['image'].shape == (4, SIZE, SIZE, 1)
    assert not any(np.allclose(z0, other) for z0 in drawn['z0'] for other in batch['z0'])


@pytest.mark.parametrize('conditioning', ['label', 'none'])
def test_denoiser_starts_as_the_converted_dit_under_its_null_class(weights, conditioning):
    fields, params = store.load(weights['dit'], 'dit')
    made = small(weights, latents='sd_vae', denoiser=True)
    mine = DiT(width=32, depth=2, heads=2, patch=2, channels=4, conditioning=conditioning,
               classes=3, **published.denoiser_fields(made, 4))
    z_t, t = jax.random.normal(jax.random.key(0), (2, 8, 8, 4)), jnp.array([3, 800])
    label = jnp.full(2, 3) if conditioning == 'label' else None
    fresh = jax.jit(mine.init)(jax.random.key(1), z_t, t, label)['params']
    start = published.denoiser_params(made, fresh)
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, fresh)
    wanted = DiT(**fields).apply({'params': params}, z_t, t)[..., :4]
    found = mine.apply({'params': start}, z_t, t, label)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * float(jnp.abs(wanted).max()))


def test_token_r_is_not_seen_by_the_patch_embedding_at_first(weights):
    made = small(weights, latents='sd_vae', kind='tokens', denoiser=True)
    objective = denoise.pretrain_objective(made, (4, 4, 4))
    fresh = jax.jit(objective.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 4)))['denoiser']
    start = published.denoiser_params(made, fresh)
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, fresh)
    assert not start['patch_embed']['kernel'][:, :, 4:].any()
    np.testing.assert_array_equal(start['blocks']['mix']['kernel'], fresh['blocks']['mix']['kernel'])


def test_dinov2_sees_colour_normalised_and_tokens_on_the_denoiser_s_grid(weights):
    pixels = denoise.pretrain_objective(small(weights, 'dinov2_frozen'), (4, 4, 4)).pixels
    shown = pixels.show(np.full((1, SIZE, SIZE, 1), 255, np.uint8))
    assert shown.shape == (1, 24, 24, 3) and pixels.grid == (2, 2)
    white = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(shown[0, 5, 7], white, rtol=1e-5)
    ramp = jnp.broadcast_to(jnp.arange(6.0)[None, :, None], (6, 6, 1)).reshape(1, 36, 1)
    left, right = pixels.resample(ramp)[0, :2, 0]
    assert left < 1.8 and right > 3.2 and abs(left + right - 5) < 1e-5


def test_dinov2_sees_three_channels_as_red_green_and_blue(weights):
    """What it is shown, and what it makes of that, against the steps by hand."""
    made = small(weights, 'dinov2_frozen')
    objective = denoise.pretrain_objective(made, (4, 4, 4))
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    shown = objective.pixels.show(images)
    by_hand = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(shown, by_hand, atol=1e-5)
    grey = objective.pixels.show(images[..., :1])
    np.testing.assert_allclose(grey, objective.pixels.show(images[..., [0, 0, 0]]), atol=1e-6)
    fields, params = store.load(weights['dinov2'], 'dinov2')
    see = jax.jit(lambda x: ViT(**fields).apply({'params': params}, x)['cls'])
    swapped = see(objective.pixels.show(images[..., ::-1]))
    assert not np.allclose(see(shown), swapped, atol=1e-2)


@pytest.mark.parametrize('changes, words', [
    ({'encoder': {'kind': 'clip'}}, "encoder.kind is 'clip'; choose from joint, dinov2_frozen"),
    ({'encoder': {'weights': ''}}, 'config.encoder.weights is empty'),
    ({'encoder': {'image_size': 30}}, 'multiple of 4'),
    ({'encoder': {'weights': '/nowhere'}}, '/nowhere holds no converted weights'),
    ({'model': {'depth': 3}}, 'config.model.depth is 3, but the DiT in'),
    ({'latents': {'channels': 5}}, 'denoises latents of 4 channels'),
    ({'latents': {'kind': 'sd_vae'}, 'augmentation': {'shift': 2}},
     'add --config.augmentation.shift=0'),
    ({'latents': {'kind': 'sd_vae', 'weights': ''}}, 'config.latents.weights is empty'),
    ({'latents': {'kind': 'vqgan'}}, "'pca', 'haar' or 'sd_vae'"),
])
def test_what_does_not_fit_is_one_sentence(weights, changes, words):
    made = small(weights, 'dinov2_frozen', denoiser=True)
    made.update(changes)
    with pytest.raises(UserError, match=words):
        experiment.fit_frontend(made, [Source()[0]])
        denoise.pretrain_objective(made, (4, 4, made.latents.channels))


def test_main_job_with_a_converted_encoder_and_vae(weights, tmp_path):
    source = tmp_path / 'dinov2.safetensors'
    write_source(source, width=64, depth=1)
    store.convert('dinov2', str(source), tmp_path / 'dinov2')
    made = small(weights, 'dinov2_frozen', 'sd_vae')
    made.update({
        'rows': ('rc_ldt',), 'cache': str(tmp_path / 'cache'), 'eval': {'bootstrap': 20},
        'encoder': {'weights': str(tmp_path / 'dinov2'), 'image_size': 28},
        'data': {'image_size': SIZE, 'simulated': {
            'pretrain': 16, 'train': 32, 'valid': 32, 'test': 32, 'positive_rate': 0.3}},
        'pretrain': {'batch': 8}, 'tune': {'batch': 8}, 'mesh': {'data': 1, 'fsdp': 8},
    })
    experiment.run(made, tmp_path / 'work')
    assert (tmp_path / 'work' / 'results.json').exists()
    assert (tmp_path / 'work' / 'report' / 'index.html').exists()
    tables = list((tmp_path / 'cache' / 'latents').glob('*/*.npz'))
    assert len(tables) == 4 and len({table.parent for table in tables}) == 1


def test_dinov2_measures_what_it_sees_in_normalised_images(weights):
    network = features.dinov2(weights['dinov2'])
    shape = (2, features.DINOV2_SIZE, features.DINOV2_SIZE, 1)  # not resized
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = jax.jit(network.apply)(network.params, images)
    shown = (images / np.float32(255) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    fields, params = store.load(weights['dinov2'], 'dinov2')
    out = ViT(**fields).apply({'params': params}, shown.astype(np.float32))
    np.testing.assert_allclose(found['pool'], out['cls'], atol=1e-4)
    first = np.asarray(out['patches'])[..., :7].reshape(2, -1)
    np.testing.assert_allclose(found['spatial'], first, atol=1e-4)
    assert np.ptp(np.asarray(found['pool']), axis=0).max() > 0.01  # it tells images apart
