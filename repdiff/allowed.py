"""Which values a row's config may have, where a wrong one would pass for another or fail late.

What a room or a table of functions looks up by name, such as `method`, is refused there.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from repdiff.errors import UserError

CHOICES = {
    'representation.kind': ('pooled', 'tokens'),
    'pretrain.condition': ('representation', 'none'),
    'pretrain.decay': ('cosine', 'constant'),
    'tune.switch': ('null', 'paper'),
    'tune.label_start': ('class_means', 'null', 'random'),
    'tune.decay': ('cosine', 'constant'),
}

LEAST = {
    'diffusion.steps': 1,
    'representation.width': 0, 'representation.noise': 0,
    'pretrain.steps': 0, 'pretrain.batch': 1, 'pretrain.warmup_steps': 0,
    'pretrain.checkpoint_every': 1,
    'tune.steps': 0, 'tune.batch': 1, 'tune.warmup_steps': 0, 'tune.checkpoint_every': 1,
    'tune.shots': 0,
    'optim.accumulate': 1,
    'classify.draws': 1, 'classify.select_draws': 1, 'classify.train_images': 0,
    'classify.batch': 1, 'classify.passes': 1,
    'evidence.draws': 1, 'evidence.flips': 1, 'evidence.images': 1,
    'log_every': 1, 'keep_checkpoints': 1,
}


def check(config: ConfigDict, row: str) -> None:
    """Raises UserError, naming key, value and choices, on what the config of `row` may not have."""
    def value(key: str) -> Any:
        section, _, name = key.rpartition('.')
        return config[section][name] if section else config[name]

    def refuse(key: str, choices: str) -> None:
        raise UserError(f'config.{key} is {value(key)!r} in row {row!r}; choose {choices}.')

    for key, choices in CHOICES.items():
        if value(key) not in choices:
            refuse(key, f'from {", ".join(choices)}')
    for key, least in LEAST.items():
        if value(key) < least:
            refuse(key, f'at least {least}')
    steps, tuned = config.diffusion.steps, tuple(config.tune.t_range)
    if len(tuned) != 2 or not 0 <= tuned[0] < tuned[1] <= steps:
        refuse('tune.t_range', f'(first, end) with 0 <= first < end <= {steps}, diffusion.steps')
    for key in ('classify.t', 'probe.t'):
        if not value(key) or not _within(value(key), 0, steps):
            refuse(key, f'steps from 0 to {steps - 1}, below diffusion.steps')
    # Elsewhere counterfactuals would come from a network that never saw such noise with a label.
    if not _within([config.evidence.t], *tuned):
        refuse('evidence.t', f'a step that is tuned on, from {tuned[0]} to {tuned[1] - 1} '
                             '(tune.t_range)')


def _within(steps: Sequence[int], first: int, end: int) -> bool:
    return all(first <= t < end for t in steps)
