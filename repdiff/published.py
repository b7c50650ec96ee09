"""Published weights in the place of random ones: what a config asks for, checked and loaded.

Weights are directories that `python -m repdiff.convert` made.
"""

import jax.numpy as jnp
from ml_collections import ConfigDict

from repdiff.convert import store
from repdiff.errors import UserError
from repdiff.latents.vae import Vae
from repdiff.models.autoencoder import AutoencoderKL
from repdiff.models.dit import DiT
from repdiff.models.vit import ViT
from repdiff.objectives.pixels import Pixels

DINOV2 = ('dinov2_frozen', 'dinov2_tuned')
ENCODERS = ('joint', *DINOV2)


def on_pixels(config: ConfigDict) -> bool:
    """Whether this row's encoder is DINOv2, which sees images. UserError on an unknown encoder."""
    if config.encoder.kind not in ENCODERS:
        raise UserError(f'config.encoder.kind is {config.encoder.kind!r}; choose from '
                        f'{", ".join(ENCODERS)}.')
    return config.pretrain.condition == 'representation' and config.encoder.kind in DINOV2


def vae(config: ConfigDict, channels: int) -> Vae:
    """The Stable Diffusion VAE of `config.latents` for images of 1 or 3 `channels`.

    Raises UserError where there are no weights, or where images are to be moved: cached latents
    cannot be.
    """
    fields, params = store.load(_directory(config, 'latents', 'sd_vae'), 'sd_vae')
    moving = [key for key in ('shift', 'rotate', 'zoom', 'brightness') if config.augmentation[key]]
    if moving:
        raise UserError(
            f'cached latents of sd_vae cannot be moved, but config.augmentation has '
            f'{", ".join(f"{key}={config.augmentation[key]}" for key in moving)}; add '
            f'{" ".join(f"--config.augmentation.{key}=0" for key in moving)}.'
        )
    return Vae(params, AutoencoderKL(**fields), channels)


def encoder(config: ConfigDict, grid: tuple[int, int], compute: dict) -> tuple[ViT, Pixels]:
    """DINOv2 without its parameters, and how it sees; `compute`: dtype, unroll and remat.

    Raises UserError where there are no weights or the patch does not divide `encoder.image_size`.
    """
    directory, size = _directory(config, 'encoder', 'dinov2'), config.encoder.image_size
    vit = ViT(**store.read_info(directory, 'dinov2')['fields'], **compute)
    if size < vit.patch or size % vit.patch:
        raise UserError(
            f'config.encoder.image_size is {size}, but the patches of {directory} are {vit.patch} '
            f'pixels wide; choose a multiple of {vit.patch}.'
        )
    return vit, Pixels(size, grid)


def encoder_params(config: ConfigDict) -> dict:
    """DINOv2's converted parameters."""
    return store.load(config.encoder.weights, 'dinov2')[1]


def denoiser_fields(config: ConfigDict, channels: int) -> dict:
    """The `DiT` fields that a start from `model.weights` fixes; none without weights.

    Raises UserError where the converted DiT has other sizes than the config or latents with other
    than `channels`.
    """
    if not config.model.weights:
        return {}
    fields = store.read_info(config.model.weights, 'dit')['fields']
    for name in ('width', 'depth', 'heads', 'patch'):
        if fields[name] != config.model[name]:
            raise UserError(
                f'config.model.{name} is {config.model[name]}, but the DiT in '
                f'{config.model.weights} has {fields[name]}; add '
                f'--config.model.{name}={fields[name]}.'
            )
    if fields['channels'] != channels:
        raise UserError(
            f'the DiT in {config.model.weights} denoises latents of {fields["channels"]} channels, '
            f'but config.latents gives {channels}; use the latents that it was trained on.'
        )
    dit = DiT(**fields)
    return {name: getattr(dit, name) for name in ('frequency_shift', 'mlp_epsilon', 'base_grid')}


def denoiser_params(config: ConfigDict, fresh: dict) -> dict:
    """A denoiser's `fresh` parameters, with the DiT of `model.weights` in them where one is given.

    Its null class becomes part of a bias, and its class table makes way for a fresh one whose null
    row is 0: without a condition, or under the null class, the denoiser computes what the DiT does
    under its null class. The variance half of a learned-sigma head is left out. What only r uses
    stays fresh, and the patch embedding sees nothing of token r at first; token r's Linear at the
    start of each block is fresh, too, so there the start is not the DiT's function.
    """
    if not config.model.weights:
        return fresh
    fields, dit = store.load(config.model.weights, 'dit')
    kernel, bias = dit['patch_embed']['kernel'], dit['patch_embed']['bias']
    unseen = fresh['patch_embed']['kernel'].shape[2] - kernel.shape[2]  # channels decoded from r
    fc2, head = dit['t_embed']['fc2'], dit['final']['linear']
    null = dit['label_embed']['embedding'][-1]
    started = {
        'patch_embed': {'kernel': jnp.pad(kernel, ((0, 0), (0, 0), (0, unseen), (0, 0))),
                        'bias': bias},
        't_embed': {'fc1': dit['t_embed']['fc1'],
                    'fc2': {'kernel': fc2['kernel'], 'bias': fc2['bias'] + null}},
        'blocks': fresh['blocks'] | dit['blocks'],
        'final': {'adaln': dit['final']['adaln'],
                  'linear': {name: _mean_half(value, fields) for name, value in head.items()}},
    }
    if 'label_embed' in fresh:
        table = fresh['label_embed']['embedding']
        started['label_embed'] = {'embedding': jnp.asarray(table).at[-1].set(0)}
    return fresh | started


def _mean_half(value, fields: dict):
    """The output layer (..., P·P·2C) without the variances; as it is where there are none."""
    if not fields['learn_sigma']:
        return value
    parts = value.reshape(*value.shape[:-1], fields['patch'] ** 2, 2, -1)
    return parts[..., 0, :].reshape(*value.shape[:-1], -1)


def _directory(config: ConfigDict, section: str, kind: str) -> str:
    """The weights of a config section; UserError where there are none."""
    directory = config[section].weights
    if not directory:
        raise UserError(
            f'config.{section}.kind is {config[section].kind!r}, but config.{section}.weights is '
            f'empty; make weights with `python -m repdiff.convert {kind} --source=FILE --out=DIR` '
            f'and add --config.{section}.weights=DIR.'
        )
    return directory
