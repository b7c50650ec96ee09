"""python -m repdiff.prepare --source=DIR_OR_FILES --labels=CSV --out=DIR: images to a data set."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repdiff import config
from repdiff.data import burned_in, deidentify, jobs, preparation, records, windows, workers
from repdiff.data.settings import SIMULATED, DataSettings
from repdiff.errors import Parser, UserError, exit_on_user_error

IMAGE_SIZE = 256  # the paper's


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(',') if part.strip())


def _fractions(text: str) -> dict[str, float]:
    pairs = [part.partition('=') for part in _names(text)]
    try:
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise UserError(f'--fractions {text!r} should be like train=0.7,valid=0.15,test=0.15.') \
            from None


def parser() -> argparse.ArgumentParser:
    """The options; what is not given is as in the base config."""
    data = config.base().data
    made = Parser(prog='python -m repdiff.prepare', description=__doc__, allow_abbrev=False,
                  epilog='Text burned in over the head is neither seen nor removed: look at the '
                         'contact sheets of prepare.html before you share a data set.')
    add = made.add_argument
    add('--source', nargs='+', required=True, metavar='PATH',
        help='a directory or files: DICOM, NIfTI, NumPy, PNG, JPEG, TIFF; or tfds:NAME')
    add('--out', required=True, type=Path, help='directory of the data set to make or bring up to '
        'date')
    add('--name', default='', help='name of the data set; the name of --out')
    add('--labels', default=data.labels, metavar='CSV', help='labels.csv in the source')
    add('--label-format', default=data.label_format, help='csv, rsna, ct_ich or cq500')
    add('--label', default=data.label,
        help="column, or rule such as 'hematoma = blend_sign | fluid_level'")
    add('--classes', type=_names, default=tuple(data.classes),
        help='class names in the order of their ids, or auto; binary without')
    add('--markers', type=_names, default=tuple(data.markers), help='columns kept as multi-label')
    for key, what in (('key', 'file or slice names'), ('patient', 'patients'),
                      ('facility', 'facilities'), ('window', 'windows'), ('split', 'splits')):
        add(f'--{key}-column', default=data[f'{key}_column'], help=f'CSV column of {what}')
    add('--image-size', type=int, default=IMAGE_SIZE, help='pixels a side (%(default)s)')
    add('--channels', type=int, default=None,
        help='1 grey, 3 colour; as many as --window has by default')
    add('--window', default=data.window,
        help=f'of HU: {", ".join(windows.PRESETS)}, CENTRE/WIDTH, up to three joined by +, or '
        'FACILITY=WINDOW,...,*=WINDOW (%(default)s)')
    add('--head-mask', action='store_true', help='remove what lies outside the head')
    add('--crop', action='store_true', help='centre the head and crop to it; needs --head-mask')
    add('--fractions', type=_fractions, default=data.fractions.to_dict(),
        help='share of patients of each split (%(default)s)')
    add('--pretrain-facilities', type=_names, default=tuple(data.pretrain_facilities))
    add('--downstream-facilities', type=_names, default=tuple(data.downstream_facilities),
        help='facilities of train, valid and test; the others are pre-trained on')
    add('--seed', type=int, default=config.base().seed, help='of the splits (%(default)s)')
    add('--keep-names', action='store_true',
        help='store names as they are; for data that have no person in them')
    add('--salt-file', type=Path, default=Path(config.base().cache).expanduser() / 'salt',
        help='secret of the hashes that hide names; made where it is not there (%(default)s)')
    add('--mapping', type=Path, metavar='FILE',
        help='write a private table of what the hidden names stand for, also those of an error; '
        'keep it to yourself')
    add('--preview', action='store_true', help='show slices before and after in '
        'prepare.html; those before have their burned-in text, names too')
    add('--strict', action='store_true',
        help='make the first file or slice that cannot be used an error, but for files of another '
        'kind, such as a README, and hidden ones')
    add('--processes', type=int, default=workers.cores(), help='that read at once (%(default)s)')
    return made


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    given, unknown = parser().parse_known_args(argv)
    if unknown:  # without their values, which may be names
        names = [each.partition('=')[0] for each in unknown if each.startswith('-')]
        raise UserError(
            (f'unrecognized arguments: {" ".join(names)}' if names else
             'a word stands by itself; quote a value that has spaces in it')
            + '; see python -m repdiff.prepare --help.')
    return given


def settings(given: argparse.Namespace) -> DataSettings:
    """The options as data settings. Raises UserError where they do not fit together."""
    chosen: dict[str, Any] = {
        key: getattr(given, key) for key in (
            'labels', 'label_format', 'label', 'classes', 'markers', 'key_column',
            'patient_column', 'facility_column', 'window_column', 'split_column', 'image_size',
            'window', 'head_mask', 'crop', 'pretrain_facilities', 'downstream_facilities',
            'fractions', 'seed')}
    source, files = given.source[0], ()
    if len(given.source) > 1:
        files = tuple(os.path.abspath(path) for path in given.source)
        source = os.path.commonpath([os.path.dirname(path) for path in files])
    if source == SIMULATED:
        raise UserError('simulated images are prepared by repdiff.main itself; give files.')
    channels = given.channels
    if channels is None:
        channels = len(next(iter(windows.parse_facilities(given.window).values())))
    return DataSettings(
        **chosen, name=given.name or given.out.absolute().name, source=source, files=files,
        channels=channels, deidentify=not given.keep_names, simulated=None)


def _check_out(out: Path, made: DataSettings) -> None:
    records.check_place(out)
    for path in (made.files or (made.source,)) if jobs.is_files(made) else ():
        source = Path(path).expanduser()
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise UserError(
                f'--out {str(out)!r} lies inside the source; choose a directory beside it.')


def main(argv: Sequence[str]) -> None:
    """Prepares what the command line says and tells what came of it."""
    given = _parse(argv)
    made = settings(given)
    _check_out(given.out, made)
    if given.mapping is not None and given.mapping.resolve().is_relative_to(given.out.resolve()):
        raise UserError(f'--mapping {str(given.mapping)!r} lies inside --out and would travel with '
                        'it; give a path outside.')
    if given.processes < 1:
        raise UserError(f'--processes is {given.processes}; give at least 1.')
    salt = deidentify.read_salt(given.salt_file, outside=given.out) if made.deidentify else None
    dataset = preparation.prepare(made, given.out, strict=given.strict, processes=given.processes,
                                  preview=given.preview, salt=salt, earlier_at=given.out,
                                  mapping=given.mapping)
    for name in dataset.splits:
        counts = dataset.info['splits'][name]
        print(f'{name}: {counts["images"]} images of {counts["patients"]} patients, '
              f'{counts["positives"]} positive')
    print(f'left out: {len(dataset.info["skipped"])}; remarks: {len(dataset.info["notes"])}')
    texts = sum(note['remark'].startswith(burned_in.REMARK) for note in dataset.info['notes'])
    if texts:
        print(f'{texts} remarks say that {burned_in.REMARK}: see prepare.html before you share it.')
    print(f'{given.out} is ready.')


if __name__ == '__main__':
    with exit_on_user_error():
        main(sys.argv[1:])
