"""Denoise functions made of others: guidance, and one denoiser a range of steps."""

import jax

from repdiff.diffusion.loss import DenoiseFn


def guided(conditional: DenoiseFn, unconditional: DenoiseFn, scale: float) -> DenoiseFn:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598): ε_u + scale (ε_c - ε_u).

    Scale 1 is the conditional model itself, 0 the unconditional one; neither computes the other.
    Channels after the first C (a learned variance) are the conditional model's.
    """
    if scale == 1:
        return conditional
    if scale == 0:
        return unconditional

    def denoise_fn(z_t, t):
        given, free = conditional(z_t, t), unconditional(z_t, t)
        channels = z_t.shape[-1]
        eps = free[..., :channels] + scale * (given[..., :channels] - free[..., :channels])
        return jax.numpy.concatenate([eps, given[..., channels:]], -1)

    return denoise_fn


def within(t_range: tuple[int, int], inside: DenoiseFn, outside: DenoiseFn) -> DenoiseFn:
    """`inside` at steps of the half-open range, `outside` at the others.

    t is the same for the whole batch, as samplers have it; only one of the two is computed.
    """

    def denoise_fn(z_t, t):
        at = (t[0] >= t_range[0]) & (t[0] < t_range[1])
        return jax.lax.cond(at, inside, outside, z_t, t)

    return denoise_fn
