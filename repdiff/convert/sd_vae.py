"""AutoencoderKL of Stable Diffusion -> `repdiff.models.autoencoder`: diffusers' layout.

Published files hold the attention's old names (`query`, `proj_attn`); newer ones `to_q`,
`to_out.0`.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from repdiff.convert.engine import Rule, Source, dense, norm
from repdiff.convert.infer import agree, number, single_shape
from repdiff.errors import UserError
from repdiff.models.autoencoder import AutoencoderKL

LICENCE = ('Stable Diffusion 1.x and 2.x weights: CreativeML Open RAIL-M; '
           'stabilityai/sd-vae-ft-mse and -ema: MIT.')
FILES = tuple(f'{folder}diffusion_pytorch_model.{suffix}'
              for folder in ('', 'vae/') for suffix in ('safetensors', 'bin'))

_HALF = '(encoder|decoder)'
_LEVEL = _HALF + r'\.(?:down|up)_blocks\.(\d+)\.'

RULES = [
    *dense('quant_conv', 'quant', 'conv'),
    *dense('post_quant_conv', 'post_quant', 'conv'),
    *dense(_HALF + r'\.(conv_in|conv_out)', r'\1/\2', 'conv'),
    *norm(_HALF + r'\.conv_norm_out', r'\1/norm_out/norm'),
    *norm(_LEVEL + r'resnets\.(\d+)\.(norm[12])', r'\1/level\2_block\3/\4/norm'),
    *dense(_LEVEL + r'resnets\.(\d+)\.(conv[12])', r'\1/level\2_block\3/\4', 'conv'),
    *dense(_LEVEL + r'resnets\.(\d+)\.conv_shortcut', r'\1/level\2_block\3/shortcut', 'conv'),
    *dense(_LEVEL + r'downsamplers\.0\.conv', r'\1/level\2_down', 'conv'),
    *dense(_LEVEL + r'upsamplers\.0\.conv', r'\1/level\2_up', 'conv'),
    *norm(_HALF + r'\.mid_block\.resnets\.(\d)\.(norm[12])', r'\1/middle/block\2/\3/norm'),
    *dense(_HALF + r'\.mid_block\.resnets\.(\d)\.(conv[12])', r'\1/middle/block\2/\3', 'conv'),
    *norm(_HALF + r'\.mid_block\.attentions\.0\.group_norm', r'\1/middle/attention/norm/norm'),
    *(rule for old, new, name in (('query', 'to_q', 'q'), ('key', 'to_k', 'k'),
                                  ('value', 'to_v', 'v'), ('proj_attn', r'to_out\.0', 'out'))
      for rule in dense(_HALF + rf'\.mid_block\.attentions\.0\.(?:{old}|{new})',
                        rf'\1/middle/attention/{name}')),
]


def rules(source: Source) -> list[Rule]:
    """The one table; it knows the old and the new attention names."""
    return RULES


def fields(source: Source, config: dict[str, Any]) -> dict[str, Any]:
    """The `AutoencoderKL` fields that the shapes of `source` (and its config.json) imply.

    The number of norm groups and the scaling factor are in no shape: without a config.json they
    are Stable Diffusion 1.x's and 2.x's.

    Raises:
      UserError: `source` is not an AutoencoderKL, or `config` is another model's.
    """
    latent = single_shape(source, 'post_quant_conv.weight', 4, 'AutoencoderKL')[0]
    first, channels, _, _ = single_shape(source, 'encoder.conv_in.weight', 4, 'AutoencoderKL')
    found = [match for name, shape in source.shapes.items() if (match := re.fullmatch(
        r'encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv1\.bias', name)) and len(shape) == 1]
    widths = {int(match[1]): source.shapes[match[0]][0] for match in found}
    if sorted(widths) != list(range(len(widths))) or not widths or widths[0] != first:
        raise UserError(f'{source.path} does not hold all levels of an AutoencoderKL encoder; '
                        'fetch it again.')
    order = tuple(widths[level] for level in sorted(widths))
    depth = 1 + max(int(match[2]) for match in found)
    groups = config.get('norm_num_groups', AutoencoderKL.groups)
    if type(groups) is not int or groups < 1 or any(width % groups for width in order):
        raise UserError(f'{source.path}: {groups!r} norm groups do not divide its widths; put a '
                        'config.json with the right "norm_num_groups" beside it.')
    agree(source, config, {
        'block_out_channels': [order], 'layers_per_block': [depth], 'in_channels': [channels],
        'out_channels': [channels], 'latent_channels': [latent], 'act_fn': ['silu', 'swish'],
        'down_block_types': [('DownEncoderBlock2D',) * len(order)],
        'up_block_types': [('UpDecoderBlock2D',) * len(order)],
        'shift_factor': [None, 0], 'latents_mean': [None], 'latents_std': [None],
    })
    return {
        'widths': order, 'layers': depth, 'image_channels': channels, 'latent_channels': latent,
        'groups': groups,
        'scale': float(number(source, config, 'scaling_factor', AutoencoderKL.scale)),
    }


def shapes(module_fields: dict[str, Any]) -> Any:
    """The parameter tree of `AutoencoderKL(**module_fields)` as shapes."""
    vae = AutoencoderKL(**module_fields)
    image = jnp.zeros((1, vae.factor, vae.factor, vae.image_channels))
    return jax.eval_shape(vae.init, jax.random.key(0), image)['params']
