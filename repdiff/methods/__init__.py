"""How the rows of the results are trained and answer: one room for each `config.method`.

A room is a module with `check` (raises UserError on what a row cannot have, before any row runs),
`sees_pixels` (whether its rows need images beside cached latents), `train` and `choose`. `train` and
`choose` get a setting without the test split; what they return answers the test split at the end.
"""

from types import ModuleType

from ml_collections import ConfigDict

from repdiff.errors import UserError
from repdiff.methods import classify, denoise, distill, probe

ROOMS = {'denoise': denoise, 'distill': distill, 'classify': classify, 'probe': probe}


def room(config: ConfigDict) -> ModuleType:
    """The room of a row's config. Raises UserError where there is none."""
    if config.method not in ROOMS:
        raise UserError(f'config.method is {config.method!r}; choose from {", ".join(ROOMS)}.')
    return ROOMS[config.method]
