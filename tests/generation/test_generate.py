"""The command from end to end on random weights, and what its samples depend on."""

import base64
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repdiff import exhibits, finished, generate
from repdiff.errors import UserError
from repdiff.files import write_json
from repdiff.generation import conditions, features, regenerate, sampling
from repdiff.generation.conditions import Condition
from repdiff.generation.sampling import Settings
from repdiff.generation.studio import TRAINED_ON, Studio
from repdiff.latents.frontend import to_uint8

SETTINGS = Settings(sampler='ddpm', steps=3, guidance=1.0, seed=0)


@pytest.fixture(scope='module')
def studio(workdir):
    return Studio(workdir, finished.config_of(workdir), 'test', batch=8)


def prepared(studio, text, scale=1.0, row=''):
    condition = conditions.parse(text)
    model = studio.model(row or studio.row_for(condition))
    return model, conditions.prepare(condition, model, studio.setting, studio.dataset, scale=scale,
                                     seed=0, reference='test', out=studio.root)


def drawn(studio, text, directory, count=10, batch=8, settings=SETTINGS, **options):
    model, given = prepared(studio, text, scale=settings.guidance, **options)
    shards = sampling.samples(given, model, settings, count, directory, studio.setting, batch, '')
    return np.concatenate(list(shards)).astype(int)


def test_the_whole_table_with_its_figures(workdir, capsys):
    generate.main([f'--workdir={workdir}', '--samples=12', '--steps=3', '--batch=8'])
    table = json.loads((workdir / 'generate' / 'table.json').read_text())
    names = [row['name'] for row in table['rows']]
    assert names == ['real images (valid)', 'real images (pretrain)', 'unconditional_ldt none',
                     'rc_ldt label', 'rc_ldt images', 'rc_ldt density']
    for row in table['rows'][2:]:
        assert row['images'] == 12 and row['inception_score'] is None
        assert np.isfinite([row[key] for key in ('fid', 'sfid', 'kid', 'precision', 'recall',
                                                 'density', 'coverage')]).all()
        assert (row['copies']['source_distance'] is not None) == (row['condition'] == 'images')
        assert (workdir / 'generate' / f'{row["directory"]}.png').read_bytes()[:4] == b'\x89PNG'
    printed = capsys.readouterr().out
    assert 'joint ViT of rc_ldt' in printed and 'Against 16 test images' in printed
    assert max(map(len, printed.splitlines())) <= 100  # what a notebook does not wrap
    page = (workdir / 'report' / 'index.html').read_text()
    for name in ('figure7', 'figure9', *(row['directory'] for row in table['rows'][2:])):
        picture = (workdir / 'generate' / f'{name}.png').read_bytes()
        assert base64.b64encode(picture).decode() in page
    figure7 = json.loads((workdir / 'generate' / 'figure7.json').read_text())['distance']
    assert set(figure7) == {
        'unconditional, unconditional_ldt', 'its class, rc_ldt', 'its r, rc_ldt'}
    assert all(found['image'] > 0 and found['training'] > 0 for found in figure7.values())
    assert (workdir / 'generate' / 'figure9.png').exists()


def test_images_are_regenerated_from_the_noise_of_t(studio):
    model, z0 = studio.model('rc_ldt'), jnp.ones((2, *studio.setting.z_shape))
    settings, t, numbers = Settings('ddim', 5, 1.0, seed=0), 300, np.arange(2)

    def nothing(params, condition):  # DDIM then keeps z_t / √ᾱ_t all the way
        return lambda z_t, t: jnp.zeros_like(z_t)

    sampler = sampling.make_sampler(nothing, model, settings, studio.setting.z_shape, t)
    found = sampler(model.params, model.frozen, None, numbers, z0)
    schedule = model.pretrain.schedule
    noise, both = (sampling.noised(z, t, schedule, 0, numbers) for z in (0 * z0, z0))
    alpha = float(both.mean() - noise.mean())  # of z0 = 1
    betas = np.linspace(1e-4, 0.02, 1000)
    assert alpha == pytest.approx(np.sqrt(np.prod(1 - betas[:t + 1])), rel=1e-3)
    assert float(noise.std()) == pytest.approx(np.sqrt(1 - alpha**2), rel=0.1)
    expected = to_uint8(model.frozen['frontend'].decode(both / alpha)).astype(int)
    assert np.abs(np.asarray(found, int) - expected).max() <= 1


def test_figure_7_names_what_it_gives_back_and_takes_the_row_that_is_asked_for(studio):
    _, near = regenerate.figure7(studio, SETTINGS, 1, '')
    _, far = regenerate.figure7(studio, SETTINGS, 600, '')
    assert all(near[words]['image'] < far[words]['image'] for words in near)
    assert {found['verdict'] for found in near.values()} == {'near-reconstruction'}
    assert {found['verdict'] for found in far.values()} == {'neither'}
    _, asked = regenerate.figure7(studio, SETTINGS, 1, 'rc_ldt_paper')
    assert set(asked) == {'its class, rc_ldt_paper', 'its r, rc_ldt_paper'}
    with pytest.raises(UserError, match='never learned to denoise without a condition'):
        conditions.check(Condition('images'), studio.model('rc_ldt_paper'), 2.0)


def test_under_figure_9_stand_the_distances_from_the_image_and_from_training(studio, monkeypatch):
    drawn = []
    monkeypatch.setattr(regenerate.figures, 'pictures', lambda *given: drawn.extend(given) or b'')
    regenerate.figure9(studio, SETTINGS, (50, 600))
    lines, title, heads = drawn
    assert [name for name, _, _ in lines] == [
        'rc_ldt, r kept', 'rc_ldt, r dropped', 'rc_ldt_paper, r kept', 'rc_ldt_paper, r dropped',
        'unconditional_ldt'] and heads == ['the image', 't = 50', 't = 600']
    shown = studio.setting.frontend
    for _, images, words in lines:
        flat = np.asarray(to_uint8(shown.decode(shown.encode(images)))).reshape(3, -1).astype(float)
        off = np.sqrt(np.square(flat[1:] - flat[0]).mean(1))
        near = studio.compare(images[1:], images[1:]).nearest
        assert words == ['', *(f'{a:.1f} · {b:.1f}' for a, b in zip(off, near))]
    assert f'real images lie {np.median(studio.real_distances):.1f} from theirs' in title


def test_the_predicted_clean_image_is_the_denoisers_with_r_and_without(studio):
    model, t, key = studio.model('rc_ldt'), np.array([50, 600]), jax.random.key(1)
    image = studio.dataset.split('valid')[0]['image']
    found = exhibits.z0_over_t(
        model.pretrain, model.params['pretrain'], model.frozen, image, t, key)
    front, weights = model.frozen['frontend'], {'params': model.params['pretrain']['denoiser']}
    z0 = front.encode(image[None])
    eps = jax.random.normal(key, z0.shape[1:])
    r = model.represent(model.params, model.frozen, {'image': jnp.asarray(image)[None]})
    for j, step in enumerate(t):
        bar = float(np.prod(1 - np.linspace(1e-4, 0.02, 1000)[:step + 1]))
        z_t = np.sqrt(bar) * z0 + np.sqrt(1 - bar) * eps
        for kind, condition in (('kept', [r]), ('dropped', [])):
            said = model.pretrain.denoiser.apply(weights, z_t, jnp.array([step]), *condition)
            clean = to_uint8(front.decode((z_t - np.sqrt(1 - bar) * said) / np.sqrt(bar)))
            off = np.abs(found[kind][j].astype(int) - np.asarray(clean[0], int))
            assert off.max() <= 2, (kind, step)
    assert np.abs(found['kept'].astype(int) - found['dropped']).max() > 9


def test_a_sample_depends_on_seed_and_number_alone(studio, tmp_path):
    for text in ('density', 'label'):
        whole = drawn(studio, text, tmp_path / text)
        parts = drawn(studio, text, tmp_path / f'{text}-parts', count=3, batch=16)
        assert np.abs(whole[:3] - parts).max() <= 1  # of 255, after other roundings
        other = Settings('ddpm', 3, 1.0, seed=1)
        assert np.abs(whole - drawn(studio, text, tmp_path / f'{text}-1', settings=other)).max() > 9


def test_a_row_is_found_for_what_it_can_and_the_rest_of_the_table_left_out(studio, capsys):
    rows = ('rc_ldt_paper', 'rc_ldt')
    recipes = {row: studio.recipes[row] for row in rows}
    found = {kind: conditions.row_for(Condition(kind), recipes) for kind in ('images', 'density')}
    assert found == {'images': 'rc_ldt_paper', 'density': 'rc_ldt'}

    def table(recipes, row=''):
        few = types.SimpleNamespace(row_for=lambda asked: conditions.row_for(asked, recipes),
                                    model=studio.model)
        return [condition.kind for condition in generate._of_table(few, row, 1.0)]

    assert table({'rc_ldt_paper': recipes['rc_ldt_paper']}) == ['label', 'images']
    assert capsys.readouterr().err.count('left out: --condition') == 2
    assert table({}, 'rc_ldt_paper') == ['label', 'images']
    assert table({}, 'unconditional_ldt') == ['none', 'label']
    assert table({}, 'rc_ldt') == list(generate.TABLE)
    with pytest.raises(UserError, match='no row of this run can generate;'):
        table({})
    with pytest.raises(UserError, match="has no row 'mine'"):
        table({}, 'mine')


def test_sets_of_samples_do_not_mix(workdir, tmp_path):
    """The density is another where the pre-training images are the reference."""
    made = []
    for reference in ('test', 'pretrain'):
        studio = Studio(workdir, finished.config_of(workdir), reference, batch=8)
        order = studio.order(Condition('density'), '', SETTINGS)
        made.append(sampling.directory_of(tmp_path, order.model, 'density', order.given, SETTINGS))
    assert made[0] != made[1]


def test_stopped_sampling_goes_on_where_it_was(studio, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, 'SHARD', 4)
    whole = drawn(studio, 'none', tmp_path / 'a')
    kept, lost = sampling.shard_file(tmp_path / 'a', 0), sampling.shard_file(tmp_path / 'a', 1)
    before = kept.stat().st_mtime_ns
    lost.unlink()
    np.testing.assert_array_equal(drawn(studio, 'none', tmp_path / 'a', count=12)[:10], whole)
    assert kept.stat().st_mtime_ns == before


def test_guidance_of_r_and_of_labels(studio, tmp_path):
    """Scale 1 is the conditional model; r and labels matter, and more at a higher scale."""
    for text, row in (('images', 'rc_ldt'), ('label:1', 'unconditional_ldt')):
        model, given = prepared(studio, text, row=row)
        _, stronger = prepared(studio, text, 3.0, row=row)
        numbers = np.arange(4)
        z = jax.random.normal(jax.random.key(0), (4, *studio.setting.z_shape))
        condition, t = jnp.asarray(given.values(numbers)), jnp.full(4, 30)
        once, more = (np.asarray(each.denoise(model.params, condition)(z, t))
                      for each in (given, stronger))
        free = np.asarray(model.free(model.params)(z, t))
        if text == 'images':
            weights = {'params': model.params['pretrain']['denoiser']}
            np.testing.assert_array_equal(
                once, model.pretrain.denoiser.apply(weights, z, t, condition))
        else:  # compiled, as one of two denoisers
            expected = model.tune.denoise(model.params['tune'], z, t, condition)
            np.testing.assert_allclose(once, expected, atol=1e-5)
        assert np.abs(once - free).max() > 1e-2
        np.testing.assert_allclose(more - free, 3 * (once - free), atol=1e-4)


def test_labels_steer_where_the_row_was_tuned(studio):
    model, given = prepared(studio, 'label:1')
    assert model.tune.t_range == (0, 100)
    z, condition = jnp.ones((2, *studio.setting.z_shape)), jnp.ones(2, int)
    for t, expected in ((99, lambda *a: model.tune.denoise(model.params['tune'], *a, condition)),
                        (100, model.free(model.params))):
        t = jnp.full(2, t)
        np.testing.assert_allclose(given.denoise(model.params, condition)(z, t), expected(z, t),
                                   atol=1e-5)


def test_token_r_and_lines_between_images(studio, tmp_path):
    model, given = prepared(studio, 'between', row='rc_ldt_paper')
    steps = conditions.STEPS_BETWEEN
    r = given.values(np.arange(2 * steps))
    np.testing.assert_allclose(r[3], r[0] + 3 / (steps - 1) * (r[steps - 1] - r[0]), atol=1e-5)
    np.testing.assert_array_equal(given.noise(np.arange(2 * steps)), np.repeat([0, 1], steps))
    np.testing.assert_array_equal(given.sources(np.array([0]))[0], given.sources(np.array([3]))[0])
    assert drawn(studio, 'between', tmp_path, row='rc_ldt_paper').shape == (10, 32, 32, 1)


def test_a_training_image_lies_nowhere_from_training(studio):
    """Of the image that the latents show of it; of another, as far as the nearest of all."""
    shown = studio.setting.frontend
    training = np.concatenate([studio.dataset.load(name)['image'] for name in TRAINED_ON])
    asked = np.stack([training[5], studio.dataset.split('test')[0]['image']])
    flat = [np.asarray(to_uint8(shown.decode(shown.encode(images)))).reshape(len(images), -1)
            for images in (asked, training)]
    every = np.sqrt(np.square(flat[0][:, None].astype(float) - flat[1]).mean(-1))
    found = studio.compare(asked, asked)
    np.testing.assert_allclose(found.nearest, every.min(1), atol=1e-6)
    np.testing.assert_array_equal(found.number, every.argmin(1))
    assert every.min(1)[0] == 0 < every.min(1)[1]


def test_features_are_sharded_and_kept(studio, tmp_path):
    network = features.joint(studio.model('rc_ldt'))
    shards = features.RealShards(studio.dataset.split('valid'))
    found = features.extract(shards, shards.count, network, tmp_path, studio.mesh, 8, '')
    direct = network.apply(network.params, jnp.asarray(shards[0]))
    for kind, values in direct.items():
        np.testing.assert_allclose(np.concatenate(list(found[kind])), values, atol=1e-5)
    assert found['spatial'][0].shape == (16, 7 * 16)
    [kept] = (tmp_path / network.key).iterdir()
    before = kept.stat().st_mtime_ns
    features.extract(shards, shards.count, network, tmp_path, studio.mesh, 8, '')
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize('options, words', [
    (['--condition=nothing'], 'is none of none, label'),
    (['--condition=label:blood'], 'the classes are'),
    (['--condition=images:test'], 'would make the measures copies'),
    (['--condition=between', '--reference=valid'], 'would make the measures copies'),
    (['--condition=images:nowhere'], 'the splits are'),
    (['--condition=between:a,b'], 'two ids of validation images'),
    (['--condition=none', '--row=rc_ldt_paper'], 'never worked without r'),
    (['--condition=images', '--row=unconditional_ldt'], 'pre-trained without r'),
    (['--condition=density', '--row=rc_ldt_paper'], 'one vector r an image'),
    (['--condition=images', '--row=rc_ldt_paper', '--guidance=2'], 'never learned to denoise'),
    (['--row=resnet'], 'has no row'),
    (['--row=vit'], "'vit' generates nothing .*; choose a row that denoises"),
    (['--reference=all'], 'the splits are'),
    (['--sampler=euler'], 'choose ddim or ddpm'),
    (['--steps=1'], 'choose 2 to 1000'),
    (['--samples=5'], 'too few to measure'),
    (['--batch=0'], '--batch is 0; give at least 1'),
    (['--seed=-1'], '--seed is -1; give at least 0'),
    (['--from-t=1000', '--samples=12', '--steps=3'], 'choose 1 to 999'),
    (['--inception=nowhere'], 'holds no converted weights'),
    (['--colour'], 'unrecognized arguments'),
])
def test_bad_input_is_one_sentence(workdir, options, words):
    with pytest.raises(UserError, match=words):
        generate.main([f'--workdir={workdir}', *options])


def test_a_workdir_that_is_none_or_not_trained_or_of_other_data(tmp_path, workdir):
    def refused(words):
        with pytest.raises(UserError, match=words):
            generate.main([f'--workdir={tmp_path}', '--condition=none'])

    refused('has no config.json')
    config, card = (json.loads((workdir / name).read_text()) for name in (
        'config.json', 'card.json'))
    write_json(tmp_path / 'config.json', config)
    refused('card.json is missing')
    write_json(tmp_path / 'card.json', card | {'data_fingerprint': 'f' * 64})
    refused(r'of other data \(fingerprint ffffffff\)')
    write_json(tmp_path / 'card.json', card)
    refused('has no checkpoint')
    write_json(tmp_path / 'config.json', config | {'rows': ['unconditional_ldt']})
    refused('no row of this run has a joint ViT')


def test_r_comes_from_no_image_of_the_reference_under_another_split_name(studio):
    """As where the training images are pre-trained on, too."""
    class Shared:
        splits = studio.dataset.splits

        def split(self, name):
            return studio.dataset.split('train' if name == 'pretrain' else name)

    model, shared = studio.model('rc_ldt'), Shared()
    for text, reference in [
            ('density', 'train'), ('density', 'pretrain'), ('images:pretrain', 'train')]:
        with pytest.raises(UserError, match='would make the measures copies'):
            conditions.prepare(conditions.parse(text), model, studio.setting, shared, scale=1.0,
                               seed=0, reference=reference, out=studio.root)
