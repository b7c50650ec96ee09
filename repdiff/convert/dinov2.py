"""DINOv2 (arXiv 2304.07193) -> `repdiff.models.vit.ViT`: Meta's and Hugging Face's layouts.

Meta's `dinov2_vit*_pretrain.pth` (`blocks.0.attn.qkv`), the published Hugging Face files
(`attention.attention.query`) and transformers 5's own names (`attention.q_proj`).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from repdiff.convert.engine import Rule, Source, dense, norm
from repdiff.convert.infer import agree, block_count, heads, single_shape
from repdiff.errors import UserError
from repdiff.models.layers import NORM_EPS
from repdiff.models.vit import SIZES, ViT

LICENCE = 'DINOv2 code and weights: Apache License 2.0, Meta Platforms (facebookresearch/dinov2).'
FILES = ('model.safetensors', 'pytorch_model.bin')

_BLOCK = r'encoder\.layer\.(?P<block>\d+)\.'
_META_BLOCK = r'blocks\.(?P<block>\d+)\.'

META = [
    Rule('cls_token', 'cls_token', 'token'),
    Rule('mask_token', 'mask_token', 'token'),
    Rule('register_tokens', 'register_tokens', 'tokens'),
    Rule('pos_embed', 'pos_embed', 'tokens'),
    *dense(r'patch_embed\.proj', 'patch_embed', 'conv'),
    *norm(_META_BLOCK + r'(norm[12])', r'blocks/\2'),
    *dense(_META_BLOCK + r'(attn|mlp)\.(qkv|proj|fc1|fc2|w12|w3)', r'blocks/\2/\3'),
    Rule(_META_BLOCK + r'(ls[12])\.gamma', r'blocks/\2'),
    *norm('norm', 'norm'),
]

HUGGING_FACE = [
    Rule(r'embeddings\.cls_token', 'cls_token', 'token'),
    Rule(r'embeddings\.mask_token', 'mask_token', 'token'),
    Rule(r'embeddings\.register_tokens', 'register_tokens', 'tokens'),
    Rule(r'embeddings\.position_embeddings', 'pos_embed', 'tokens'),
    *dense(r'embeddings\.patch_embeddings\.projection', 'patch_embed', 'conv'),
    *norm(_BLOCK + r'(norm[12])', r'blocks/\2'),
    *(rule for i, (old, new) in enumerate((('query', 'q'), ('key', 'k'), ('value', 'v')))
      for rule in dense(_BLOCK + rf'attention\.(?:attention\.{old}|{new}_proj)',
                        'blocks/attn/qkv', part=(i, 3))),
    *dense(_BLOCK + r'attention\.(?:output\.dense|o_proj)', 'blocks/attn/proj'),
    Rule(_BLOCK + r'layer_scale([12])\.lambda1', r'blocks/ls\2'),
    *dense(_BLOCK + r'mlp\.(fc[12])', r'blocks/mlp/\2'),
    *dense(_BLOCK + r'mlp\.weights_in', 'blocks/mlp/w12'),
    *dense(_BLOCK + r'mlp\.gate_proj', 'blocks/mlp/w12', part=(0, 2)),
    *dense(_BLOCK + r'mlp\.up_proj', 'blocks/mlp/w12', part=(1, 2)),
    *dense(_BLOCK + r'mlp\.(?:weights_out|down_proj)', 'blocks/mlp/w3'),
    *norm('layernorm', 'norm'),
]


def rules(source: Source) -> list[Rule]:
    """The table of the layout that `source` has."""
    return META if 'cls_token' in source.shapes else HUGGING_FACE


def fields(source: Source, config: dict[str, Any]) -> dict[str, Any]:
    """The `ViT` fields that the shapes of `source` (and `config`, its config.json) imply.

    Position embeddings resize as each lineage does it: Meta's models without registers scale by
    (size + 0.1) / grid without antialiasing, those with registers by size / grid with it;
    Hugging Face's by size / grid, antialiased only with registers.

    Raises:
      UserError: `source` is not DINOv2, its number of heads cannot be told, or `config` is another
        model's.
    """
    meta = 'cls_token' in source.shapes
    table, projection, register, block = (
        ('pos_embed', 'patch_embed.proj.weight', 'register_tokens', _META_BLOCK) if meta else
        ('embeddings.position_embeddings', 'embeddings.patch_embeddings.projection.weight',
         'embeddings.register_tokens', _BLOCK))
    width, channels, patch, _ = single_shape(source, projection, 4, 'DINOv2')
    positions = single_shape(source, table, 3, 'DINOv2')[1] - 1
    side = math.isqrt(max(positions, 0))
    if side < 1 or side * side != positions:
        raise UserError(f'{source.path}: its {positions} position embeddings are not a square '
                        'grid, as DINOv2\'s are; fetch the published file.')
    depth = block_count(source, block)
    registers = single_shape(source, register, 3, 'DINOv2')[1] if register in source.shapes else 0
    plain = [shape[0] for name, shape in source.shapes.items() if name.endswith('mlp.fc1.bias')]
    ratio = plain[0] / width if plain else 4
    agree(source, config, {
        'hidden_size': [width], 'num_hidden_layers': [depth], 'patch_size': [patch],
        'num_channels': [channels], 'num_register_tokens': [registers], 'mlp_ratio': [ratio],
        'use_swiglu_ffn': [not plain], 'hidden_act': ['gelu'], 'layer_norm_eps': [NORM_EPS],
    })
    return {
        'width': width, 'depth': depth, 'heads': heads(source, SIZES, width, depth, config),
        'patch': patch, 'grid': (side, side), 'registers': registers,
        'ffn': 'mlp' if plain else 'swiglu', 'mlp_ratio': ratio,
        'antialias': registers > 0, 'offset': 0.1 if meta and not registers else 0.0,
    }


def shapes(module_fields: dict[str, Any]) -> Any:
    """The parameter tree of `ViT(**module_fields)` as shapes, for three colour channels."""
    vit = ViT(**module_fields)
    image = jnp.zeros((1, vit.patch * vit.grid[0], vit.patch * vit.grid[1], 3))
    return jax.eval_shape(vit.init, jax.random.key(0), image)['params']
