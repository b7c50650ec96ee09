"""python -m repdiff.early_stop --workdir=DIR: what the early stop saves on a finished run, and costs.

Scores the test split with the full budget, then replays the early stop on these draws at many alphas,
beside equally many draws for every image, and beside paired t-tests that do not correct for looking
again and again. Prints how often each decides as the full budget does, and at what share of its
forward passes, and adds the curves to the run's report. Also measures what steps in turn and opposite
pairs of noise do to the variance, and the speed-up by the clock. When it is stopped, the same command
goes on.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repdiff import finished, report, sharding
from repdiff.data import pipeline
from repdiff.errors import Parser, UserError, exit_on_user_error
from repdiff.files import write_json
from repdiff.methods import zeroshot
from repdiff.zeroshot import replay

TIMED = 64  # images that time and pairs of noise are measured on
PAIRS = 16  # a step


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = Parser(prog='python -m repdiff.early_stop', description=__doc__, allow_abbrev=False)
    add = made.add_argument
    add('--workdir', required=True, type=Path, help='of a finished run of repdiff.main')
    add('--row', default='', help='row of the results; the first')
    add('--budget', type=int, help="draws an image and class; the run's own")
    add('--images', type=int, help='test images, evenly spaced in the split; all')
    return made


def main(argv: Sequence[str]) -> None:
    """Parses the options, measures, prints and draws."""
    with exit_on_user_error():
        given = parser().parse_args(argv)
        for name in ('budget', 'images'):
            if getattr(given, name) is not None and getattr(given, name) < 1:
                raise UserError(f'--{name} is {getattr(given, name)}; give at least 1.')
        row = finished.load(given.workdir, given.row, sharding.make_mesh(-1, 1, 1))
        found = measure(row, given.workdir, given.budget, given.images)
        path = given.workdir / 'report' / 'early_stop.json'
        known = json.loads(path.read_text()) if path.exists() else {}
        write_json(path, known | {row.name: found})
        print(words(row.name, found))
        print(f'report: {report.write(given.workdir)}')


def measure(
    row: finished.FinishedRow, workdir: Path, budget: int | None, images: int | None
) -> dict[str, Any]:
    """Everything that is printed and drawn, as JSON values; None stands for the run's own, and all."""
    z0, ids = _test_images(row, images)
    evaluator = zeroshot.make_evaluator(row.config, row.objective, row.setting)
    evaluator = evaluator.with_settings(budget=budget or row.config.classify.budget)
    settings, labels = evaluator.settings, np.arange(len(row.setting.classes))

    def decide(chosen, count=None, what='', record=None):
        return chosen.decide(
            row.params, labels, z0[:count], ids[:count], row.decision, what, record
        )

    part = workdir / 'scores' / f'{row.name}.early_stop-{settings.budget}-{len(z0)}.part'
    whole = evaluator.with_settings(alpha=0.0)
    full = decide(whole, what=f'{row.name} full budget', record=part)
    paired = whole.with_settings(antithetic=True, budget=2 * PAIRS * row.decision.rule.t.size)
    seconds = {}
    decide(evaluator, TIMED, f'{row.name} warm-up')  # compiles, if the full budget was read back
    for name, chosen in (('early', evaluator), ('full', whole)):
        began = time.monotonic()
        decide(chosen, TIMED, f'{row.name} {name}, timed')
        seconds[name] = time.monotonic() - began
    found = {
        'images': len(z0), 'budget': settings.budget, 'alpha': settings.alpha,
        'curves': replay.curves(full, row.decision, settings),
        'stratified': replay.stratified_ratio(full, row.decision, whole.plan(row.decision)),
        'antithetic': replay.antithetic_ratio(
            decide(paired, TIMED), row.decision, paired.plan(row.decision)),
        'seconds': seconds, 'timed': min(TIMED, len(z0)),
    }
    shutil.rmtree(part)
    return found


def _test_images(row: finished.FinishedRow, images: int | None) -> tuple[np.ndarray, np.ndarray]:
    """z0 and id words of the run's test split, or of so many of its images."""
    from repdiff import experiment  # which loads much that the options do not need

    split = experiment.prepared(row.config).split('test')
    chosen = np.unique(np.linspace(0, len(split) - 1, images or len(split)).astype(int))
    examples = pipeline.examples([split[int(index)] for index in chosen])
    return zeroshot.latents(row.config, replace(row.setting, splits={'test': examples}), 'test')


def words(name: str, found: dict[str, Any]) -> str:
    """The result as a table and sentences."""
    lines = [f'{name}: {found["images"]} test images, full budget {found["budget"]} draws',
             f'{"stop":12} {"":>12} {"passes":>8} {"agreement":>10}']
    for kind, points in found['curves'].items():
        for point in points:
            what = f'alpha {point["alpha"]:g}' if 'alpha' in point else f'{point["draws"]} draws'
            lines.append(f'{kind:12} {what:>12} {point["cost"]:8.2%} {point["agreement"]:10.2%}')
    early, full = found['seconds']['early'], found['seconds']['full']
    return '\n'.join([
        *lines,
        f'variance with steps in turn: {found["stratified"]:.2f} of that at random; in opposite '
        f'pairs of noise: {found["antithetic"]:.2f} of that of single draws',
        f'by the clock, {found["timed"]} images at alpha {found["alpha"]:g}: {early:.2f} s, full '
        f'budget {full:.2f} s, {full / early:.1f} times faster',
    ])


if __name__ == '__main__':
    main(sys.argv[1:])
