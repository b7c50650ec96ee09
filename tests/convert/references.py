"""Tiny PyTorch originals with random weights in every parameter, and their outputs."""

import math
import types

import numpy as np
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel
from transformers import (Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig,
                          Dinov2WithRegistersModel)

from layouts import rename

State = dict[str, np.ndarray]


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Fills every parameter, zero-initialised gates too, at a scale that keeps signals alive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 0.5 if value.ndim < 2 else 1 / math.sqrt(value[0].numel())
            centre = 1.0 if 'norm' in name and name.endswith('weight') and value.ndim == 1 else 0.0
            value.copy_(centre + scale * torch.randn(value.shape, generator=generator))
    return model.eval().requires_grad_(False)


def state(model: torch.nn.Module) -> State:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def last(x: torch.Tensor) -> np.ndarray:
    """(B, C, H, W) to the (B, H, W, C) array that the Flax modules take and give."""
    return x.permute(0, 2, 3, 1).numpy()


def dinov2(registers: int, gated: bool, seed: int) -> tuple[torch.nn.Module, State]:
    """A DINOv2 (width 32, 2 blocks, 2 heads, patch 4, grid 4x4) and its published names."""
    kind = (Dinov2WithRegistersConfig, Dinov2WithRegistersModel) if registers else (
        Dinov2Config, Dinov2Model)
    options = {'num_register_tokens': registers} if registers else {}
    model = randomise(kind[1](kind[0](
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4,
        use_swiglu_ffn=gated, **options)), seed)
    names = state(model)
    for name in [name for name in names if '.gate_proj.' in name]:
        names[name.replace('gate_proj', 'weights_in')] = np.concatenate(
            [names.pop(name), names.pop(name.replace('gate_proj', 'up_proj'))])
    published = rename(
        names, (r'attention\.q_proj', 'attention.attention.query'),
        (r'attention\.k_proj', 'attention.attention.key'),
        (r'attention\.v_proj', 'attention.attention.value'),
        (r'attention\.o_proj', 'attention.output.dense'), (r'down_proj', 'weights_out'))
    return model, published


def resize_as_meta(model: torch.nn.Module):
    """Makes a Hugging Face DINOv2 resize positions as Meta's models without registers do.

    From the description in facebookresearch/dinov2, hubconf: `interpolate_offset=0.1`, no
    antialiasing; the scale factor, not the size, sets the sampling step.
    """
    def resize(self, embeddings, height, width):
        table = self.position_embeddings
        side = math.isqrt(table.shape[1] - 1)
        if height == width == side * self.patch_size:
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = tuple((length // self.patch_size + 0.1) / side for length in (height, width))
        grid = torch.nn.functional.interpolate(grid, scale_factor=scale, mode='bicubic')
        return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)

    model.embeddings.interpolate_pos_encoding = types.MethodType(resize, model.embeddings)


def dinov2_outputs(model: torch.nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    """Normalised tokens (B, 1+R+N, D) and each block's output (L, B, 1+R+N, D)."""
    with torch.no_grad():
        out = model(x, output_hidden_states=True)
    return {'tokens': out.last_hidden_state.numpy(),
            'layers': np.stack([layer.numpy() for layer in out.hidden_states[1:]])}


def vae(layers: int, seed: int) -> torch.nn.Module:
    """An f8, 4-channel AutoencoderKL whose levels widen as Stable Diffusion's do."""
    return randomise(AutoencoderKL(
        block_out_channels=(4, 6, 8, 8), down_block_types=('DownEncoderBlock2D',) * 4,
        up_block_types=('UpDecoderBlock2D',) * 4, layers_per_block=layers, norm_num_groups=2), seed)


def vae_outputs(model: torch.nn.Module, x: torch.Tensor, z: torch.Tensor) -> dict[str, np.ndarray]:
    """Unscaled moments of the image x, and the image of the unscaled latent z."""
    with torch.no_grad():
        moments = model.encode(x).latent_dist
        return {'mean': last(moments.mean), 'std': last(moments.std), 'image': last(
            model.decode(z).sample)}


def dit(size: int, lineage: str, learn_sigma: bool, seed: int) -> torch.nn.Module:
    """A DiT (width 32, 2 blocks, 2 heads, patch 2, 5 classes) trained on latents of `size`.

    `lineage` 'diffusers' is diffusers as it is, 'meta' computes what Meta's code does. All blocks
    share the embeddings of t and label, as in every file made from Meta's weights.
    """
    meta = {'norm_eps': 1e-6} if lineage == 'meta' else {}
    model = randomise(DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4,
        out_channels=8 if learn_sigma else 4, num_layers=2, sample_size=size,
        num_embeds_ada_norm=5, **meta), seed)
    first = model.transformer_blocks[0].norm1.emb
    for block in model.transformer_blocks:
        block.norm1.emb.load_state_dict(first.state_dict())
        block.norm1.emb.time_proj.downscale_freq_shift = 0 if lineage == 'meta' else 1
    return model


def dit_output(model: torch.nn.Module, z_t: torch.Tensor, t: list[int],
               labels: list[int]) -> np.ndarray:
    with torch.no_grad():
        return last(model(z_t, torch.tensor(t), torch.tensor(labels)).sample)
