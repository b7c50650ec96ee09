"""python -m repdiff.plan --config=configs/hematoma.py[:PRESET] [--devices=N] [--config.a.b=V]

What a run would take, before any: parameters, operations, memory of a device, time on named chips.
The training steps are compiled for as many pretended CPU devices as the mesh has, so nothing but
this machine is needed. One row of the config at a time (`--row`).
"""

import json
import os
import sys
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from repdiff import chips, main
from repdiff import config as configs
from repdiff.data.settings import SIMULATED
from repdiff.errors import UserError, exit_on_user_error
from repdiff.progress import duration

FLAGS = flags.FLAGS
flags.DEFINE_integer('devices', 0, 'Chips; 0 is what config.mesh needs at least.', lower_bound=0)
flags.DEFINE_float('utilisation', 0.4, 'Share of the peak that is reached; for the times alone.')
flags.DEFINE_string('row', '', 'Which row of the results; "" is the first.')
flags.DEFINE_boolean('json', False, 'Prints one JSON object instead of tables.')

SLICES = 1000  # of validation and of test, where the config does not say how many there are


def plan(config: ConfigDict, row: str, devices: int, utilisation: float) -> dict[str, Any]:
    """Everything that is printed, as plain numbers. Raises UserError like `experiment.run`.

    JAX must already show `devices` devices.
    """
    from repdiff import abstract, methods, phases, sharding  # after the devices are set

    recipe, classes = configs.recipe(config, row), _classes(config)
    if recipe.method == 'probe':
        raise UserError(f'--row: {row!r} only reads what another row pre-trains; plan that one, '
                        f'--row={recipe.pretrain.row}.')
    methods.room(recipe).check(recipe, abstract.latent_shape(recipe), abstract.image_shape(recipe))
    mesh = sharding.make_mesh(**{axis: config.mesh[axis] for axis in sharding.AXES})
    phases.check_batches(recipe, mesh)
    if not recipe.pretrain.steps + recipe.tune.steps:
        raise UserError(f'--row={row} trains nothing: pretrain.steps and tune.steps are 0.')
    trained = {
        name: _phase(recipe, name, classes, mesh)
        for name in ('pretrain', 'tune')
        if recipe[name].steps and (name, recipe.method) != ('pretrain', 'classify')
    }
    scored = _scored(recipe, classes, mesh)
    work = {name: phase['flops_per_image'] * phase['images'] for name, phase in trained.items()}
    work |= {name: part['flops_per_image'] * part['images'] for name, part in scored.items()}
    return {
        'name': config.name, 'row': row, 'devices': devices, 'mesh': dict(mesh.shape),
        'dtype': recipe.model.dtype, 'remat': recipe.model.remat, 'classes': classes,
        'phases': trained, 'scoring': scored, 'utilisation': utilisation,
        'chips': _times(work, trained, recipe.model.dtype, devices, utilisation),
    }


def _phase(config: ConfigDict, name: str, classes: int, mesh: Mesh) -> dict[str, Any]:
    """One phase: parameters, operations of an image, bytes of a device by kind."""
    from repdiff import abstract

    section = config[name]
    phase = abstract.phase(config, name, classes)
    compiled = phase.compile(mesh)
    plain = config.copy_and_resolve_references().unlock()
    plain.model.remat = 'none'
    return {
        'steps': section.steps, 'batch': section.batch, 'images': section.steps * section.batch,
        'parameters': {
            network: sum(leaf.size for leaf in jax.tree.leaves(tree))
            for network, tree in phase.state.params.items()
        },
        'flops_per_image': abstract.phase(plain, name, classes).flops() / section.batch,
        'flops_per_image_computed': compiled.flops / section.batch,
        'bytes_per_device': _bytes(phase, mesh) | {
            'activations, gradients': compiled.temporaries + compiled.outputs
        },
        'compiled_bytes_per_device': compiled.peak, 'compile_seconds': compiled.seconds,
    }


def _bytes(phase, mesh: Mesh) -> dict[str, int]:
    """Bytes of one device, by kind, from where the partition rules put each array."""
    from repdiff import sharding

    def total(arrays, shardings) -> int:
        placed = jax.tree.map(
            lambda x, where: int(np.prod(where.shard_shape(x.shape))) * x.dtype.itemsize,
            arrays, shardings,
        )
        return sum(jax.tree.leaves(placed))

    def all_at(arrays, where) -> int:
        return total(arrays, jax.tree.map(lambda _: where, arrays))

    state, places = phase.state, sharding.state_shardings(phase.state, mesh)
    return {
        'parameters': total(state.params, places.params),
        'EMA': total(state.ema, places.ema),
        'optimizer': total(state.opt_state, places.opt_state),
        'frozen, batch': all_at(phase.frozen, sharding.replicated(mesh))
        + all_at(phase.batch, sharding.batch_sharding(mesh)),
    }


def _scored(config: ConfigDict, classes: int, mesh: Mesh) -> dict[str, dict[str, float]]:
    """What answers cost: at each checkpoint of tuning, and at the end, without early stop."""
    from repdiff import abstract

    known = config.data.source == SIMULATED
    slices = config.data.simulated if known else dict.fromkeys(('train', 'valid', 'test'), SLICES)
    validated = -(-config.tune.steps // config.tune.checkpoint_every) * slices['valid']
    if config.method != 'denoise':
        logits = abstract.logits_flops(config, classes)
        return {'validate': {'images': validated, 'flops_per_image': logits},
                'classify': {'images': slices['valid'] + slices['test'], 'flops_per_image': logits}}
    made, c = abstract.scorer(config, mesh, classes), config.classify
    one_pass = made.flops() / made.passes
    sweep = one_pass * classes * len(c.t)  # one draw at each t
    swept = slices['valid'] + min(c.train_images, slices['train'])
    return {
        'validate': {'images': validated, 'flops_per_image': sweep * c.select_draws},
        'choose the rule': {'images': swept, 'flops_per_image': sweep * c.draws},
        'classify, at most': {'images': slices['test'],
                              'flops_per_image': one_pass * classes * c.budget},
    }


def _classes(config: ConfigDict) -> int:
    """How many classes the config names; two where it leaves that to the data."""
    named = [name for name in config.data.classes if name != 'auto']
    return len(named) or 2


def _times(
    work: dict[str, float], phases: dict, dtype: str, devices: int, utilisation: float
) -> list[dict[str, Any]]:
    """Seconds of each part on each chip; `fits` says whether the steps' bytes fit its memory."""
    needed = max(phase['compiled_bytes_per_device'] for phase in phases.values())
    rows = [
        {'chip': chip.name, 'count': devices, 'peak': chip.peak(dtype), 'share': utilisation,
         'memory': chip.memory, 'fits': needed <= chip.memory} for chip in chips.CHIPS
    ]
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    rows.append({
        'chip': 'this CPU', 'count': 1, 'peak': chips.this_cpu(), 'share': utilisation,
        'memory': memory, 'fits': needed * devices <= memory,
    })
    for row in rows:
        speed = row['count'] * row['peak'] * row['share']
        row['seconds'] = {name: operations / speed for name, operations in work.items()}
    return rows


def tables(found: dict[str, Any]) -> str:
    """The plan for people."""
    mesh = ' × '.join(f'{axis} {size}' for axis, size in found['mesh'].items())
    remat = '' if found['remat'] == 'none' else f', remat {found["remat"]}'
    lines = [
        f'{found["name"]}, row {found["row"]}: {found["devices"]} devices ({mesh}), '
        f'{found["dtype"]}{remat}, {found["classes"]} classes', '',
        *_grid(['', *found['phases']], _phase_rows(found['phases'])), '',
        'The last three lines of bytes are of the program that XLA compiled for pretended CPUs.',
        'It has no fused attention and holds some of bfloat16 in float32; other chips will differ.',
        '', *_grid(['scoring', 'images', 'GFLOP an image'], [
            [name, f'{part["images"]:,}', f'{part["flops_per_image"] / 1e9:,.4g}']
            for name, part in found['scoring'].items()
        ]), '',
        f'Computing time at {found["utilisation"]:.0%} of the peak, data and network apart:', '',
    ]
    parts = list(found['chips'][0]['seconds'])
    return '\n'.join(lines + _grid(
        ['', 'TFLOP/s', 'memory', *parts, 'together'],
        [[f'{row["count"]} × {row["chip"]}', f'{row["peak"] / 1e12:.3g}',
          'fits' if row['fits'] else 'too small',
          *(duration(row['seconds'][part]) for part in parts),
          duration(sum(row['seconds'].values()))] for row in found['chips']],
    ))


def _phase_rows(phases: dict[str, dict]) -> list[list[str]]:
    def line(title: str, show) -> list[str]:
        return [title, *(show(phase) for phase in phases.values())]

    def size(count: int) -> str:
        return f'{count / 2**30:,.2f} GiB' if count >= 2**28 else f'{count / 2**20:,.2f} MiB'

    kinds = list(next(iter(phases.values()))['bytes_per_device'])
    return [
        line('steps × images', lambda phase: f'{phase["steps"]:,} × {phase["batch"]:,}'),
        line('parameters, million', lambda phase: ' + '.join(
            f'{count / 1e6:,.1f} {network}' for network, count in phase['parameters'].items())),
        line('GFLOP an image', lambda phase: f'{phase["flops_per_image"] / 1e9:,.4g}'),
        line('  with what remat repeats',
             lambda phase: f'{phase["flops_per_image_computed"] / 1e9:,.4g}'),
        *(line(f'a device: {kind}', lambda phase: size(phase['bytes_per_device'][kind]))
          for kind in kinds),
        line('a device: together',
             lambda phase: size(sum(phase['bytes_per_device'].values()))),
        line('  the compiled program says',
             lambda phase: size(phase['compiled_bytes_per_device'])),
        line('seconds to compile here', lambda phase: f'{phase["compile_seconds"]:.0f}'),
    ]


def _grid(head: list[str], rows: list[list[str]]) -> list[str]:
    """Columns aligned by spaces, the first to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    return [
        '  '.join([row[0].ljust(widths[0]),
                   *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in (head, *rows)
    ]


def run(argv: list[str]) -> None:
    """Parses, pretends the devices, prints the plan."""
    with exit_on_user_error():
        config, _ = main.parse(argv)
        if not 0 < FLAGS.utilisation <= 1:
            raise UserError(f'--utilisation={FLAGS.utilisation} is no share; choose above 0, to 1.')
        fixed = [size for name, size in config.mesh.items() if name != 'cpu_devices' and size > 0]
        devices = FLAGS.devices or max(int(np.prod(fixed)), config.mesh.cpu_devices)
        # Machine code is not run, so it need not be good.
        os.environ['XLA_FLAGS'] = (
            os.environ.get('XLA_FLAGS', '') + ' --xla_backend_optimization_level=0')
        jax.config.update('jax_platforms', 'cpu')
        jax.config.update('jax_num_cpu_devices', devices)
        found = plan(config, FLAGS.row or config.rows[0], devices, FLAGS.utilisation)
        print(json.dumps(found) if FLAGS.json else tables(found))


if __name__ == '__main__':
    run(sys.argv)
