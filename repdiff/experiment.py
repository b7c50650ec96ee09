"""The recipe in order: data, pre-train, tune, classify, report. What the workdir has is not redone."""

import json
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from repdiff import config as configs
from repdiff import (
    cluster, exhibits, explain, finished, methods, phases, published, report, results, scores,
    sharding,
)
from repdiff.card import Card
from repdiff.data import phantom, pipeline, records, sources
from repdiff.data.arrange import KEYS, Arrangement, arrange
from repdiff.data.arranged import Arranged
from repdiff.data.settings import SIMULATED, DataSettings
from repdiff.errors import UserError
from repdiff.eval import floors
from repdiff.files import read_json, write_json, write_npz
from repdiff.latents import cache, frontend
from repdiff.latents.vae import Vae
from repdiff.methods.denoise import FIGURE_T
from repdiff.methods.row import Bench

SAMPLES = 8  # slices of a class in the sample figure


def run(config: ConfigDict, workdir: Path) -> None:
    """Runs or resumes the whole experiment in `workdir`.

    Raises UserError on a workdir of another config and on anything wrong with the input.
    """
    recipes = {row: configs.recipe(config, row) for row in config.rows}
    claim(workdir, config)
    mesh = sharding.make_mesh(**{axis: config.mesh[axis] for axis in sharding.AXES})
    cluster.connect(mesh)
    for recipe in recipes.values():
        phases.check_batches(recipe, mesh)
    dataset = prepared(config)
    setting = make_setting(config, list(recipes.values()), dataset, mesh)
    card = Card(workdir, config, dataset.info['fingerprint'])
    if cluster.is_first():
        finished.keep(workdir, dataset.info, setting.frontend)
        write_npz(
            workdir / 'report' / 'samples.npz',
            **exhibits.samples(dataset.split('train'), 'train', dataset.info['markers'],
                               len(setting.classes), SAMPLES),
        )
    bench = Bench(workdir, card, _figure_image(dataset))
    z0_figures = {'image': bench.shown[..., 0], 't': np.array(FIGURE_T)}
    for row, recipe in recipes.items():
        z0_figures |= _row(recipe, row, setting, dataset, bench)
    answers = [results.answer(row, workdir, config.seed) for row in config.rows]
    explained = [answer for answer in answers if recipes[answer.name].method == 'denoise'][:1]
    evidence = explain.exhibit(workdir, explained[0], dataset, mesh) if explained else {}
    if cluster.is_first():
        write_npz(workdir / 'report' / 'z0_over_t.npz', **z0_figures)
        arrays = (dataset.load(split) for split in ('train', 'valid', 'test'))
        rows = answers + floors.floors(*arrays, classes=len(setting.classes))
        results.write(workdir, config, results.dataset(dataset.info), rows, evidence=evidence)
        card.rules(rows)
        report.write(workdir)
        print(f'report: {workdir / "report" / "index.html"}')
    cluster.wait_for_all('report')


def make_setting(
    config: ConfigDict, recipes: list[ConfigDict], dataset: records.Dataset, mesh: Mesh
) -> phases.Setting:
    """What all rows share, on the mesh. Raises UserError on what one of the `recipes` cannot have."""
    splits = {name: pipeline.examples(dataset.split(name)) for name in dataset.info['splits']}
    front = cluster.of_first(fit_frontend(config, splits['pretrain']))
    z_shape = jax.eval_shape(front.encode, splits['pretrain'][0]['image'][None]).shape[1:]
    image_shape = splits['pretrain'][0]['image'].shape
    for recipe in recipes:  # what a row cannot have shows before any runs
        methods.room(recipe).check(recipe, z_shape, image_shape)
    if config.latents.kind == 'sd_vae':
        pixels = any(methods.room(recipe).sees_pixels(recipe) for recipe in recipes)
        splits = cached(config, front, splits, dataset.info['fingerprint'], pixels)
    return phases.Setting(
        mesh, splits, tuple(dataset.info['classes']),
        sharding.to_all(front, mesh), z_shape, jax.random.key(config.seed),
        dataset.split('valid').column('patient'),
    )


def claim(workdir: Path, config: ConfigDict) -> None:
    """Makes `workdir` this config's, or checks that it is. Raises UserError if it is another's.

    A run may be resumed with other values of what no result depends on (`RESUMABLE`). Where nothing
    but its config is there, as after bad input was refused, there is nothing to resume.
    """
    path, wanted = workdir / 'config.json', json.loads(config.to_json())
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'--workdir: cannot make {str(workdir)!r}: {error.strerror}; choose another directory.'
        ) from None
    cluster.check_shared(workdir, '--workdir')
    before = read_json(path, 'choose another --workdir') if path.exists() else wanted
    ours = before.keys() == wanted.keys()  # not another program's config.json
    if ours and all(place.is_dir() or place.name == path.name for place in workdir.rglob('*')):
        before = wanted
    key = first_difference(before | {name: wanted[name] for name in finished.RESUMABLE}, wanted)
    if key is not None:
        raise UserError(
            f'{path}: the workdir belongs to a run with another value of {key}; choose another '
            '--workdir, or repeat the command that began it to resume.'
        )
    cluster.wait_for_all('claim')
    if cluster.is_first():
        write_json(path, wanted)


def first_difference(old, new, prefix: str = 'config') -> str | None:
    """The first key in which two JSON values differ, or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            if key not in old or key not in new:
                return f'{prefix}.{key}'
            found = first_difference(old[key], new[key], f'{prefix}.{key}')
            if found:
                return found
        return None
    return None if old == new else prefix


def fit_frontend(config: ConfigDict, split) -> frontend.PatchBasis | Vae:
    """The front end of `config.latents`: the VAE, or a basis of pre-training images.

    A basis is fitted on evenly spaced images of the pre-training `split`.
    """
    latents = config.latents
    if latents.kind == 'sd_vae':
        return published.vae(config, split[0]['image'].shape[-1])
    chosen = np.linspace(0, len(split) - 1, min(latents.fit_images, len(split))).astype(int)
    images = np.stack([split[int(index)]['image'] for index in chosen])
    if latents.kind == 'pca':
        return frontend.fit_pca(images, latents.patch, latents.channels, latents.whiten)
    if latents.kind == 'haar':
        return frontend.fit_haar(images, latents.patch, latents.whiten)
    raise UserError(f"config.latents.kind is {latents.kind!r}; choose 'pca', 'haar' or 'sd_vae'.")


def prepared(config: ConfigDict) -> records.Dataset | Arranged:
    """The data as the config arranges them, prepared once: by the first process where hosts share
    the cache, else by each.

    Raises UserError where hosts got different data.
    """
    data, test = config.data, config.eval
    wanted = Arrangement(
        folds=test.folds, fold=test.fold, fold_splits=tuple(test.fold_splits),
        fractions=data.fractions.to_dict(), pretrain_on=tuple(data.pretrain_on),
        keep=data.keep.to_dict(), seed=config.seed,
    )
    own, *others = (
        records.open(cluster.first_then_rest(
            lambda source=source: sources.ensure_prepared(settings(config, source), config.cache),
            config.cache,
        ))
        for source in (data.source, *wanted.others)
    )
    dataset = arrange(own, others, wanted)
    cluster.check_same(
        dataset.info['fingerprint'],
        f'the hosts prepared different data in config.cache={config.cache!r}; put the cache on a '
        'file system that they share, or prepare the data once with python -m repdiff.prepare.'
    )
    return dataset


def cached(
    config: ConfigDict, vae: Vae, splits: dict, fingerprint: str, pixels: bool
) -> dict[str, cache.LatentExamples]:
    """The splits as latents, encoded once in the run's cache; with `pixels`, images beside them."""
    root = Path(config.cache).expanduser() / 'latents'

    def latents(name: str) -> cache.Latents:
        return cache.ensure(splits[name], vae, root, name=name, fingerprint=fingerprint,
                            batch=config.latents.encode_batch)

    return {
        name: cache.LatentExamples(
            cluster.first_then_rest(lambda name=name: latents(name), root),
            split if pixels else None,
        )
        for name, split in splits.items()
    }


def _row(
    config: ConfigDict, row: str, setting: phases.Setting, dataset, bench: Bench
) -> dict[str, np.ndarray]:
    """Trains and scores one row; returns its figures. Finished parts are read back.

    Until the row's answers to the test split are asked for, nothing has that split.
    """
    room, blind, workdir = methods.room(config), setting.blind(), bench.workdir
    trained = room.train(config, row, blind, bench)
    if not cluster.of_first(np.int32(scores.is_done(workdir, row))):
        began = time.monotonic()
        chosen = room.choose(config, row, blind, trained, workdir)
        arrays, facts = chosen.answer(setting)
        facts |= trained.facts() | chosen.facts | {'eval_seconds': time.monotonic() - began}
        if cluster.is_first():
            scores.write(workdir, row, dataset, chosen.arrays | arrays, chosen.decision, facts)
    if cluster.is_first():
        seconds = scores.read_facts(workdir, row)['eval_seconds']
        bench.card.phase(f'{row}.classify', seconds, setting.mesh.size)
    cluster.wait_for_all(f'{row} scored')
    return trained.figures


def _figure_image(dataset) -> np.ndarray:
    """The validation slice (H, W, C) of the z0' figure: the first of class 1."""
    split = dataset.split('valid')
    records_of = (split[i] for i in range(len(split)))
    return next(record['image'] for record in records_of if record['label'] == 1)


def settings(config: ConfigDict, source: str) -> DataSettings:
    """`config.data` as the data room takes it, of its own `source` or another that is pre-trained on.

    The simulation gets the run's seed and image size; another source has labels of its own. What
    the config leaves as the base has it, a prepared source decides (`RENDERED`).
    """
    data, usual = config.data.to_dict(), configs.base().data
    data |= {key: value for key, value in sources.prepared_rendering(source).items()
             if data[key] == usual[key]}
    if source != data['source']:
        data |= {'source': source, 'labels': '', 'split_column': '', 'pretrain_facilities': (),
                 'downstream_facilities': ()}
    for name in KEYS:
        del data[name]
    simulated = phantom.Settings(
        image_size=data['image_size'], seed=config.seed, **data.pop('simulated')
    )
    return DataSettings(
        **data, name=config.name, files=(), seed=config.seed,
        simulated=simulated if source == SIMULATED else None,
    )
