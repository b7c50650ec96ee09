"""Distillation and probes as a user runs them, on three classes: kill -9, then the same numbers."""

import sys

import numpy as np
import pytest
from PIL import Image
from test_main import kill_when, numbers, run

from configs import cifar10, ct_ich, hematoma
from repdiff import config as configs

ROWS = ('dinov2', 'dinov2_probe', 'rc_ldt_probe', 'ldt_probe')
CLASSES = ('disc', 'ring', 'square')
IMAGES = {'pretrain': 24, 'train': 24, 'valid': 18, 'test': 18}


def write_pictures(root):
    """Pictures of 16 pixels of three shapes in noise, with a labels.csv that names their splits."""
    rng, lines = np.random.default_rng(0), ['file,label,split']
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    far, wide = np.hypot(x, y), np.maximum(abs(x), abs(y))
    shapes = {'disc': far < 0.5, 'ring': (far > 0.5) & (far < 0.9), 'square': wide < 0.7}
    for split, count in IMAGES.items():
        for number in range(count):
            kind, name = CLASSES[number % 3], f'{split}-{number}.png'
            noisy = 60 + 90 * shapes[kind] + rng.normal(0, 20, (16, 16))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name)
            lines.append(f'{name},{kind},{split}')
    (root / 'labels.csv').write_text('\n'.join(lines) + '\n')
    return root


@pytest.fixture(scope='module')
def command(tmp_path_factory):
    """(workdir, rows) -> the command line. The backbone learns crops larger than the images."""
    source = write_pictures(tmp_path_factory.mktemp('pictures'))
    cache = tmp_path_factory.mktemp('cache')

    def made(workdir, rows):
        return [
            sys.executable, '-m', 'repdiff.main', '--config=configs/hematoma.py:smoke',
            f'--config.data.source={source}', '--config.data.split_column=split',
            '--config.data.classes=("auto",)', '--config.data.image_size=16',
            '--config.data.patient_column=', f'--config.cache={cache}', f'--workdir={workdir}',
            f'--config.rows={rows!r}', '--config.latents.patch=8',
            '--config.model.depth=1', '--config.backbone.depth=1', '--config.distill.local_crops=1',
            '--config.recipes.ldt_probe.pretrain.row=rc_ldt',  # which is trained anyway
            '--config.probe.t=(10, 100)', '--config.log_every=2', '--config.eval.bootstrap=20',
            *(f'--config.{phase}.{key}={value}' for phase in ('pretrain', 'tune')
              for key, value in (('steps', 8), ('batch', 12), ('checkpoint_every', 4))),
        ]

    return made


@pytest.mark.parametrize('config', [
    hematoma.get_config('compare'), hematoma.get_config('paper_compare'), ct_ich.get_config(),
    cifar10.get_config()], ids=['compare', 'paper_compare', 'ct_ich', 'cifar10'])
def test_all_rows_are_pre_trained_and_tuned_on_equally_many_images(config):
    for phase in ('pretrain', 'tune'):
        sections = [configs.recipe(config, row)[phase] for row in config.rows]
        assert len({part.steps * part.batch for part in sections if part.steps}) == 1


def test_three_classes_end_to_end_and_a_killed_distillation_goes_on(command, tmp_path):
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    found = run(*command(whole, ROWS))
    assert found.returncode == 0, found.stderr
    results, _, lines = numbers(whole)
    entries = {entry['name']: entry for entry in results['models']}
    assert list(entries)[:len(ROWS)] == list(ROWS) and results['dataset']['classes'] == [*CLASSES]
    for row in ROWS:
        entry = entries[row]
        assert 0 <= entry['auroc'] <= 1 and np.sum(entry['confusion']) == IMAGES['test'], row
    # Each row's budget, that of the pre-training it reads included: 8 steps of 12 images a phase.
    assert [entries[row]['images_seen'] for row in ROWS] == [
        {'pretrain': 96, 'tune': 96}, *[{'pretrain': 96}] * 3]
    assert {line['phase'] for line in lines} == {
        'dinov2.pretrain', 'dinov2.tune', 'rc_ldt.pretrain'}
    logged = {key for line in lines if line['phase'] == 'dinov2.pretrain' for key in line}
    assert {'teacher_entropy', 'prototype_use', 'feature_std', 'valid_feature_std'} <= logged

    again = command(killed, ROWS[:1])
    kill_when(again, lambda: (killed / 'checkpoints' / 'dinov2.pretrain' / '4').exists())
    found = run(*again)
    assert found.returncode == 0, found.stderr
    alone, _, after = numbers(killed)
    assert alone['models'][0] == entries['dinov2']
    assert after == [line for line in lines if line['phase'].startswith('dinov2.')]
