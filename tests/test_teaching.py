"""The README's worked changes apply to the code as it is, do what they say, and run together."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
DIFFS = sorted((ROOT / 'tests' / 'teaching').glob('*.diff'))
# Run on the changed code: what is new against what it should be.
CHECK = '''
import dataclasses, jax, jax.numpy as jnp
from repdiff import config as configs
from repdiff.methods import denoise
config = configs.base()
config.update({'model': {'width': 32, 'depth': 1, 'unroll': False},
               'representation': {'kind': 'cls', 'drop_rate': 0.0}, 'pretrain': {'min_snr': 0.5}})
z0 = jax.random.normal(jax.random.key(0), (8, 4, 4, 2))
new = denoise.pretrain_objective(config, (4, 4, 2))
params = new.init(jax.random.key(1), z0)
cls = new.encoder.apply({'params': params['encoder']}, z0)['cls']
assert jnp.array_equal(new.represent(params, {}, {}, z0), cls)
key = jax.random.key(2)
t_key, eps_key, _ = jax.random.split(key, 3)
t = jax.random.randint(t_key, (8,), 0, 1000)
eps = jax.random.normal(eps_key, z0.shape)
errors = new.losses(params, cls, z0, t, eps, jnp.zeros(8, bool))
gamma2 = new.schedule.gamma[t] ** 2
weights = jnp.minimum(1, 0.5 * (1 - gamma2) / gamma2)
found, plain = (objective(params, {}, {'z0': z0}, key)[0]
                for objective in (new, dataclasses.replace(new, min_snr=0.0)))
assert jnp.allclose(found, (weights * errors).mean(), rtol=1e-4)
assert jnp.allclose(plain, errors.mean(), rtol=1e-4) and abs(found - plain) > 1e-3
'''
RUN = [
    '--config=configs/digits.py', '--config.rows=("rc_ldt",)', '--config.representation.kind=cls',
    '--config.pretrain.min_snr=5.0', '--config.model.width=32', '--config.model.depth=1',
    '--config.model.unroll=False', '--config.pretrain.steps=2', '--config.pretrain.batch=16',
    '--config.tune.steps=2', '--config.tune.batch=16', '--config.latents.channels=16',
    '--config.classify.t=(25, 75)', '--config.classify.draws=1', '--config.classify.budget=8',
    '--config.classify.min_draws=8', '--config.evidence.draws=4', '--config.evidence.flips=50',
    '--config.evidence.images=4', '--config.eval.bootstrap=20',
]


def applied(copy, *diffs):
    """A copy of the code with the diffs applied."""
    for name in ('repdiff', 'configs'):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
    for diff in diffs:
        subprocess.run(['git', 'apply', str(diff)], cwd=copy, check=True)
    return copy


def run(copy, *arguments):
    environment = os.environ | {
        'PYTHONPATH': str(copy), 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
    found = subprocess.run([sys.executable, *arguments], cwd=copy, env=environment,
                           capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize('diff', DIFFS, ids=lambda diff: diff.stem)
def test_each_change_is_a_few_lines_and_applies_alone(tmp_path, diff):
    lines = diff.read_text().splitlines()
    changed = [line for line in lines if line[:1] in '+-' and line[:3] not in ('+++', '---')]
    assert len(changed) <= 24
    applied(tmp_path, diff)


def test_a_new_dataset_objective_and_representation_run(tmp_path):
    copy = applied(tmp_path, *DIFFS)
    run(copy, '-c', CHECK)
    digits = load_digits()
    (copy / 'digits').mkdir()
    table = ['file,writer,digit']
    for i, (pixels, digit) in enumerate(zip(digits.images[:240], digits.target)):
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(copy / 'digits' / f'{i}.png')
        table.append(f'{i}.png,w{i // 2},{digit}')
    (copy / 'digits' / 'labels.csv').write_text('\n'.join(table))
    run(copy, '-m', 'repdiff.main', *RUN, '--config.cache=cache', '--workdir=workdir')
    results = json.loads((copy / 'workdir' / 'results.json').read_text())
    assert results['dataset']['classes'] == list('0123456789')
    assert results['models'][0]['name'] == 'rc_ldt' and 0 <= results['models'][0]['auroc'] <= 1
