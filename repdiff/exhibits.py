"""Arrays that the report draws beside the numbers: sample slices, and z0' over t."""

import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.diffusion import schedule as schedules
from repdiff.files import write_atomic
from repdiff.latents.frontend import PatchBasis, to_uint8
from repdiff.objectives.denoise import Pretrain, represent


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """An .npz file, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def samples(split: Any, name: str, markers: list[str], classes: int, each: int) -> dict:
    """`each` slices of every class of a split, with what is known of them, as arrays."""
    found: dict[int, list[dict]] = {k: [] for k in range(classes)}
    for index in range(len(split)):
        record = split[index]
        if len(found.get(int(record['label']), range(each))) < each:
            found[int(record['label'])].append(record)
    records = [record for group in found.values() for record in group]
    return {
        'images': np.stack([record['image'][..., 0] for record in records]),
        'labels': np.array([record['label'] for record in records]),
        'facilities': np.array([record['facility'] for record in records]),
        'markers': np.array([
            ', '.join(m for m, on in zip(markers, record.get('markers', ()), strict=False) if on)
            for record in records
        ]),
        'split': np.full(len(records), name),
    }


def z0_over_t(
    objective: Pretrain, params: dict, frontend: PatchBasis, image: np.ndarray, t: np.ndarray,
    key: jax.Array,
) -> dict[str, np.ndarray]:
    """z0' (arXiv 2505.06890, eq. 3 and figure 9) of one uint8 image (H, W, C) at each t (J,).

    Returns decoded uint8 images (J, H, W): `kept`, with r, where there is an encoder; `dropped`.
    """
    z0 = frontend.encode(jnp.asarray(image)[None])
    z0 = jnp.broadcast_to(z0, (t.size, *z0.shape[1:]))
    eps = jnp.broadcast_to(jax.random.normal(key, z0.shape[1:]), z0.shape)
    steps = jnp.asarray(t, jnp.int32)
    z_t = schedules.add_noise(objective.schedule, z0, steps, eps)

    @jax.jit
    def decoded(params, r, drop):
        eps = objective.denoiser.apply({'params': params['denoiser']}, z_t, steps, r, drop)
        predicted = schedules.z0_from_eps(objective.schedule, z_t, steps, eps[..., : z0.shape[-1]])
        return to_uint8(frontend.decode(predicted))[..., 0]

    if objective.encoder is None:
        return {'dropped': np.asarray(decoded(params, None, None))}

    @jax.jit
    def encoded(params):
        return represent(objective.encoder, params, z0, objective.denoiser.representation)

    r, keep = encoded(params['encoder']), jnp.zeros(t.size, bool)
    kinds = {'kept': keep, 'dropped': ~keep}
    return {kind: np.asarray(decoded(params, r, drop)) for kind, drop in kinds.items()}
