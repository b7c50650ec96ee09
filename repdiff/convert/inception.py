"""Inception v3 for FID -> `repdiff.models.inception.Inception`: the layout of pytorch-fid's file.

`pt_inception-2015-12-05-6726825d.pth`, which torch-fidelity publishes under another name too.
"""

from typing import Any

import jax
import jax.numpy as jnp

from repdiff.convert.engine import Rule, Source
from repdiff.convert.infer import single_shape
from repdiff.errors import UserError
from repdiff.models.inception import SIZE, Inception

LICENCE = ('Inception v3 weights: Apache License 2.0, Google (TensorFlow models, 2015-12-05), '
           'converted by the authors of pytorch-fid.')
FILES = ('pt_inception-2015-12-05-6726825d.pth', 'weights-inception-2015-12-05-6726825d.pth',
         'model.safetensors')

_NORM = {'weight': 'scale', 'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}

RULES = [
    Rule(r'fc\.weight', 'fc/kernel', 'linear'),
    Rule(r'fc\.bias', None),  # the inception score leaves it out
    *(rule for pattern, target in ((r'(Mixed_\w+)\.(\w+)', r'\1/\2'), (r'(Conv2d_\w+)', r'\1'))
      for rule in (
          Rule(rf'{pattern}\.conv\.weight', f'{target}/kernel', 'conv'),
          *(Rule(rf'{pattern}\.bn\.{old}', f'{target}/{new}') for old, new in _NORM.items()))),
]


def rules(source: Source) -> list[Rule]:
    """The one table."""
    return RULES


def fields(source: Source, config: dict[str, Any]) -> dict[str, Any]:
    """The number of classes.

    Raises:
      UserError: `source` is no Inception v3, or torchvision's, whose features are others.
    """
    single_shape(source, 'Mixed_7c.branch_pool.conv.weight', 4, 'Inception v3')
    classes = single_shape(source, 'fc.weight', 2, 'Inception v3')[0]
    if any(name.startswith('AuxLogits.') for name in source.shapes):
        raise UserError(f'{source.path} holds torchvision\'s Inception v3, whose distances are no '
                        f'FID; pass {FILES[0]} of pytorch-fid.')
    return {'classes': classes}


def shapes(module_fields: dict[str, Any]) -> Any:
    """The parameter tree of `Inception(**module_fields)` as shapes."""
    image = jnp.zeros((1, SIZE, SIZE, 3), jnp.uint8)
    return jax.eval_shape(Inception(**module_fields).init, jax.random.key(0), image)['params']
