"""Draws the page of a finished or running workdir anew: python -m repdiff.report --workdir=DIR."""

from absl import app, flags

from repdiff.errors import exit_on_user_error
from repdiff.report import write

WORKDIR = flags.DEFINE_string('workdir', None, 'Directory of a run of the main job.', required=True)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unknown argument {argv[1]!r}')
    with exit_on_user_error():
        print(write(WORKDIR.value))


if __name__ == '__main__':
    app.run(main)
