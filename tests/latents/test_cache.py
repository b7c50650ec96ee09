"""The latent cache: what is encoded anew and what is not, and what may befall its files."""

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff import interrupt
from repdiff.errors import UserError
from repdiff.latents import cache, store
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
def small_files(monkeypatch):
    monkeypatch.setattr(store, 'RECORDS', 3)


@pytest.fixture
def encoded(monkeypatch):
    """The images that the encoder has seen, batch by batch, without the filling."""
    seen, inner = [], cache._moments

    def count(vae, images, batch):
        seen.extend(images)
        return inner(vae, images, batch)

    monkeypatch.setattr(cache, '_moments', count)
    return seen


def ensure(split, vae, root, fingerprint='data', batch=2, name='train'):
    return cache.ensure(split, vae, root, name=name, fingerprint=fingerprint, batch=batch)


def files(root):
    return sorted(root.glob('*/*.array_record'))


def assert_holds(latents, split, vae):
    """Every latent is its image's, in the split's order."""
    assert len(latents) == len(split)
    for i, example in enumerate(split.examples):
        image = example['image'][None]
        want = np.stack([np.stack(moments(vae, x))[:, 0] for x in (image, image[:, :, ::-1])])
        got = latents[i]
        np.testing.assert_allclose(got['moments'], want, atol=1e-5)
        np.testing.assert_array_equal(got['id'], example['id'])
        assert got['label'] == example['label'] and got['label'].dtype == np.int32


def test_holds_the_moments_of_image_and_mirror_image_by_id(vae, tmp_path):
    split = Split()
    latents = ensure(split, vae, tmp_path)
    assert_holds(latents, split, vae)
    # The mirror image's latent is not the latent mirrored: both are worth their place.
    image, mirror = latents[0]['moments']
    assert not np.allclose(mirror[0], image[0][:, ::-1], atol=1e-3)
    with pytest.raises(IndexError):
        latents[7]


def test_second_time_reads_no_image(vae, tmp_path, encoded):
    split = Split()
    first = ensure(split, vae, tmp_path)
    split.reads = 0
    again = ensure(split, vae, tmp_path, batch=5)
    assert split.reads == 0 and len(encoded) == 7
    np.testing.assert_array_equal(first[4]['moments'], again[4]['moments'])


def test_a_changed_image_encodes_itself_alone(vae, tmp_path, encoded):
    ensure(Split(), vae, tmp_path)
    encoded.clear()
    split = Split()
    split.examples[4] = {**split.examples[4], 'image': split.examples[4]['image'] ^ 255}
    assert_holds(ensure(split, vae, tmp_path, fingerprint='other'), split, vae)
    np.testing.assert_array_equal(encoded, [split.examples[4]['image']])


def test_the_same_pixels_under_another_id_are_another_image(vae, tmp_path, encoded):
    ensure(Split(), vae, tmp_path)
    encoded.clear()
    split = Split()
    split.examples[4] = {**split.examples[4], 'id': split.examples[4]['id'] + np.uint32(1)}
    assert_holds(ensure(split, vae, tmp_path, fingerprint='other'), split, vae)
    assert len(encoded) == 1


def test_labels_order_and_split_encode_nothing(vae, tmp_path, encoded):
    ensure(Split(), vae, tmp_path)
    encoded.clear()
    split = Split()
    split.examples = [{**e, 'label': np.int32(9 - e['label'])} for e in split.examples[:0:-1]]
    latents = ensure(split, vae, tmp_path, fingerprint='other', name='valid')
    assert_holds(latents, split, vae)
    assert not encoded
    assert_holds(ensure(Split(), vae, tmp_path), Split(), vae)  # the first table still stands


def test_another_encoder_encodes_everything(vae, tmp_path, encoded):
    one = ensure(Split(), vae, tmp_path)
    params = jax.tree.map(np.copy, vae.params)
    params['quant']['bias'][0] += 1
    other = ensure(Split(), vae.replace(params=params), tmp_path)
    assert len(encoded) == 14
    difference = other[0]['moments'][0, 0] - one[0]['moments'][0, 0]
    np.testing.assert_allclose(difference[..., 0], MODULE.scale, atol=1e-5)


class Stops(Split):
    """Fails at image 5, when a file of 3 or 4 images is finished."""

    def __getitem__(self, index):
        if index == 5:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_an_interrupted_build_keeps_what_it_has(vae, tmp_path, encoded):
    with pytest.raises(KeyboardInterrupt):
        ensure(Stops(), vae, tmp_path)
    assert len(encoded) == 4
    latents = ensure(Split(), vae, tmp_path)
    assert len(encoded) == 7
    assert_holds(latents, Split(), vae)
    assert not [path for path in tmp_path.rglob('*') if path.name.startswith('.')]


def test_a_signal_stops_between_batches_and_the_rest_is_encoded_later(
        vae, tmp_path, encoded, listening):
    class Signalled(Split):
        def __getitem__(self, index):
            if index == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(index)

    with interrupt.deferred(), pytest.raises(interrupt.Interrupted):
        ensure(Signalled(), vae, tmp_path)
    assert len(encoded) == 4
    interrupt._asked = False
    assert_holds(ensure(Split(), vae, tmp_path), Split(), vae)
    assert len(encoded) == 7


def test_a_killed_build_continues_after_its_last_whole_file(vae, tmp_path, encoded):
    """The process ends without a word, in the middle of its second file."""
    code = f'''
import os, sys
sys.path[:0] = {sys.path!r}
from repdiff.latents import store
import test_cache
from pathlib import Path
import numpy as np
store.RECORDS = 3
writer = store.Writer(Path({str(tmp_path)!r}) / {vae.fingerprint()[:16]!r})
split = test_cache.Split().examples
for i in range(5):
    writer.add([store.key(split[i]['image'], split[i]['id'])],
               np.full((1, 2, 2, 4, 3, 4), i, np.float32))
os.kill(os.getpid(), 9)
'''
    run = subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parent, check=False)
    assert run.returncode == -9
    assert len(files(tmp_path)) == 1 and list(tmp_path.rglob('.partial-*'))
    latents = ensure(Split(), vae, tmp_path)
    assert len(encoded) == 4 and not list(tmp_path.rglob('.partial-*'))
    assert [float(latents[i]['moments'].max()) for i in range(3)] == [0, 1, 2]


def test_a_slow_build_finishes_files_by_time(vae, tmp_path, monkeypatch):
    monkeypatch.setattr(store, 'RECORDS', 1000)
    ensure(Split(), vae, tmp_path / 'fast')
    monkeypatch.setattr(store, 'SECONDS', 0.0)
    ensure(Split(), vae, tmp_path / 'slow')
    assert len(files(tmp_path / 'fast')) == 1 and len(files(tmp_path / 'slow')) == 4


def test_a_lost_file_encodes_its_images_anew(vae, tmp_path, encoded):
    ensure(Split(), vae, tmp_path)
    files(tmp_path)[0].unlink()
    encoded.clear()
    assert_holds(ensure(Split(), vae, tmp_path), Split(), vae)
    assert len(encoded) in (3, 4)


def test_a_damaged_table_is_made_again_from_the_records(vae, tmp_path, encoded):
    ensure(Split(), vae, tmp_path)
    [table] = tmp_path.glob('*/*.npz')
    table.write_bytes(table.read_bytes()[:100])
    assert_holds(ensure(Split(), vae, tmp_path), Split(), vae)
    assert len(encoded) == 7


@pytest.mark.parametrize('harm', ['cut', 'flip', 'empty'])
def test_damaged_records_are_one_sentence(vae, tmp_path, harm):
    ensure(Split(), vae, tmp_path)
    path = files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    if harm == 'flip':
        data[len(data) // 2:] = b'x' * (len(data) - len(data) // 2)
    path.write_bytes({'cut': data[:len(data) // 2], 'flip': data, 'empty': b''}[harm])
    with pytest.raises(UserError, match=f'{path} is damaged; remove it and run again'):
        latents = ensure(Split(), vae, tmp_path)
        [latents[i] for i in range(7)]


def test_a_place_that_cannot_be_written_is_one_sentence(vae, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot write latents to .*--config.cache'):
        ensure(Split(), vae, tmp_path / 'file')


def test_memory_does_not_grow_with_the_split(vae, tmp_path, monkeypatch):
    class Many(Split):
        """300 images, made when asked for, whose moments take 64 KiB each."""

        def __len__(self):
            return 300

        def __getitem__(self, index):
            return {'image': np.full((64, 64, 1), index % 256, np.uint8), 'label': np.int32(0),
                    'id': np.array([index, 0], np.uint32)}

    monkeypatch.setattr(cache, '_moments', lambda vae, images, batch: np.full(
        (len(images), 2, 2, 32, 32, 4), images[:, 0, 0].reshape(-1, 1, 1, 1, 1, 1), np.float32))
    monkeypatch.setattr(store, 'RECORDS', 1000)
    tracemalloc.start()
    try:
        latents = ensure(Many(), vae, tmp_path, batch=4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert latents[299]['moments'].max() == 299 - 256
    assert peak < 3 << 20  # of 19 MiB of moments


def test_empty_split_is_refused(vae, tmp_path):
    split = Split()
    split.examples = []
    with pytest.raises(UserError, match='no images'):
        ensure(split, vae, tmp_path)
