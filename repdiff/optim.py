"""The optimizer: AdamW with warm-up and clipping, weight-decay masks, and the EMA of parameters."""

import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

# First match wins; a parameter that no rule covers is an error.
DECAY_RULES = (
    (r'(^|/)(bias|scale|ls1|ls2|last)$', False),
    (r'(^|/)(cls_token|mask_token|register_tokens|pos_embed|null|embedding)$', False),
    (r'(^|/)kernel$', True),
)


def match(rules: tuple[tuple[str, object], ...], params) -> dict:
    """A tree like `params` with the value of the first rule whose regex is found in each path.

    Raises ValueError naming every parameter that no rule covers.
    """
    flat = flax.traverse_util.flatten_dict(params, sep='/')
    values, missing = {}, []
    for path in flat:
        for pattern, value in rules:
            if re.search(pattern, path):
                values[path] = value
                break
        else:
            missing.append(path)
    if missing:
        raise ValueError(f'no rule covers the parameters {", ".join(missing)}')
    return flax.traverse_util.unflatten_dict(values, sep='/')


def learning_rate(peak: float, warmup_steps: int, steps: int, decay: str) -> optax.Schedule:
    """Linear warm-up to `peak`, then `constant`, or `cosine` to 0 at `steps`."""
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    after = {
        'constant': lambda: optax.constant_schedule(peak),
        'cosine': lambda: optax.cosine_decay_schedule(peak, max(1, steps - warmup_steps)),
    }[decay]()
    return optax.join_schedules([warmup, after], [warmup_steps])


def adamw(
    schedule: optax.Schedule, *, b1: float, b2: float, weight_decay: float | optax.Schedule,
    clip_norm: float
) -> optax.GradientTransformation:
    """AdamW after clipping by the global norm; decay on kernels only (`DECAY_RULES`)."""
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(
            schedule, b1=b1, b2=b2, weight_decay=weight_decay,
            mask=lambda params: match(DECAY_RULES, params),
        ),
    )


def ema_update(ema, params, step: jax.Array, decay: float | optax.Schedule):
    """EMA with warm-up: the decay after n steps is min(decay, (1 + n) / (10 + n)), or decay(n).

    A fixed 0.9999 would remember the random start for longer than a small tuning set is seen.
    """
    if callable(decay):
        rate = 1 - decay(step)
    else:
        rate = 1 - jnp.minimum(decay, (1 + step) / (10 + step)).astype(jnp.float32)
    return jax.tree.map(lambda old, new: old + rate * (new - old), ema, params)
