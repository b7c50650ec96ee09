"""DiT (arXiv 2212.09748) -> `repdiff.models.dit.DiT`: Meta's and diffusers' layouts.

Meta's `DiT-XL-2-256x256.pt` (`blocks.0.attn.qkv`), and what its training script saves, or
`diffusers.DiTTransformer2DModel` (`transformer_blocks.0.attn1.to_q`).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.convert.engine import Rule, Source, dense
from repdiff.convert.infer import agree, block_count, heads, number, single_shape
from repdiff.errors import UserError
from repdiff.models.dit import SIZES, DiT, position_table
from repdiff.models.layers import NORM_EPS

LICENCE = ('DiT weights: CC BY-NC 4.0, Meta Platforms (facebookresearch/DiT); not for commercial '
           'use.')
FILES = tuple(f'{folder}diffusion_pytorch_model.{suffix}'
              for folder in ('transformer/', '') for suffix in ('safetensors', 'bin'))

_META_BLOCK = r'blocks\.(?P<block>\d+)\.'
_BLOCK = r'transformer_blocks\.(?P<block>\d+)\.'

META = [
    Rule('pos_embed', None),  # fixed sines and cosines, which `fields` has compared
    *dense(r'x_embedder\.proj', 'patch_embed', 'conv'),
    *dense(r't_embedder\.mlp\.0', 't_embed/fc1'),
    *dense(r't_embedder\.mlp\.2', 't_embed/fc2'),
    Rule(r'y_embedder\.embedding_table\.weight', 'label_embed/embedding'),
    *dense(_META_BLOCK + r'(attn|mlp)\.(qkv|proj|fc1|fc2)', r'blocks/\2/\3'),
    *dense(_META_BLOCK + r'adaLN_modulation\.1', 'blocks/adaln'),
    *dense(r'final_layer\.adaLN_modulation\.1', 'final/adaln'),
    *dense(r'final_layer\.linear', 'final/linear'),
]

DIFFUSERS = [
    *dense(r'pos_embed\.proj', 'patch_embed', 'conv'),
    # Every block repeats the embeddings of t and of the label.
    *(rule for i in (1, 2) for rule in dense(
        _BLOCK + rf'norm1\.emb\.timestep_embedder\.linear_{i}', f't_embed/fc{i}', copies=True)),
    Rule(_BLOCK + r'norm1\.emb\.class_embedder\.embedding_table\.weight', 'label_embed/embedding',
         copies=True),
    *dense(_BLOCK + r'norm1\.linear', 'blocks/adaln'),
    *(rule for i, name in enumerate('qkv')
      for rule in dense(_BLOCK + rf'attn1\.to_{name}', 'blocks/attn/qkv', part=(i, 3))),
    *dense(_BLOCK + r'attn1\.to_out\.0', 'blocks/attn/proj'),
    *dense(_BLOCK + r'ff\.net\.0\.proj', 'blocks/mlp/fc1'),
    *dense(_BLOCK + r'ff\.net\.2', 'blocks/mlp/fc2'),
    *dense('proj_out_1', 'final/adaln'),
    *dense('proj_out_2', 'final/linear'),
]


def rules(source: Source) -> list[Rule]:
    """The table of the layout that `source` has."""
    return META if 'x_embedder.proj.weight' in source.shapes else DIFFUSERS


def fields(source: Source, config: dict[str, Any]) -> dict[str, Any]:
    """The `DiT` fields that the shapes of `source` (and `config`, its config.json) imply.

    diffusers spaces the frequencies of t differently from Meta (`frequency_shift`), has another
    epsilon before each MLP, and spans the grid of training on any other; each layout gets its own
    library's, so that a file computes what it computes there.

    Raises:
      UserError: `source` is not a DiT, its number of heads cannot be told, its positions are not
        DiT's sines and cosines, or `config` is another model's.
    """
    meta = 'x_embedder.proj.weight' in source.shapes
    projection, output, labels, block = (
        ('x_embedder.proj.weight', 'final_layer.linear.bias', 'y_embedder.embedding_table.weight',
         _META_BLOCK) if meta else
        ('pos_embed.proj.weight', 'proj_out_2.bias',
         'transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight', _BLOCK))
    width, channels, patch, _ = single_shape(source, projection, 4, 'DiT')
    [outputs] = single_shape(source, output, 1, 'DiT')
    classes = single_shape(source, labels, 2, 'DiT')[0] - 1
    depth = block_count(source, block)
    if 'pos_embed' in source.shapes:
        _check_positions(source, width)
    out_channels, count = outputs // patch**2, heads(source, SIZES, width, depth, config)
    agree(source, config, {
        'num_layers': [depth], 'patch_size': [patch], 'in_channels': [channels],
        'out_channels': [out_channels, *([None] if out_channels == channels else [])],
        'num_embeds_ada_norm': [classes], 'attention_head_dim': [width // count],
        'activation_fn': ['gelu-approximate'], 'norm_type': ['ada_norm_zero'],
        'norm_elementwise_affine': [False], 'double_self_attention': [False],
        'cross_attention_dim': [None],
    })
    return {
        'width': width, 'depth': depth, 'heads': count, 'patch': patch, 'channels': channels,
        'conditioning': 'label', 'classes': classes, 'learn_sigma': out_channels == 2 * channels,
        'frequency_shift': 0 if meta else 1,
        'mlp_epsilon': number(source, config, 'norm_eps', NORM_EPS if meta else 1e-5),
        'base_grid': None if meta else number(source, config, 'sample_size', 32) // patch,
    }


def _check_positions(source: Source, width: int):
    """The file's positions are not carried over, so they must be the ones that `DiT` computes."""
    tokens = single_shape(source, 'pos_embed', 3, 'DiT')[1]
    side = math.isqrt(tokens)
    table = position_table(width, (side, side))
    value = source.read('pos_embed')[0]
    if value.shape != table.shape or not np.allclose(value, table, atol=1e-4):
        raise UserError(f'{source.path}: pos_embed is not DiT\'s fixed table of sines and cosines, '
                        'which the model computes itself; such a file cannot be used.')


def shapes(module_fields: dict[str, Any]) -> Any:
    """The parameter tree of `DiT(**module_fields)` as shapes."""
    dit = DiT(**module_fields)
    z_t = jnp.zeros((1, dit.patch, dit.patch, dit.channels))
    return jax.eval_shape(dit.init, jax.random.key(0), z_t, jnp.zeros(1, jnp.int32))['params']
