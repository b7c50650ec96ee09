"""Conversions against the PyTorch originals themselves, with other seeds, shapes and settings."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('diffusers')
pytest.importorskip('transformers')

import layouts
import references
from proven import DIT, HEADS, assert_close, converted
from repdiff.convert import store
from repdiff.models.autoencoder import AutoencoderKL
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT


@pytest.mark.parametrize('registers,gated', [(0, False), (0, True), (4, False), (2, True)])
def test_dinov2(tmp_path, registers, gated):
    model, published = references.dinov2(registers, gated, seed=11)
    assert set(layouts.dinov2_new(published)) == set(model.state_dict())
    fields, params = converted(tmp_path, 'dinov2', published, HEADS)
    vit = ViT(**fields, unroll=True)
    for size in ((16, 16), (12, 28)):
        x = references.images(5, 2, 3, *size)
        out = jax.jit(lambda x: vit.apply({'params': params}, x))(references.last(x))
        tokens = np.concatenate([out['cls'][:, None], out['registers'], out['patches']], axis=1)
        assert_close(tokens, references.dinov2_outputs(model, x)['tokens'])


def test_dinov2_saved_by_transformers_is_read_as_a_folder(tmp_path):
    model, published = references.dinov2(4, True, seed=12)
    model.save_pretrained(tmp_path / 'hub')
    store.convert('dinov2', str(tmp_path / 'hub'), tmp_path / 'folder')
    _, params = converted(tmp_path, 'dinov2', published, HEADS)
    saved = store.load(tmp_path / 'folder', 'dinov2')[1]
    jax.tree.map(np.testing.assert_array_equal, saved, params)


def test_sd_vae_saved_by_diffusers(tmp_path):
    model = references.vae(layers=2, seed=13)
    model.save_pretrained(tmp_path / 'hub')
    store.convert('sd_vae', str(tmp_path / 'hub'), tmp_path / 'out')
    fields, params = store.load(tmp_path / 'out', 'sd_vae')
    assert fields['scale'] == model.config.scaling_factor
    vae = AutoencoderKL(**fields)
    x, z = references.images(6, 1, 3, 24, 16), references.images(7, 1, 4, 3, 2)
    want = references.vae_outputs(model, x, z)
    mean, std = jax.jit(lambda x: vae.apply({'params': params}, x, method='encode'))(
        references.last(x))
    assert_close(mean / vae.scale, want['mean'])
    assert_close(std / vae.scale, want['std'])
    image = jax.jit(lambda z: vae.apply({'params': params}, z, method='decode'))(
        vae.scale * references.last(z))
    assert_close(image, want['image'])


@pytest.mark.parametrize('layout,learn_sigma', [
    ('diffusers', False), ('diffusers', True), ('meta', False)])
def test_dit(tmp_path, layout, learn_sigma):
    for size in (8, 6):
        trained = 8 if layout == 'diffusers' else size  # Meta's knows one size only
        model = references.dit(trained, layout, learn_sigma, seed=14)
        state = references.state(model)
        folder = tmp_path / str(size)
        folder.mkdir()
        fields, params = converted(
            folder, 'dit', layouts.dit_meta(state) if layout == 'meta' else state, DIT)
        assert_dit(model, fields, params, size)


def test_dit_epsilon_is_that_of_the_config(tmp_path):
    """So large that it cannot be missed."""
    model = references.dit(8, 'diffusers', True, seed=14)
    for block in model.transformer_blocks:
        block.norm3.eps = 0.5
    fields, params = converted(tmp_path, 'dit', references.state(model), DIT | {'norm_eps': 0.5})
    assert_dit(model, fields, params, 8)


def assert_dit(model: torch.nn.Module, fields: dict, params: dict, size: int):
    """The converted DiT computes what the original does on latents of `size`."""
    dit = DiT(**fields, unroll=True)
    z_t = references.images(8, 3, 4, size, size)
    t, labels = [0, 500, 999], [0, 4, 5]
    out = jax.jit(lambda *inputs: dit.apply({'params': params}, *inputs))(
        references.last(z_t), np.array(t), np.array(labels))
    assert_close(out, references.dit_output(model, z_t, t, labels))


def test_meta_pt_file_with_its_training_state(tmp_path):
    """What DiT's train.py saves: weights under 'ema' and 'model', with arguments beside them."""
    state = {name: torch.from_numpy(value) for name, value in
             layouts.dit_meta(references.state(references.dit(8, 'meta', True, seed=15))).items()}
    path = tmp_path / 'DiT.pt'
    torch.save({'model': {name: value + 1 for name, value in state.items()}, 'ema': state}, path)
    (tmp_path / 'config.json').write_text('{"num_attention_heads": 2}')
    store.convert('dit', str(path), tmp_path / 'out')
    params = store.load(tmp_path / 'out', 'dit')[1]
    np.testing.assert_array_equal(params['t_embed']['fc1']['kernel'],
                                  state['t_embedder.mlp.0.weight'].numpy().T)
