"""Full-size modules, by shape: parameter counts, and a place for every name of Meta's files."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from repdiff.convert import dinov2, dit, engine, sd_vae
from repdiff.convert.infer import heads
from repdiff.models import dit as dit_module
from repdiff.models import vit as vit_module


class Names:
    """A source with shapes and no values."""
    path = 'published.pth'

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.shapes = shapes

    def read(self, name: str) -> np.ndarray:
        return dit_module.position_table(self.shapes[name][-1], (16, 16))[None]


def layer(name: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
    return {f'{name}.weight': (outputs, *inputs), f'{name}.bias': (outputs,)}


def published_dinov2(width: int, depth: int, gated: bool, registers: int) -> Names:
    """The tensors of Meta's dinov2_vit*14[_reg4]_pretrain.pth."""
    shapes = {'cls_token': (1, 1, width), 'mask_token': (1, width), 'pos_embed': (1, 1370, width),
              **layer('patch_embed.proj', width, 3, 14, 14), **layer('norm', width)}
    if registers:
        shapes['register_tokens'] = (1, registers, width)
    for i in range(depth):
        block = f'blocks.{i}.'
        mlp = ({**layer(block + 'mlp.w12', 8192, width), **layer(block + 'mlp.w3', width, 4096)}
               if gated else {**layer(block + 'mlp.fc1', 4 * width, width),
                              **layer(block + 'mlp.fc2', width, 4 * width)})
        shapes |= {**layer(block + 'norm1', width), **layer(block + 'norm2', width),
                   **layer(block + 'attn.qkv', 3 * width, width),
                   **layer(block + 'attn.proj', width, width), **mlp,
                   block + 'ls1.gamma': (width,), block + 'ls2.gamma': (width,)}
    return Names(shapes)


def published_dit(width: int, depth: int) -> Names:
    """The tensors of Meta's DiT-XL-2-256x256.pt, at any width and depth."""
    shapes = {'pos_embed': (1, 256, width), **layer('x_embedder.proj', width, 4, 2, 2),
              **layer('t_embedder.mlp.0', width, 256), **layer('t_embedder.mlp.2', width, width),
              'y_embedder.embedding_table.weight': (1001, width),
              **layer('final_layer.adaLN_modulation.1', 2 * width, width),
              **layer('final_layer.linear', 32, width)}
    for i in range(depth):
        block = f'blocks.{i}.'
        shapes |= {**layer(block + 'attn.qkv', 3 * width, width),
                   **layer(block + 'attn.proj', width, width),
                   **layer(block + 'mlp.fc1', 4 * width, width),
                   **layer(block + 'mlp.fc2', width, 4 * width),
                   **layer(block + 'adaLN_modulation.1', 6 * width, width)}
    return Names(shapes)


def planned(table, source: Names) -> int:
    """The module's parameter count, after every name of `source` found its place."""
    target = table.shapes(table.fields(source, {}))
    slots = engine.plan(source, table.rules(source), traverse_util.flatten_dict(target, sep='/'))
    assert slots
    return sum(leaf.size for leaf in jax.tree.leaves(target))


@pytest.mark.parametrize('registers', [0, 4])
@pytest.mark.parametrize('size,width,depth,millions', [
    ('S', 384, 12, 22.1), ('B', 768, 12, 86.6), ('L', 1024, 24, 304.4), ('g', 1536, 40, 1136.5)])
def test_dinov2(size, width, depth, millions, registers):
    count = planned(dinov2, published_dinov2(width, depth, size == 'g', registers))
    assert round(count / 1e6, 1) == millions
    assert vit_module.SIZES[size]['width'] == width and vit_module.SIZES[size]['depth'] == depth


@pytest.mark.parametrize('size,width,depth,millions', [
    ('S', 384, 12, 33), ('B', 768, 12, 130), ('L', 1024, 24, 458), ('XL', 1152, 28, 675)])
def test_dit(size, width, depth, millions):
    count = planned(dit, published_dit(width, depth))
    assert round(count / 1e6) == millions
    assert dit_module.SIZES[size]['width'] == width and dit_module.SIZES[size]['depth'] == depth


def test_sd_vae():
    """83.65 M, of which the encoder with its quant convolution is 34.16 M."""
    params = sd_vae.shapes({})
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 83_653_863
    encoder = jax.tree.leaves([params['encoder'], params['quant']])
    assert sum(leaf.size for leaf in encoder) == 34_163_664


@pytest.mark.parametrize('width,depth,count', [
    (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1152, 28, 16)])
def test_heads_of_published_sizes(width, depth, count):
    assert heads(Names({}), dit_module.SIZES, width, depth, {}) == count
