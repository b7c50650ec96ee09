"""The training step and the evaluator lower for chips that are not here."""

import jax
import pytest

from repdiff import abstract, sharding
from repdiff import config as configs
from repdiff.models.dit import SIZES
from repdiff.step import jit_train_step


def config_of(size: str):
    config = configs.base()
    config.update({
        'data': {'image_size': 256},
        'latents': {'kind': 'haar'},
        'model': {**SIZES[size], 'patch': 2, 'dtype': 'bfloat16', 'unroll': False, 'remat': 'full'},
        'representation': {'kind': 'tokens'},
        'classify': {'batch': 16},
    })
    return config


def lowered(size: str, name: str, platform: str) -> str:
    """The program of a phase's training step on 8 chips."""
    phase = abstract.phase(config_of(size), name)
    step = jit_train_step(phase.train_step, phase.state, sharding.make_mesh(1, 8, 1))
    key = jax.eval_shape(lambda: jax.random.key(0))
    made = jax.export.export(step, platforms=[platform])(
        phase.state, phase.frozen, phase.batch, key)
    assert made.platforms == (platform,) and made.nr_devices == 8
    return made.mlir_module()


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
@pytest.mark.parametrize('name', ['pretrain', 'tune'])
def test_the_training_step_lowers_and_has_one_block_however_deep_the_network_is(name, platform):
    small, large = (lowered(size, name, platform) for size in ('S', 'XL'))
    assert 'bf16' in small and 'bf16' in large
    # A block that is repeated shows as calls of its functions or, without those, as its products.
    # Scanned, 12 and 28 blocks make one program; repeated, XL/2's has 64 more of these.
    calls = [text.count('call @') + text.count('stablehlo.dot_general') for text in (small, large)]
    assert calls[0] == calls[1]


@pytest.mark.parametrize('size', ['S', 'XL'])
def test_the_evaluator_lowers_for_tpu_and_cuda(size):
    scorer = abstract.scorer(config_of(size), sharding.make_mesh(8, 1, 1))
    for platform in ('tpu', 'cuda'):
        made = jax.export.export(scorer.scorer, platforms=[platform])(*scorer.arguments)
        assert made.platforms == (platform,)
        assert made.out_avals[0].shape == (scorer.passes, 1) and made.nr_devices == 8
