"""The device mesh, and where parameters and batches lie on it."""

import functools
import re
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from repdiff.errors import UserError
from repdiff.optim import match

AXES = ('data', 'fsdp', 'tensor')
BATCH = PartitionSpec(('data', 'fsdp'))

# Ordered (regex, spec), first match wins. Kernels inside `blocks` have a leading block axis.
PARTITION_RULES = (
    (r'blocks/(adaln|mix|attn/qkv|mlp/fc1|mlp/w12)/kernel$', PartitionSpec(None, 'fsdp', 'tensor')),
    (r'blocks/(attn/proj|mlp/fc2|mlp/w3)/kernel$', PartitionSpec(None, 'tensor', 'fsdp')),
    (r'(^|/)(t_embed/fc1|r_embed|(final|decode)/(adaln|linear))/kernel$',
     PartitionSpec('fsdp', 'tensor')),
    (r'(^|/)t_embed/fc2/kernel$', PartitionSpec('tensor', 'fsdp')),
    (r'(^|/)patch_embed/kernel$', PartitionSpec(None, None, None, 'fsdp')),
    (r'(dino|ibot)/fc\d/kernel$|(dino|ibot)/last$', PartitionSpec(None, 'fsdp')),
    (r'(^|/)head/linear/kernel$', PartitionSpec('fsdp', None)),
    (r'(^|/)(stem|conv\d|conv_shortcut)/kernel$', PartitionSpec(None, None, None, 'fsdp')),
    (r'(^|/)(pos_embed|label_embed/embedding)$', PartitionSpec(None, 'fsdp')),
    (r'(^|/)(bias|scale|ls1|ls2|cls_token|mask_token|register_tokens|null)$', PartitionSpec()),
)


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh over all devices; one of the sizes may be −1 and takes what is left.

    On TPUs, neighbours in the mesh are neighbours in the machine.
    Raises UserError when the sizes do not multiply to the number of devices.
    """
    sizes, count = [data, fsdp, tensor], jax.device_count()
    if sizes.count(-1) > 1:
        raise UserError('mesh: only one of data, fsdp and tensor may be -1; give the others sizes.')
    known = int(np.prod([size for size in sizes if size != -1]))
    if -1 in sizes and count % known == 0:
        sizes[sizes.index(-1)] = count // known
    if int(np.prod(sizes)) != count:
        raise UserError(
            f'mesh: data×fsdp×tensor = {data}×{fsdp}×{tensor} does not fit {count} devices; '
            'set config.mesh so that the product is the number of devices.'
        )
    devices = mesh_utils.create_device_mesh(sizes, allow_split_physical_axes=True)
    return Mesh(devices, AXES)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over data × fsdp."""
    return NamedSharding(mesh, BATCH)


def split_batch(x: jax.Array) -> jax.Array:
    """x (B, ...) with B split over data × fsdp; the compiler chooses for the other axes.

    Layers say so of what they take and put out. Without it the compiler may, under fsdp, move
    activations instead of parameters and keep whole batches on every device. As given outside of a
    mesh (`on_mesh`).
    """
    return _placed(x, PartitionSpec(*BATCH, *[PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)))


def gathered(parameter: jax.Array, path: tuple[str, ...], again: bool = False) -> jax.Array:
    """A parameter where a layer uses it: its fsdp parts put together, its tensor parts kept apart.

    `path` is where the parameters' tree has it; under `blocks`, one block's. `again` keeps the
    compiler from holding on to what was gathered before. Layers say so because the compiler, left
    to itself, also moves activations instead, and with data, fsdp and tensor all at work it has
    mixed up their rows (jaxlib 0.10.2). As given outside of a mesh or of the rules.
    """
    mesh, name = jax.sharding.get_abstract_mesh(), '/'.join(path)
    spec = next((spec for pattern, spec in PARTITION_RULES if re.search(pattern, name)), None)
    if spec is None or mesh.axis_names != AXES:
        return parameter
    if again and mesh.shape['fsdp'] > 1:
        parameter = jax.lax.optimization_barrier(parameter)
    axes = tuple(spec)[-parameter.ndim:]  # without the block axis
    return _placed(parameter, PartitionSpec(*(
        axis if axis == 'tensor' and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(axes, parameter.shape)
    )))


def _placed(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    inside = jax.sharding.get_abstract_mesh().axis_names == AXES
    return jax.lax.with_sharding_constraint(x, spec) if inside else x


def on_mesh(function: Callable, mesh: Mesh) -> Callable:
    """`function` with the mesh in context, for `split_batch`; to be jitted."""

    @functools.wraps(function)
    def wrapped(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return wrapped


def param_shardings(params, mesh: Mesh):
    """NamedShardings of parameters by PARTITION_RULES; an axis that does not divide stays whole."""

    def fit(spec: PartitionSpec, array) -> NamedSharding:
        axes = tuple(
            axis if axis and array.shape[i] % mesh.shape[axis] == 0 else None
            for i, axis in enumerate(spec)
        )
        return NamedSharding(mesh, PartitionSpec(*axes))

    specs = match(PARTITION_RULES, params)
    return jax.tree.map(
        fit, specs, params, is_leaf=lambda node: isinstance(node, PartitionSpec)
    )


def state_shardings(state, mesh: Mesh):
    """Shardings of a TrainState: optimizer moments and the EMA lie where their parameters lie."""
    params = param_shardings(state.params, mesh)
    whole = replicated(mesh)
    structure = jax.tree.structure(state.params)

    def place(node):
        if jax.tree.structure(node) == structure:
            return params
        return jax.tree.map(lambda _: whole, node)

    opt_state = jax.tree.map(
        place, state.opt_state, is_leaf=lambda node: jax.tree.structure(node) == structure
    )
    return state.replace(step=whole, params=params, ema=params, opt_state=opt_state)


def batch_parts(mesh: Mesh) -> int:
    """Into how many equal parts the mesh cuts a batch."""
    return mesh.shape['data'] * mesh.shape['fsdp']


@functools.lru_cache
def host_rows(mesh: Mesh, batch: int) -> np.ndarray:
    """The rows of a batch (over all hosts) that this host's devices hold, in ascending order.

    `batch` is a multiple of `batch_parts`.
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[rows] for rows, in slices]))


def to_devices(batch, mesh: Mesh):
    """This host's rows of a batch (`host_rows`) as global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    if sharding.is_fully_addressable:
        return jax.device_put(batch, sharding)
    parts = batch_parts(mesh)
    here = len(host_rows(mesh, parts))

    def place(x: np.ndarray) -> jax.Array:
        total = len(x) * parts // here
        rows = host_rows(mesh, total)

        def block(index: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = index[0].indices(total)
            first = np.searchsorted(rows, start)
            return x[first:first + stop - start]

        return jax.make_array_from_callback((total, *x.shape[1:]), sharding, block)

    return jax.tree.map(place, batch)


def to_all(tree, mesh: Mesh):
    """Arrays or keys that every host has alike, whole on every device of every host."""
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)


def to_hosts(x: jax.Array) -> np.ndarray:
    """A global array, whole, on every host."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(jax.jit(lambda x: x, out_shardings=replicated(x.sharding.mesh))(x))
