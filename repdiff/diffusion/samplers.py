"""Samplers: from noise back to z0, without knowing the network.

All take `(denoise_fn, schedule, z_t, steps, ...)`: z_t (B, H, W, C) stands at steps[0], and `steps`
fall strictly within [0, T), not always by one. From the last of them a sampler goes to z0 itself.
One compiled body under `lax.scan`.
"""

from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from repdiff.diffusion.loss import DenoiseFn
from repdiff.diffusion.noise import draw_noise
from repdiff.diffusion.schedule import Schedule, z0_from_eps

VARIANCES = ('posterior', 'learned')


@flax.struct.dataclass
class Move:
    """From step t to a less noisy step; gamma and delta are those of the two ends, (2,) each."""

    t: jax.Array
    gamma: jax.Array
    delta: jax.Array


def even_steps(first: int, count: int) -> np.ndarray:
    """`count` integer steps from `first` down to 0, evenly spaced."""
    return np.linspace(first, 0, count).round().astype(np.int32)


def ddim(
    denoise_fn: DenoiseFn, schedule: Schedule, z_t: jax.Array, steps: Sequence[int]
) -> jax.Array:
    """z0 by deterministic DDIM (Song et al. 2021, arXiv 2010.02502, η = 0).

    Channels of a prediction after the first C (a learned variance) take no part.
    """

    def update(move: Move, z, t, prediction):
        eps = prediction[..., : z.shape[-1]]
        return move.gamma[1] * z0_from_eps(schedule, z, t, eps) + move.delta[1] * eps

    return _walk(denoise_fn, schedule, z_t, steps, update)


def ddpm(
    denoise_fn: DenoiseFn,
    schedule: Schedule,
    z_t: jax.Array,
    steps: Sequence[int],
    keys: jax.Array,
    variance: str,
) -> jax.Array:
    """z0 by ancestral sampling (Ho et al. 2020, arXiv 2006.11239) on a schedule thinned to `steps`.

    `keys` (B,), one an image, make a sample independent of its batch: the noise added after step t
    is draw t of the image's key (`draw_noise`), so draw T is free for the z_T of whole sampling.
    `variance` is 'posterior' (β̃) or 'learned': the C channels after the noise hold v, from -1 at
    log β̃ to 1 at log β (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15, as DiT codes it).
    """
    if variance not in VARIANCES:
        raise ValueError(f'variance must be one of {", ".join(VARIANCES)}: {variance!r}')

    def update(move: Move, z, t, prediction):
        eps, v = prediction[..., : z.shape[-1]], prediction[..., z.shape[-1] :]
        if variance == 'posterior':
            v = -1.0
        elif v.shape != eps.shape:
            raise ValueError(f'a learned variance takes {2 * z.shape[-1]} predicted channels, not '
                             f'{prediction.shape[-1]}')
        beta, shrink = _beta(move), move.delta[1] / move.delta[0]
        mean = (z - beta / move.delta[0] * eps) * move.gamma[1] / move.gamma[0]
        # β̃ = β shrink². The last move adds no noise, whatever v says.
        sd = jnp.where(shrink > 0, jnp.sqrt(beta) * shrink ** ((1 - v) / 2), 0)
        return mean + sd * draw_noise(keys, move.t, z.shape[1:])

    return _walk(denoise_fn, schedule, z_t, steps, update)


def _beta(move: Move) -> jax.Array:
    """β of the move from t to s, 1 - (gamma_t / gamma_s)², in float32 without cancellation."""
    (gamma_t, gamma_s), (delta_t, delta_s) = move.gamma, move.delta
    # gamma_s² - gamma_t² = delta_t² - delta_s²: the smaller squares tell it more exactly.
    difference = jnp.where(delta_t < gamma_t, delta_t**2 - delta_s**2, gamma_s**2 - gamma_t**2)
    return difference / gamma_s**2


def _walk(
    denoise_fn: DenoiseFn,
    schedule: Schedule,
    z_t: jax.Array,
    steps: Sequence[int],
    update: Callable[[Move, jax.Array, jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """Moves z along `steps` to z0: `update` gets the move, z, t (B,) and the prediction there."""
    steps = np.asarray(steps, np.int32)
    if (steps.ndim != 1 or not steps.size or np.any(np.diff(steps) >= 0) or steps[-1] < 0
            or steps[0] >= schedule.steps):
        raise ValueError(f'steps must fall strictly within [0, {schedule.steps}): {steps}')
    # The last move goes to the clean latent itself: gamma = 1, delta = 0.
    gamma, delta = (jnp.append(values[steps], end)
                    for values, end in ((schedule.gamma, 1.0), (schedule.delta, 0.0)))
    moves = Move(*map(jnp.asarray, (steps, *(jnp.stack([values[:-1], values[1:]], 1)
                                             for values in (gamma, delta)))))

    def body(z, move: Move):
        t = jnp.full(z.shape[:1], move.t)
        return update(move, z, t, denoise_fn(z, t)), None

    return jax.lax.scan(body, z_t, moves)[0]
