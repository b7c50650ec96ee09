"""python -m repdiff.report --workdir=DIR: draws the page of a finished or running workdir anew.

Several directories, DIR,DIR,..., of runs that differ in their seed give a table of mean and
spread, and what they decide together: every row against every other, and the first one's verdicts.
Runs with folds are given by the directory above their fold-I.
"""

from absl import app, flags

from repdiff.errors import exit_on_user_error
from repdiff.report import summary, write

WORKDIR = flags.DEFINE_list('workdir', None, 'Directories of runs of the main job.', required=True)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unknown argument {argv[1]!r}')
    with exit_on_user_error():
        if len(WORKDIR.value) == 1:
            print(write(WORKDIR.value[0]))
        else:
            print(summary.table(WORKDIR.value), summary.verdicts(WORKDIR.value), sep='\n\n')


if __name__ == '__main__':
    app.run(main)
