import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff.errors import UserError
from repdiff.latents import cache
from repdiff.latents.vae import Vae
from repdiff.models.autoencoder import AutoencoderKL

moments = jax.jit(lambda vae, images: vae.moments(images))
MODULE = AutoencoderKL(widths=(4, 4), layers=1, groups=2)


class Split:
    """Seven images that count how often they are read."""

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.examples = [{'image': rng.integers(0, 256, (8, 6, 1), np.uint8), 'label': np.int32(i),
                          'id': rng.integers(0, 2**32, 2, np.uint32)} for i in range(7)]
        self.reads = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict:
        self.reads += 1
        return self.examples[index]


@pytest.fixture(scope='module')
def vae():
    shapes = jax.eval_shape(MODULE.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))['params']
    rng = np.random.default_rng(0)
    return Vae(jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes),
               MODULE, 1)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(cache, 'SHARD', 3)


def ensure(split, vae, root, fingerprint='data', batch=2):
    return cache.ensure(split, vae, root, name='train', fingerprint=fingerprint, batch=batch)


def test_holds_the_moments_of_image_and_mirror_image_by_id(vae, tmp_path):
    split = Split()
    latents = ensure(split, vae, tmp_path)
    assert len(latents) == 7
    for i, example in enumerate(split.examples):
        image = example['image'][None]
        want = np.stack([np.stack(moments(vae, x))[:, 0] for x in (image, image[:, :, ::-1])])
        got = latents[i]
        np.testing.assert_allclose(got['moments'], want, atol=1e-5)
        np.testing.assert_array_equal(got['id'], example['id'])
        assert got['label'] == i and got['label'].dtype == np.int32
    # The mirror image's latent is not the latent mirrored: both are worth their place.
    assert not np.allclose(want[1, 0], want[0, 0][:, ::-1], atol=1e-3)
    with pytest.raises(IndexError):
        latents[7]


def test_second_time_reads_no_image(vae, tmp_path):
    split = Split()
    first = ensure(split, vae, tmp_path)
    split.reads = 0
    again = ensure(split, vae, tmp_path, batch=5)
    assert split.reads == 0
    np.testing.assert_array_equal(first[4]['moments'], again[4]['moments'])


def test_other_data_or_other_weights_encode_anew(vae, tmp_path):
    one = ensure(Split(), vae, tmp_path)
    data = ensure(Split(seed=1), vae, tmp_path, fingerprint='other')
    params = jax.tree.map(np.copy, vae.params)
    params['quant']['bias'][0] += 1
    weights = ensure(Split(), vae.replace(params=params), tmp_path)
    assert len({one.directory, data.directory, weights.directory}) == 3
    assert not np.allclose(one[0]['moments'], data[0]['moments'])
    difference = weights[0]['moments'][0, 0] - one[0]['moments'][0, 0]
    np.testing.assert_allclose(difference[..., 0], MODULE.scale, atol=1e-5)


def test_killed_build_continues_at_the_first_missing_file(vae, tmp_path):
    class Dies(Split):
        def __getitem__(self, index):
            if index == 4:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        ensure(Dies(), vae, tmp_path)
    split = Split()
    latents = ensure(split, vae, tmp_path)
    assert split.reads == 4  # images 3 to 6; the first three were kept
    whole = ensure(Split(), vae, tmp_path / 'elsewhere')
    for i in range(7):
        np.testing.assert_array_equal(latents[i]['moments'], whole[i]['moments'])
    assert not [path for path in latents.directory.iterdir() if path.name.startswith('.')]


def test_draws_differ_and_have_the_cached_moments():
    mean, std = np.full((4, 4, 2), 3, np.float32), np.full((4, 4, 2), 0.5, np.float32)
    example = {'moments': np.array([[mean, std], [-mean, std]]), 'label': 1, 'id': 2}
    rng = np.random.default_rng(0)
    draws = np.stack([cache.draw(example, rng, flip=False)['z0'] for _ in range(500)])
    np.testing.assert_allclose([draws.mean(), draws.std()], [3, 0.5], atol=0.02)
    assert draws.dtype == np.float32
    flipped = np.stack([cache.draw(example, rng, flip=True)['z0'].mean() for _ in range(500)])
    assert abs((flipped < 0).mean() - 0.5) < 0.08
    assert 'moments' in example and cache.mean(example)['z0'] is not None
    np.testing.assert_array_equal(cache.mean(example)['z0'], mean)


def test_feeds_a_grain_pipeline(vae, tmp_path):
    latents = ensure(Split(), vae, tmp_path)
    dataset = grain.MapDataset.source(latents).seed(0).shuffle().repeat(2).random_map(
        lambda example, rng: cache.draw(example, rng, flip=True)).batch(7)
    first, second = dataset[0], dataset[1]
    assert first['z0'].shape == (7, 4, 3, 4) and sorted(first['label']) == list(range(7))
    assert not np.allclose(first['z0'][np.argsort(first['label'])],
                           second['z0'][np.argsort(second['label'])])


def test_empty_split_is_refused(vae, tmp_path):
    split = Split()
    split.examples = []
    with pytest.raises(UserError, match='no images'):
        ensure(split, vae, tmp_path)
