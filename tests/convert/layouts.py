"""The same weights under the other names that published files use."""

import re

import numpy as np

State = dict[str, np.ndarray]


def rename(state: State, *pairs: tuple[str, str]) -> State:
    """`state` with each (pattern, replacement) applied to its names, in order."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def merge(state: State, pattern: str, parts: list[str], merged: str) -> State:
    """Concatenates the tensors PREFIX.PART.{weight,bias} of `parts` to PREFIX.MERGED.{...}."""
    result = dict(state)
    for name, value in state.items():
        match = re.fullmatch(pattern + re.escape(parts[0]) + r'\.(weight|bias)', name)
        if match:
            prefix, leaf = match.groups()
            result[f'{prefix}{merged}.{leaf}'] = np.concatenate(
                [result.pop(f'{prefix}{part}.{leaf}') for part in parts])
    return result


def dinov2_new(state: State) -> State:
    """Published Hugging Face names to those of transformers 5's modules."""
    state = rename(
        state, (r'attention\.attention\.query', 'attention.q_proj'),
        (r'attention\.attention\.key', 'attention.k_proj'),
        (r'attention\.attention\.value', 'attention.v_proj'),
        (r'attention\.output\.dense', 'attention.o_proj'),
        (r'mlp\.weights_out', 'mlp.down_proj'))
    for name in [name for name in state if '.weights_in.' in name]:
        gate, up = np.split(state.pop(name), 2)
        state[name.replace('weights_in', 'gate_proj')] = gate
        state[name.replace('weights_in', 'up_proj')] = up
    return state


def dinov2_meta(state: State) -> State:
    """Published Hugging Face names to Meta's."""
    parts = [f'attention.attention.{part}' for part in ('query', 'key', 'value')]
    return rename(
        merge(state, r'(encoder\.layer\.\d+\.)', parts, 'attn.qkv'),
        (r'^embeddings\.position_embeddings', 'pos_embed'),
        (r'^embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
        (r'^embeddings\.', ''), (r'^encoder\.layer\.', 'blocks.'), (r'^layernorm', 'norm'),
        (r'attention\.output\.dense', 'attn.proj'),
        (r'layer_scale(\d)\.lambda1', r'ls\1.gamma'),
        (r'weights_in', 'w12'), (r'weights_out', 'w3'))


def dit_meta(state: State) -> State:
    """diffusers' DiT names to Meta's, which hold the embeddings of t and label once."""
    parts = [f'attn1.to_{part}' for part in 'qkv']
    state = {name: value for name, value in state.items()
             if '.norm1.emb.' not in name or name.startswith('transformer_blocks.0.')}
    return rename(
        merge(state, r'(transformer_blocks\.\d+\.)', parts, 'attn.qkv'),
        (r'.*timestep_embedder\.linear_1', 't_embedder.mlp.0'),
        (r'.*timestep_embedder\.linear_2', 't_embedder.mlp.2'),
        (r'.*class_embedder', 'y_embedder'), (r'^pos_embed', 'x_embedder'),
        (r'^transformer_', ''), (r'norm1\.linear', 'adaLN_modulation.1'),
        (r'attn1\.to_out\.0', 'attn.proj'), (r'ff\.net\.0\.proj', 'mlp.fc1'),
        (r'ff\.net\.2', 'mlp.fc2'), (r'^proj_out_1', 'final_layer.adaLN_modulation.1'),
        (r'^proj_out_2', 'final_layer.linear'))


def vae_old(state: State) -> State:
    """diffusers' attention names of the VAE to those in the published files."""
    return rename(state, (r'\.to_q\.', '.query.'), (r'\.to_k\.', '.key.'), (r'\.to_v\.', '.value.'),
                  (r'\.to_out\.0\.', '.proj_attn.'))
