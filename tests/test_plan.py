"""The plan: against DiT's table, the compiled program and arithmetic by hand."""

import contextlib
import io
import json
import sys

import jax
import jax.numpy as jnp
import pytest

from repdiff import chips, plan
from repdiff import config as configs
from repdiff.compile import matmul_flops
from repdiff.errors import UserError
from repdiff.models.dit import SIZES, DiT

# Gflops of table 1 of arXiv 2212.09748, which counts multiplications with their additions as one.
PUBLISHED = {'S': 6.06, 'B': 23.01, 'L': 80.71, 'XL': 118.64}


@pytest.mark.parametrize('size', SIZES)
def test_operations_are_those_of_the_dit_paper(size):
    dit = DiT(**SIZES[size], patch=2, channels=4, conditioning='label', classes=1000,
              learn_sigma=True)
    z, t = jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    params = jax.eval_shape(dit.init, jax.eval_shape(lambda: jax.random.key(0)), z, t, t)
    found = matmul_flops(jax.make_jaxpr(dit.apply)(params, z, t, t)) / 2e9
    assert found == pytest.approx(PUBLISHED[size], rel=0.005)


def run(patch, *options: str) -> None:
    argv = ['plan', '--config=configs/hematoma.py:smoke', '--config.mesh.fsdp=8', *options]
    patch.setattr(sys, 'argv', argv)  # where config_flags looks for the keys given
    for name in [name for name in plan.FLAGS if name.startswith('config.')]:
        delattr(plan.FLAGS, name)  # of an earlier command line
    plan.run(argv)


def planned(*options: str) -> dict:
    """The plan of a small run, on the 8 devices of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.config, 'update', lambda *_: None)  # the devices are there already
        patch.setattr(chips, 'this_cpu', lambda: 1e9)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            run(patch, *options, '--utilisation=0.5', '--json')
    return json.loads(said.getvalue())


@pytest.fixture(scope='module')
def found():
    """The plan of a row that denoises, from random weights."""
    return planned('--row=ldt_from_scratch', '--config.classify.train_images=10')


def test_memory_is_the_compiled_program_s(found):
    tune = found['phases']['tune']
    kinds = tune['bytes_per_device']
    check_bytes(tune)
    whole = 4 * tune['parameters']['denoiser']
    assert whole / 8 < kinds['parameters'] == kinds['EMA'] < whole / 4  # biases are whole
    assert kinds['optimizer'] == pytest.approx(2 * kinds['parameters'], rel=1e-3)
    assert list(found['phases']) == ['tune']


def check_bytes(phase):
    # But for the step's number and the key, a few bytes.
    assert sum(phase['bytes_per_device'].values()) == pytest.approx(
        phase['compiled_bytes_per_device'], abs=32)


def test_rows_that_classify_images_are_planned_too():
    found = planned('--row=vit')
    assert list(found['phases']) == ['tune']
    tune = found['phases']['tune']
    check_bytes(tune)
    # A ViT of 2 blocks, width D = 32, over N = 17 tokens of 8×8 pixels; cls and mean feed the head.
    n, d = 17, 32
    block = 2 * n * d * (3 * d + d + 8 * d) + 4 * n * n * d
    forward = 2 * 16 * 64 * d + 2 * block + 2 * 2 * d * 2
    assert tune['flops_per_image'] == pytest.approx(3 * forward, rel=0.05)
    # Image and mirror image, at 2 checkpoints of tuning and then once.
    assert found['scoring'] == {
        'validate': {'images': 128, 'flops_per_image': 2 * forward},
        'classify': {'images': 128, 'flops_per_image': 2 * forward}}


def test_times_are_operations_over_speed(found):
    tune = found['phases']['tune']
    operations = tune['flops_per_image'] * tune['steps'] * tune['batch']
    named = {row['chip']: row for row in found['chips']}
    assert named['H100']['seconds']['tune'] == pytest.approx(operations / (8 * 494e12 * 0.5))
    assert named['this CPU']['seconds']['tune'] == pytest.approx(operations / (1e9 * 0.5))
    # Both classes at two steps, once, at 2 checkpoints; then the rule's draws, then the budget.
    scoring, c = found['scoring'], plan.FLAGS.config.classify
    forward = scoring['validate']['flops_per_image']
    assert scoring['validate']['images'] == 128
    assert scoring['choose the rule'] == {'images': 64 + 10, 'flops_per_image': forward * c.draws}
    assert scoring['classify, at most']['images'] == 64
    assert scoring['classify, at most']['flops_per_image'] == pytest.approx(
        forward * c.budget / len(c.t))
    # The paired term takes two passes through the network, each with its backward pass.
    assert tune['flops_per_image'] == pytest.approx(2 * 3 * forward / 4, rel=0.05)


def test_the_tables_show_it(found):
    text = plan.tables(found)
    for words in ('8 devices (data 1 × fsdp 8 × tensor 1)', 'a device: optimizer', '8 × TPU v5e',
                  '1 × this CPU', 'at 50% of the peak'):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_chip_is_too_small_when_the_bytes_do_not_fit():
    phases = {'tune': {'compiled_bytes_per_device': 20 * chips.GB}}
    rows = plan._times({'tune': 1.0}, phases, 'bfloat16', 4, 0.4)
    assert [row['chip'] for row in rows if not row['fits']][:1] == ['TPU v5e']
    assert {row['chip']: row['peak'] for row in rows}['A100'] == 312e12


@pytest.mark.parametrize(('options', 'words'), [
    (['--utilisation=40'], '--utilisation=40.0 is no share'),
    (['--utilisation=0.4', '--row=gan'], "no recipe 'gan'"),
    (['--row=ldt_probe'], 'plan that one, --row=unconditional_ldt'),
    (['--row=vit', '--config.backbone.patch=7'], 'backbone.patch is 7, which does not divide'),
    (['--config.modle.width=3'], "unknown config key 'config.modle.width'"),
])
def test_bad_options_are_one_sentence(options, words, monkeypatch, capsys):
    monkeypatch.setattr(jax.config, 'update', lambda *_: None)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *options)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert words in message and message.count('\n') == 1


@pytest.mark.parametrize(('accumulate', 'parts'), [(1, 8), (3, 24)])
def test_a_batch_that_cannot_be_cut_is_one_sentence(accumulate, parts):
    config = configs.base()
    config.update({'mesh': {'fsdp': 8}, 'tune': {'batch': 12}, 'pretrain': {'batch': 48},
                   'optim': {'accumulate': accumulate}})
    with pytest.raises(UserError, match=f'tune.batch is 12.*multiple of {parts}'):
        plan.plan(config, 'ldt_from_scratch', 8, 0.4)
