"""python -m repdiff.benchmark WHAT [--help]: speed and memory, as ratios within one run."""

import argparse
import sys
from collections.abc import Sequence

from repdiff.benchmark import beside, compiling, convert, evaluator, loop, prepare, sizes
from repdiff.errors import Parser, exit_on_user_error

# Each module has options(add) and run(options); its docstring is the help.
WHAT = {
    'train': beside,
    'score': beside,
    'evaluator': evaluator,
    'sizes': sizes,
    'compile': compiling,
    'loop': loop,
    'prepare': prepare,
    'convert': convert,
}


def parser() -> argparse.ArgumentParser:
    """One subcommand for each entry of WHAT."""
    made = Parser(prog='python -m repdiff.benchmark', description=__doc__, allow_abbrev=False)
    parts = made.add_subparsers(dest='what', required=True, metavar='WHAT')
    for name, module in WHAT.items():
        part = parts.add_parser(
            name, help=module.__doc__.splitlines()[0], description=module.__doc__,
            allow_abbrev=False,
        )
        module.options(part.add_argument)
    return made


def main(argv: Sequence[str]) -> None:
    """Parses the options and runs one benchmark."""
    with exit_on_user_error():
        options = parser().parse_args(argv)
        WHAT[options.what].run(options)


if __name__ == '__main__':
    main(sys.argv[1:])
