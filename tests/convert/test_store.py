"""The command, the converted directory and where sources come from."""

import json
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from safetensors.numpy import save_file

import layouts
from proven import HEADS, converted, golden
from repdiff.convert import hub, store, weights
from repdiff.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A folder as downloaded from the hub, with a tiny DINOv2."""
    path = tmp_path / 'dinov2-tiny'
    path.mkdir()
    save_file(golden('dinov2')[0], path / 'model.safetensors')
    (path / 'config.json').write_text(json.dumps(HEADS))
    return path


def test_command_writes_weights_and_their_origin(folder, tmp_path):
    source, out = folder / 'model.safetensors', tmp_path / 'made' / 'dinov2'
    command = [sys.executable, '-m', 'repdiff.convert', 'dinov2', f'--source={source}',
               f'--out={out}']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    info = json.loads((out / 'convert.json').read_text())
    assert info['sha256'] == weights.sha256(source) and 'Apache' in info['licence']
    fields, params = store.load(out, 'dinov2')
    assert info['parameters'] == store.count(params) and fields['grid'] == (4, 4)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.strip() == (f'repdiff: {out} already exists; choose another --out, or '
                                    'remove it first.')


def test_folder_and_file_give_the_same_parameters(folder, tmp_path):
    one = store.convert('dinov2', str(folder), tmp_path / 'one')
    two = store.convert('dinov2', str(folder / 'model.safetensors'), tmp_path / 'two')
    assert {**one, 'source': ''} == {**two, 'source': ''}


@pytest.mark.parametrize('kind', ['sd_vae', 'dit'])
def test_wrong_family_is_refused(folder, tmp_path, kind):
    with pytest.raises(UserError, match='does not hold'):
        store.convert(kind, str(folder / 'model.safetensors'), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['dit', 'sd_vae'])
def test_other_families_are_not_dinov2(tmp_path, name):
    with pytest.raises(UserError, match='does not hold DINOv2'):
        converted(tmp_path, 'dinov2', golden(name)[0], {})


def test_wrong_sizes_are_listed(tmp_path):
    state = golden('dinov2')[0]
    state['encoder.layer.1.mlp.fc2.weight'] = state['encoder.layer.1.mlp.fc2.weight'][:, 1:]
    del state['encoder.layer.0.norm1.bias']
    with pytest.raises(UserError, match=r'blocks/norm1/bias.*fc2\.weight \[32, 127\]'):
        converted(tmp_path, 'dinov2', state, HEADS)


@pytest.mark.parametrize('config,says', [({}, 'no published size'),
                                         ({'num_attention_heads': 5}, 'do not divide')])
def test_heads_must_be_known(tmp_path, config, says):
    with pytest.raises(UserError, match=says):
        converted(tmp_path, 'dit', layouts.dit_meta(golden('dit')[0]), config)


def test_positions_must_be_a_square(tmp_path):
    state = golden('dinov2')[0]
    state['embeddings.position_embeddings'] = state['embeddings.position_embeddings'][:, 1:]
    with pytest.raises(UserError, match='not a square grid'):
        converted(tmp_path, 'dinov2', state, HEADS)


def test_killed_half_way_leaves_nothing(folder, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, 'write_json', killed)
    with pytest.raises(KeyboardInterrupt):
        store.convert('dinov2', str(folder), tmp_path / 'out')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['dinov2-tiny']


def test_load_refuses_other_kinds_and_damage(folder, tmp_path):
    out = tmp_path / 'out'
    store.convert('dinov2', str(folder), out)
    with pytest.raises(UserError, match='holds converted dinov2 weights, but dit is needed'):
        store.load(out, 'dit')
    with pytest.raises(UserError, match='holds no converted weights'):
        store.load(tmp_path, 'dinov2')
    for path in (out / 'params').rglob('*'):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])
    with pytest.raises(UserError, match='are damaged'):
        store.load(out, 'dinov2')
    (out / 'convert.json').write_text('{"kind": "dinov2"}')
    with pytest.raises(UserError, match='holds no converted weights'):
        store.load(out, 'dinov2')


def fake_hub(repository: dict, cache: dict | None = None, head=lambda url, timeout: None):
    """The hub's library, over files here; `head` is what the network does."""
    module = types.ModuleType('huggingface_hub')
    module.constants = types.SimpleNamespace(ENDPOINT='https://hub')
    module.utils = types.SimpleNamespace(get_session=lambda: types.SimpleNamespace(head=head))
    module.try_to_load_from_cache = lambda source, name: (cache or {}).get(name)
    module.list_repo_files = lambda source: list(repository)
    module.hf_hub_download = lambda source, name: str(repository[name])
    return module


def test_hub_id_is_downloaded_with_its_config(folder, tmp_path, monkeypatch):
    repository = {f'{name}': folder / name for name in ('config.json', 'model.safetensors')}
    monkeypatch.setitem(sys.modules, 'huggingface_hub', fake_hub(repository))
    info = store.convert('dinov2', 'someone/dinov2-tiny', tmp_path / 'out')
    assert info['source'] == 'someone/dinov2-tiny' and info['fields']['heads'] == 2


def test_vae_in_a_pipeline_repository_is_found(tmp_path, monkeypatch):
    name = 'vae/diffusion_pytorch_model.safetensors'
    monkeypatch.setitem(sys.modules, 'huggingface_hub', fake_hub({name: tmp_path / 'vae'}))
    assert hub.locate('someone/sd', store.KINDS['sd_vae'].FILES) == tmp_path / 'vae'


def test_repository_without_the_weights_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', fake_hub({'README.md': ''}))
    with pytest.raises(UserError, match='someone/empty holds none of model.safetensors'):
        hub.locate('someone/empty', ('model.safetensors',))


def fails(*_, **__):
    raise ConnectionError


def hangs(*_, **__):
    time.sleep(60)


def missing(*_):
    raise LookupError


@pytest.mark.parametrize('module', [None, fake_hub({}, head=fails), fake_hub({}, head=hangs)])
def test_without_hub_library_or_network_the_message_says_what_to_fetch(monkeypatch, module):
    says = 'fetch model.safetensors.*https://huggingface.co/facebook/dinov2-base.*--source=FILE'
    if module:
        module.list_repo_files = missing  # the library is not asked, so that it cannot retry
    monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
    monkeypatch.setattr(hub, 'REACH_S', 0.1)
    with pytest.raises(UserError, match=says) as refusal:
        hub.locate('facebook/dinov2-base', ('model.safetensors',))
    assert 'LookupError' not in str(refusal.value)


def test_a_wrong_name_is_told_from_a_missing_network(monkeypatch):
    module = fake_hub({})
    module.list_repo_files = missing
    monkeypatch.setitem(sys.modules, 'huggingface_hub', module)
    with pytest.raises(UserError, match='cannot download .*LookupError.*check the name'):
        hub.locate('facebook/dinov3', ('model.safetensors',))


def test_without_network_an_earlier_download_is_used(monkeypatch, tmp_path):
    cache = {'model.safetensors': object(),  # which says that the hub does not have it
             'pytorch_model.bin': str(tmp_path / 'pytorch_model.bin')}
    monkeypatch.setitem(sys.modules, 'huggingface_hub', fake_hub({}, cache, fails))
    found = hub.locate('facebook/dinov2-base', ('model.safetensors', 'pytorch_model.bin'))
    assert found == tmp_path / 'pytorch_model.bin'


@pytest.mark.parametrize('source', ['weights/dinov2.pth', 'dinov2', '/none/there.safetensors'])
def test_mistyped_paths_are_not_taken_for_hub_ids(source):
    with pytest.raises(UserError, match='is not there'):
        hub.locate(source, ('model.safetensors',))


def test_params_come_back_to_the_bit(tmp_path):
    state = golden('dit')[0]
    _, params = converted(tmp_path, 'dit', state, HEADS)
    np.testing.assert_array_equal(params['final']['linear']['kernel'], state['proj_out_2.weight'].T)


def test_an_out_that_cannot_be_made_is_one_sentence_before_any_reading(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot make'):
        store.convert('dinov2', str(tmp_path / 'missing.safetensors'), tmp_path / 'file' / 'out')
