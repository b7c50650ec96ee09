"""What the transformers share: dense layers, norms, attention, MLPs, patches, stacked blocks."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.nn.initializers import Initializer

from repdiff.errors import UserError
from repdiff.sharding import gathered, split_batch

NORM_EPS = 1e-6  # DINOv2's and DiT's

# What the forward pass keeps of a block: everything, the matrix products with weights, nothing.
REMAT = {
    'none': None,
    'dots': jax.checkpoint_policies.save_only_these_names('dot'),
    'full': jax.checkpoint_policies.nothing_saveable,
}


class Dense(nn.Module):
    """`x @ kernel + bias` over the last axis; parameters `kernel (Din, D)`, `bias (D,)`, float32."""

    features: int
    dtype: Any
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param('kernel', self.kernel_init, (x.shape[-1], self.features))
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        return dense(x.astype(self.dtype), kernel, bias, (*self.path, 'kernel'))


def dense(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, path: tuple[str, ...] = ()
) -> jax.Array:
    """`x @ kernel + bias` for x (..., Din), as one 2-D product: XLA's CPU backend is faster so.

    `path` is the kernel's place among the parameters, which says how devices share it.
    """
    rows = split_batch(x).reshape(-1, x.shape[-1])  # (B*N, Din)
    product = checkpoint_name(_product(rows, kernel, path) + bias, 'dot')
    return split_batch(product.reshape(*x.shape[:-1], kernel.shape[-1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(rows: jax.Array, kernel: jax.Array, path: tuple[str, ...]) -> jax.Array:
    return rows @ gathered(kernel, path)


def _product_forward(
    rows: jax.Array, kernel: jax.Array, path: tuple[str, ...]
) -> tuple[jax.Array, tuple]:
    return _product(rows, kernel, path), (rows, kernel)


def _product_backward(
    path: tuple[str, ...], saved: tuple, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    rows, kernel = saved
    outer = _outer(rows, gradient) if kernel.shape[0] <= kernel.shape[1] else (
        jax.lax.platform_dependent(rows, gradient, cpu=_outer_of_tall, default=_outer))
    return gradient @ gathered(kernel, path, again=True).T, gathered(outer, path)


def _outer(rows: jax.Array, gradient: jax.Array) -> jax.Array:
    return rows.T @ gradient


def _outer_of_tall(rows: jax.Array, gradient: jax.Array) -> jax.Array:
    # On a CPU a tall rows.T @ gradient takes 1.8 times as long as its transpose; the barrier
    # keeps XLA from swapping it back.
    return jax.lax.optimization_barrier(gradient.T @ rows).T


_product.defvjp(_product_forward, _product_backward)


def normalise(x: jax.Array, epsilon: float = NORM_EPS) -> jax.Array:
    """LayerNorm without scale and bias over the last axis, computed and returned in float32."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon)


class LayerNorm(nn.Module):
    """LayerNorm with parameters `scale (D,)` and `bias (D,)`, computed in float32."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
        bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
        return (normalise(x) * scale + bias).astype(self.dtype)


def modulate(
    x: jax.Array, shift: jax.Array, scale: jax.Array, epsilon: float = NORM_EPS
) -> jax.Array:
    """adaLN: LayerNorm of x (B, N, D), then a shift and a scale (B, D) per example, in x's dtype."""
    return (normalise(x, epsilon) * (1 + scale[:, None]) + shift[:, None]).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention; `qkv` holds query, key and value side by side, then `proj`."""

    heads: int
    dtype: Any
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = functools.partial(Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        qkv = layer(3 * x.shape[-1], name='qkv')(x)  # (B, N, 3D)
        qkv = qkv.reshape(*x.shape[:2], 3, self.heads, -1)  # (B, N, 3, heads, D/heads)
        query, key, value = jnp.unstack(qkv.transpose(2, 0, 3, 1, 4))  # each (B, heads, N, D/heads)
        mixed = attend(query, key, value)  # (B, heads, N, D/heads)
        return layer(x.shape[-1], name='proj')(mixed.transpose(0, 2, 1, 3).reshape(x.shape))


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Scaled dot-product attention over (B, heads, N, D/heads); the softmax is in float32.

    The platform that the program is lowered for chooses: cuDNN's fused kernel on an NVIDIA GPU that
    has it for these shapes, the plain products on a CPU, `jax.nn`'s own choice elsewhere.
    """
    cuda = _attend_cudnn if _has_cudnn(query) else _attend_jax
    return jax.lax.platform_dependent(
        query, key, value, cpu=_attend_plain, cuda=cuda, default=_attend_jax
    )


def _attend_plain(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    query = query * query.shape[-1] ** -0.5
    logits = jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=jnp.float32)
    return jnp.matmul(jax.nn.softmax(logits).astype(value.dtype), value)


def _attend_jax(
    query: jax.Array, key: jax.Array, value: jax.Array, implementation: str | None = None
) -> jax.Array:
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))  # (B, N, heads, D/heads)
    return jax.nn.dot_product_attention(
        query, key, value, implementation=implementation
    ).swapaxes(1, 2)


def _attend_cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return _attend_jax(query, key, value, 'cudnn')


def _has_cudnn(query: jax.Array) -> bool:
    """Whether cuDNN's fused attention takes these heads: half precision, no wider than 128.

    It needs Ampere or newer. Without a GPU in this process JAX cannot trace that kernel, so a
    program that a CPU machine lowers for CUDA holds `jax.nn`'s.
    """
    if query.dtype not in (jnp.bfloat16, jnp.float16) or query.shape[-1] % 8:
        return False
    return query.shape[-1] <= 128 and _gpu_generation() >= 8


@functools.cache
def _gpu_generation() -> int:
    """The major compute capability of this process's NVIDIA GPU, 0 without one."""
    try:
        return int(jax.local_devices(backend='cuda')[0].compute_capability.split('.')[0])
    except RuntimeError:
        return 0


class Mlp(nn.Module):
    """`fc1` -> GELU -> `fc2`; DINOv2 uses the exact GELU, DiT the tanh approximation."""

    hidden: int
    tanh: bool
    dtype: Any
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = functools.partial(Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        hidden = layer(self.hidden, name='fc1')(x)
        hidden = nn.gelu(hidden) if self.tanh else exact_gelu(hidden)
        return layer(x.shape[-1], name='fc2')(hidden)


def exact_gelu(x: jax.Array) -> jax.Array:
    """x Phi(x) through erf as PyTorch has it; `jax.nn.gelu`'s erfc takes twice the time on a CPU."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


class SwiGlu(nn.Module):
    """DINOv2's gated MLP: `w12` gives gate and value side by side, then SiLU, product and `w3`.

    The hidden size is two thirds of `hidden`, rounded up to a multiple of 8.
    """

    hidden: int
    dtype: Any
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = functools.partial(Dense, dtype=self.dtype, kernel_init=self.kernel_init)
        hidden = (int(self.hidden * 2 / 3) + 7) // 8 * 8
        gate, value = jnp.split(layer(2 * hidden, name='w12')(x), 2, axis=-1)
        return layer(x.shape[-1], name='w3')(nn.silu(gate) * value)


def patchify(x: jax.Array, patch: int) -> jax.Array:
    """(B, H, W, C) -> (B, N, patch * patch * C), tokens in row-major order."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // patch, patch, w // patch, patch, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, patch * patch * c)


def unpatchify(tokens: jax.Array, patch: int, grid: tuple[int, int]) -> jax.Array:
    """(B, N, patch * patch * C) -> (B, H, W, C), the inverse of `patchify`; `grid` is in patches."""
    h, w = grid
    x = tokens.reshape(tokens.shape[0], h, w, patch, patch, -1)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(tokens.shape[0], h * patch, w * patch, -1)


class PatchEmbed(nn.Module):
    """A convolution with stride `patch`, as a matmul; `kernel (patch, patch, C, D)`, `bias (D,)`."""

    features: int
    patch: int
    dtype: Any
    kernel_init: Initializer = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.patch, self.patch, x.shape[-1], self.features)
        # The fan-in is that of the flattened patch, as in the originals.
        flat = functools.partial(_flat_init, self.kernel_init)
        kernel = self.param('kernel', flat, shape).reshape(-1, self.features)  # (p*p*C, D)
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        patches = patchify(x, self.patch)  # (B, N, p*p*C)
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        return dense(patches.astype(self.dtype), kernel, bias, (*self.path, 'kernel'))


def _flat_init(init: Initializer, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    patch, _, channels, features = shape
    return init(key, (patch * patch * channels, features)).reshape(shape)


def stack(block: type[nn.Module], depth: int, unroll: bool, remat: str) -> type[nn.Module]:
    """`depth` blocks `(x, *shared) -> (x, y)` in one `nn.scan`: parameters get a leading L axis.

    `unroll` repeats the block in the program (faster on a CPU), otherwise it is compiled once;
    `remat` is what of a block the backward pass computes again, a key of `REMAT`. Raises UserError
    on another.
    """
    if remat not in REMAT:
        raise UserError(f'config.model.remat is {remat!r}; choose from {", ".join(REMAT)}.')
    if remat != 'none':
        block = nn.remat(block, prevent_cse=unroll, policy=REMAT[remat])
    return nn.scan(
        block,
        variable_axes={'params': 0, 'intermediates': 0},
        split_rngs={'params': True},
        in_axes=nn.broadcast,
        length=depth,
        unroll=depth if unroll else 1,
    )
