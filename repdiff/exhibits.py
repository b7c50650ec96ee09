"""Arrays that the report draws beside the numbers: sample slices, and z0' over t."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repdiff.diffusion import schedule as schedules
from repdiff.latents.frontend import to_uint8
from repdiff.objectives.denoise import Pretrain, latent
from repdiff.sharding import to_hosts


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
    objective: Pretrain, params: dict, frozen: dict, image: np.ndarray, t: np.ndarray,
    key: jax.Array,
) -> dict[str, np.ndarray]:
    """z0' (arXiv 2505.06890, eq. 3 and figure 9) of one uint8 image (H, W, C) at each t (J,).

    Returns decoded uint8 images (J, H, W, C): `kept`, with r, where there is an encoder; `dropped`.
    """
    batch, steps = {'image': jnp.asarray(image)[None]}, jnp.asarray(t, jnp.int32)

    @jax.jit
    def encoded(params, frozen):
        z0 = latent(frozen, batch)
        return z0, objective.represent(params, frozen, batch, z0)

    @jax.jit
    def decoded(params, frozen, z0, r, drop):
        shown = jnp.broadcast_to(z0, (t.size, *z0.shape[1:]))
        eps = jnp.broadcast_to(jax.random.normal(key, z0.shape[1:]), shown.shape)
        z_t = schedules.add_noise(objective.schedule, shown, steps, eps)
        if r is not None:
            r = jnp.broadcast_to(r, (t.size, *r.shape[1:]))
        eps = objective.denoiser.apply({'params': params['denoiser']}, z_t, steps, r, drop)
        predicted = schedules.z0_from_eps(objective.schedule, z_t, steps, eps)
        return to_uint8(frozen['frontend'].decode(predicted))

    z0, r = encoded(params, frozen)
    keep = jnp.zeros(t.size, bool)
    kinds = {'dropped': ~keep} if r is None else {'kept': keep, 'dropped': ~keep}
    return {
        kind: to_hosts(decoded(params, frozen, z0, r, drop)) for kind, drop in kinds.items()
    }
