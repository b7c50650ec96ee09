"""From a pre-trained denoiser to the one that tuning starts from (arXiv 2505.06890, phase 2).

`paper` removes the representation and its layers at once, so the function jumps. `null` keeps what
the network computes with r dropped: step 0 of tuning equals the pre-trained network, exactly up to
rounding. Prior work on dropping r: RCG (arXiv 2312.03701); folding it away is ours.
"""

import jax
import jax.numpy as jnp

from repdiff.models.dit import DiT
from repdiff.models.layers import normalise


def tuned_denoiser(pretrained: DiT, classes: int, switch: str) -> DiT:
    """The label-conditioned twin of `pretrained`, able to hold what `switch` carries over."""
    return pretrained.clone(
        conditioning='label',
        classes=classes,
        mix=switch == 'null' and _has_token_r(pretrained),
        parent=None,
    )


def start_tuning(
    pretrained: DiT,
    params: dict,
    fresh: dict,
    *,
    switch: str,
    label_start: str,
    class_means: jax.Array | None,
) -> dict:
    """Parameters of `tuned_denoiser` from the pre-trained `params` and a `fresh` random start.

    `label_start` fills the label embeddings (K + 1, D), the last row being the null class:
    `random` keeps the fresh ones; `null` puts in every row what the network saw where r was
    dropped; `class_means` starts class k at the embedding of its mean pooled r, `class_means`
    (K, Dr). Parameters that only r used are left behind.
    """
    table = fresh['label_embed']['embedding']
    tuned = {name: params[name] for name in fresh if name in params}
    tuned['blocks'] = {name: params['blocks'][name] for name in fresh['blocks']
                       if name in params['blocks']}
    null = jnp.zeros(table.shape[1:])
    if _has_token_r(pretrained):
        fold = _fold_null if switch == 'null' else _drop
        tuned |= fold(params, tuned['blocks'], pretrained.channels)
    elif switch == 'null' and 'null' in params:
        null = params['null']
    if label_start == 'null':
        table = jnp.broadcast_to(null, table.shape)
    elif label_start == 'class_means':
        means = class_means @ params['r_embed']['kernel'] + params['r_embed']['bias']
        table = jnp.concatenate([means, null[None]])
    return tuned | {'label_embed': {'embedding': table}}


def _has_token_r(denoiser: DiT) -> bool:
    return denoiser.conditioning == 'representation' and denoiser.representation == 'tokens'


def _drop(params: dict, blocks: dict, channels: int) -> dict:
    """The paper's switch: the z_t half of the patch embedding, blocks without their mix of r."""
    embed = params['patch_embed']
    return {'patch_embed': {'kernel': embed['kernel'][:, :, :channels], 'bias': embed['bias']}}


def _fold_null(params: dict, blocks: dict, channels: int) -> dict:
    """The same function with r dropped: what the null token adds becomes part of biases."""
    decode, embed, mix = params['decode'], params['patch_embed'], params['blocks']['mix']
    normed = normalise(params['null']) * decode['norm']['scale'] + decode['norm']['bias']
    shown = normed @ decode['linear']['kernel'] + decode['linear']['bias']  # (P·P·C,)
    kernel = embed['kernel'][:, :, channels:]  # (P, P, C, D)
    added = shown @ kernel.reshape(-1, kernel.shape[-1])
    width = mix['kernel'].shape[-1]
    bias = mix['bias'] + jnp.einsum('r,lrd->ld', jax.nn.silu(params['null']),
                                    mix['kernel'][:, width:])
    return {
        'patch_embed': {'kernel': embed['kernel'][:, :, :channels], 'bias': embed['bias'] + added},
        'blocks': blocks | {'mix': {'kernel': mix['kernel'][:, :width], 'bias': bias}},
    }
