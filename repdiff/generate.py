"""python -m repdiff.generate --workdir=DIR: images from a finished run, measured."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from repdiff import finished, report
from repdiff.errors import Parser, UserError, exit_on_user_error
from repdiff.files import write_atomic, write_json
from repdiff.generation import conditions, features, figures, regenerate, sampling, table
from repdiff.generation.conditions import Condition
from repdiff.generation.features import Network
from repdiff.generation.studio import HELD_OUT, Made, Studio
from repdiff.host import keep_freed_memory
from repdiff.progress import note
from repdiff.report import generated

SHOWN = 8  # images of a grid
TABLE = ('none', 'label', 'images', 'density')  # the rows of the table where none are named
FIGURE_T = (50, 100, 200, 300, 400, 600, 800)  # of figure 9


def parser() -> argparse.ArgumentParser:
    """The options."""
    grammar = '; '.join(f'{name}: {words}' for name, words in conditions.GRAMMAR.items())
    made = Parser(prog='python -m repdiff.generate', description=__doc__, allow_abbrev=False,
                  epilog=f'Conditions are {grammar}.')
    add = made.add_argument
    add('--workdir', required=True, type=Path, help='of a finished run of repdiff.main')
    add('--condition', action='append', metavar='CONDITION', help='what to generate under; give it '
        f'again for more; {", ".join(TABLE)} and figures 7 and 9 without any')
    add('--row', default='', help='row that generates; the first that can')
    add('--samples', type=int, default=512, help='images of each condition (%(default)s)')
    add('--sampler', default='ddim', help='ddim or ddpm (%(default)s)')
    add('--steps', type=int, default=50, help='of the sampler (%(default)s)')
    add('--guidance', type=float, default=1.0, metavar='SCALE',
        help='classifier-free, of labels and of r; 1 is none (%(default)s)')
    add('--seed', type=int, default=0, help='of noise and drawn r (%(default)s)')
    add('--from-t', type=int, default=100, metavar='T',
        help='step that figure 7 regenerates from (%(default)s)')
    add('--reference', default='test', metavar='SPLIT',
        help='split that is measured against; never one that r comes from (%(default)s)')
    add('--batch', type=int, default=64, help='images a call (%(default)s)')
    network = made.add_mutually_exclusive_group()
    network.add_argument('--inception', metavar='DIR',
                         help='features: made by python -m repdiff.convert inception')
    network.add_argument('--dinov2', metavar='DIR',
                         help='features: made by python -m repdiff.convert dinov2')
    return made


def main(argv: Sequence[str]) -> None:
    """Generates, measures and draws what the command line asks for."""
    given = parser().parse_args(argv)
    named = [conditions.parse(text) for text in given.condition or ()]
    for name, least in (('batch', 1), ('seed', 0)):
        if getattr(given, name) < least:
            raise UserError(f'--{name} is {getattr(given, name)}; give at least {least}.')
    if given.samples <= table.FEWEST:
        raise UserError(f'--samples is {given.samples}, too few to measure; give more than '
                        f'{table.FEWEST}.')
    config = finished.config_of(given.workdir)
    cache = Path(config.cache).expanduser() / 'xla'
    jax.config.update('jax_compilation_cache_dir', str(cache))
    if not 0 < given.from_t < config.diffusion.steps:
        raise UserError(f'--from-t is {given.from_t}; choose 1 to {config.diffusion.steps - 1}.')
    studio = Studio(given.workdir, config, given.reference, given.batch)
    settings = sampling.Settings(given.sampler, given.steps, given.guidance, given.seed)
    network = _network(given, studio)
    chosen = named or _of_table(studio, given.row, given.guidance)
    made = []
    for order in [studio.order(condition, given.row, settings) for condition in chosen]:
        made.append(studio.make(order, given.samples))
        _draw(studio, made[-1])
    _write_table(studio, made, network)
    if not given.condition:
        _write_figures(studio, settings, given.from_t, given.row)
    print(f'images, figures and table: {studio.root}')
    print(f'report: {report.write(given.workdir)}')


def _network(given: argparse.Namespace, studio: Studio) -> Network:
    if given.inception:
        return features.inception(given.inception)
    if given.dinov2:
        return features.dinov2(given.dinov2)
    try:
        row = studio.row_for(Condition('images'))
    except UserError:
        raise UserError('no row of this run has a joint ViT to measure with; give --inception=DIR '
                        'or --dinov2=DIR, made by python -m repdiff.convert.') from None
    return features.joint(studio.model(row))


def _of_table(studio: Studio, row: str, guidance: float) -> list[Condition]:
    """The table's conditions that `row`, or else some row, can generate under."""
    found, model = [], studio.model(row) if row else None
    for condition in map(Condition, TABLE):
        try:
            if model:
                conditions.check(condition, model, guidance)
            else:
                studio.row_for(condition)
            found.append(condition)
        except UserError as reason:
            note(f'left out: {reason}')
    if not found:
        raise UserError('no row of this run can generate; run the main job with one that denoises.')
    return found


def _draw(studio: Studio, made: Made) -> None:
    """The first samples of a set beside what they could be copies of."""
    images = made.shards[0][:SHOWN]
    of = made.order.given.sources
    sources = of and of(np.arange(len(images)))
    training = studio.training_images(made.copies.number[:len(images)])
    write_atomic(studio.root / f'{made.directory.name}.png',
                 figures.grid(images, sources, training, made.copies, made.order.name))


def _write_table(studio: Studio, made: list[Made], network: Network) -> None:
    """table.json and table.txt; the text is printed, too."""
    against = studio.reference(network)
    yardstick = float(np.median(studio.real_distances))
    rows = []
    for split in (HELD_OUT, 'pretrain'):
        if split != studio.reference_split:
            found = table.measures(studio.real_features(split, network), against)
            near = {'training_distance': yardstick} if split == HELD_OUT else None
            rows.append(table.row(f'real images ({split})', found, near, {'split': split}))
    for each in made:
        found = table.measures(studio.features(each, network), against)
        order = each.order
        about = {'row': order.model.row, 'condition': str(order.condition),
                 'directory': each.directory.name, **order.given.about}
        rows.append(table.row(order.name, found, each.copies.summary(), about))
    count = len(studio.dataset.split(studio.reference_split))
    whole = {
        'reference': {'split': studio.reference_split, 'images': count},
        'features': network.words, 'real_training_distance': yardstick, 'rows': rows}
    write_json(studio.root / 'table.json', whole)
    text = generated.text(whole)
    write_atomic(studio.root / 'table.txt', text)
    print(text)


def _write_figures(studio: Studio, settings: sampling.Settings, t: int, row: str) -> None:
    png, distances = regenerate.figure7(studio, settings, t, row)
    write_atomic(studio.root / 'figure7.png', png)
    write_json(studio.root / 'figure7.json', {'t': t, 'distance': distances})
    shown = tuple(step for step in FIGURE_T if step < studio.config.diffusion.steps)
    write_atomic(studio.root / 'figure9.png', regenerate.figure9(studio, settings, shown))


if __name__ == '__main__':
    keep_freed_memory()  # before JAX starts
    with exit_on_user_error():
        main(sys.argv[1:])
