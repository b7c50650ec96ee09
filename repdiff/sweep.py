"""python -m repdiff.sweep --config=FILE[:PRESET] --study=configs/sweeps.py:NAME [--config.a.b=V]

Runs the config at every point of a study, for each of `--seeds`, each in WORKDIR/POINT/seed-S, and
gathers what is finished into WORKDIR/sweep.csv and sweep.png. A stopped sweep goes on when the
command is given again. `--part=I/N` runs every N-th run from the I-th, so that N machines with one
WORKDIR share the work; whichever command ends last gathers all.
"""

import csv
import importlib.util
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from repdiff import cluster, main
from repdiff.errors import UserError, exit_on_user_error
from repdiff.eval.metrics import NAMES
from repdiff.files import write_atomic
from repdiff.progress import note
from repdiff.report import style
from repdiff.report import sweep as figure
from repdiff.report.workdir import is_floor, load

FLAGS = flags.FLAGS
flags.DEFINE_string('study', '', 'File and name of a study: configs/sweeps.py:labels.')
flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds of the runs at each point.')
flags.DEFINE_string('part', '0/1', 'Which of how many parts of the sweep: I/N, from 0.')

COLUMNS = ('study', 'point', 'seed', 'model', 'floor', 'valid_auroc', *NAMES, 'train_seconds')


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    point: str
    seed: int
    config: ConfigDict
    workdir: Path


def read_study(text: str) -> dict[str, Any]:
    """The study FILE:NAME: name, title, axis and points. Raises UserError where there is none."""
    path, _, name = text.rpartition(':')
    if not path.endswith('.py') or not Path(path).is_file():
        raise UserError(f'--study: there is no file {path!r}; try configs/sweeps.py:labels.')
    spec = importlib.util.spec_from_file_location('study', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_study(name)


def cells(study: Mapping[str, Any], config: ConfigDict, seeds: Sequence[int],
          workdir: Path) -> list[Cell]:
    """All runs of a sweep: the points of the first seed, then those of the next.

    Raises UserError where a point names a key that the config does not have.
    """
    made = []
    for seed in seeds:
        for point, overrides in study['points'].items():
            changed = config.copy_and_resolve_references()
            try:
                changed.update(overrides)
            except (KeyError, TypeError) as error:
                raise UserError(f'--study: point {point!r} of {study["name"]!r}: {error}; use keys '
                                'of the base config.') from None
            changed.seed = seed
            place = workdir / point.replace(' ', '') / f'seed-{seed}'
            made.append(Cell(point, seed, changed.lock(), place))
    return made


def part(made: Sequence[Cell], text: str) -> Sequence[Cell]:
    """Part I of N of a sweep's runs, as 'I/N' says: the same on every machine."""
    try:
        number, count = map(int, text.split('/'))
    except ValueError:
        number, count = -1, 0
    if not 0 <= number < count:
        raise UserError(f'--part is {text!r}; give I/N with I from 0 to N-1, such as 0/4.')
    return made[number::count]


def selected(study: Mapping[str, Any], rows: Sequence[Mapping[str, Any]],
             seeds: int) -> dict[str, tuple[str, float] | None]:
    """The point of the highest mean valid_auroc, and that mean, of each model that is no floor.

    Only points that all `seeds` seeds have finished take part; None where there is none. The first
    of equally good ones is taken.
    """
    chosen = {}
    for name in dict.fromkeys(row['model'] for row in rows if not row['floor']):
        found = {point: [row['valid_auroc'] for row in rows
                         if (row['model'], row['point']) == (name, point)]
                 for point in study['points']}
        means = {point: sum(each) / seeds for point, each in found.items()
                 if len(each) == seeds and None not in each}
        chosen[name] = max(means.items(), key=lambda item: item[1]) if means else None
    return chosen


def gather(study: Mapping[str, Any], made: Sequence[Cell], workdir: Path) -> str:
    """Writes sweep.csv and sweep.png of the runs that are finished; returns lines about them.

    After the first line, one a model: which point validation prefers, never the test split.
    """
    rows, done = [], 0
    for cell in made:
        if not (cell.workdir / 'results.json').exists():
            continue
        done += 1
        rows += [
            {'study': study['name'], 'point': cell.point, 'seed': cell.seed, 'model': row['name'],
             'floor': int(is_floor(row)), 'valid_auroc': row.get('rule', {}).get('valid_auroc'),
             **{key: row.get(key) for key in COLUMNS[6:]}}
            for row in load(cell.workdir).rows
        ]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(workdir / 'sweep.csv', text.getvalue())
    seeds = len({cell.seed for cell in made})
    chosen = selected(study, rows, seeds)
    if rows:
        with style.context():
            write_atomic(workdir / 'sweep.png', figure.draw(study, rows, {
                name: best[0] for name, best in chosen.items() if best}))
    lines = [f'{done} of {len(made)} runs are in {workdir / "sweep.csv"} and sweep.png']
    for name, best in chosen.items():
        lines.append(f'{name}: best on validation at {study["axis"]} {best[0]}, mean AUROC '
                     f'{best[1]:.3f} of {seeds} seeds' if best else
                     f'{name}: no point has its AUROC on validation from all {seeds} seeds yet')
    return '\n'.join(lines)


def run(argv: list[str]) -> None:
    """Parses, starts the devices, runs this part of the sweep and gathers."""
    with cluster.leave_together(), exit_on_user_error():
        config, workdir = main.parse(argv)
        study = read_study(FLAGS.study)
        if not FLAGS.workdir:
            workdir = workdir.with_name(f'{workdir.name}-{study["name"]}')
        try:
            seeds = [int(seed) for seed in FLAGS.seeds]
        except ValueError:
            raise UserError(f'--seeds is {",".join(FLAGS.seeds)}; give whole numbers.') from None
        made = cells(study, config, seeds, workdir)
        mine = part(made, FLAGS.part)
        main.start(config)
        from repdiff import folds  # after the devices are set
        for number, cell in enumerate(mine, 1):
            note(f'{study["name"]} {cell.point}, seed {cell.seed}: run {number} of {len(mine)}')
            folds.finish(cell.config, cell.workdir)
        if cluster.is_first():
            print(gather(study, made, workdir))


if __name__ == '__main__':
    run(sys.argv)
