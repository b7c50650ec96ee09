"""Writes tests/goldens/convert_*.npz from the PyTorch originals: `python make_goldens.py`.

Keys: `weights/NAME` a tensor under its published name, `x0`, `x1`... inputs at two sizes,
`OUTPUT0`, `OUTPUT1`... what the original computed from them.
"""

from pathlib import Path

import inception_reference
import numpy as np
import references

GOLDENS = Path(__file__).parents[1] / 'goldens'


def save(name: str, weights: references.State, **arrays: np.ndarray):
    named = {f'weights/{key}': value for key, value in weights.items()}
    np.savez_compressed(GOLDENS / f'convert_{name}.npz', **named, **arrays)


def dinov2(name: str, registers: int, gated: bool):
    model, published = references.dinov2(registers, gated, seed=1)
    arrays = {}
    for i, size in enumerate(((16, 16), (24, 12))):
        x = references.images(i, 2, 3, *size)
        arrays[f'x{i}'] = references.last(x)
        arrays |= {f'{key}{i}': value for key, value in references.dinov2_outputs(model, x).items()}
    if not registers:
        references.resize_as_meta(model)
        arrays['meta1'] = references.dinov2_outputs(model, x)['tokens']
    save(name, published, **arrays)


def sd_vae():
    model = references.vae(layers=1, seed=2)
    arrays = {}
    for i, size in enumerate(((16, 16), (32, 24))):
        x = references.images(i, 2, 3, *size)
        z = references.images(10 + i, 2, 4, size[0] // 8, size[1] // 8)
        arrays |= {f'x{i}': references.last(x), f'z{i}': references.last(z)}
        outputs = references.vae_outputs(model, x, z)
        arrays |= {f'{key}{i}': value for key, value in outputs.items()}
    save('sd_vae', references.state(model), **arrays)


def dit():
    t, labels = [3, 970], [1, 5]
    arrays = {'t': np.array(t), 'labels': np.array(labels)}
    for i, size in enumerate((8, 12)):
        z_t = references.images(i, 2, 4, size, size)
        arrays[f'x{i}'] = references.last(z_t)
        for lineage, trained in (('meta', size), ('diffusers', 8)):  # Meta's has one size only
            model = references.dit(trained, lineage, learn_sigma=True, seed=3)
            arrays[f'{lineage}{i}'] = references.dit_output(model, z_t, t, labels)
    save('dit', references.state(model), **arrays)


def inception():
    """Outputs alone: `inception_reference.weight` draws the 24 million weights again."""
    arrays = {}
    for i, shape in enumerate(((2, 64, 48, 1), (1, 320, 400, 3))):
        outputs = inception_reference.Reference()(inception_reference.images(i, *shape))
        arrays |= {f'{key}{i}': value for key, value in outputs.items()}
    save('inception', {}, **arrays)


if __name__ == '__main__':
    dinov2('dinov2', registers=0, gated=False)
    dinov2('dinov2_registers', registers=4, gated=True)
    sd_vae()
    dit()
    inception()
