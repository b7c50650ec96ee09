"""python -m repdiff.main --config=configs/hematoma.py[:PRESET] [--workdir=DIR] [--config.a.b=V]

Short on purpose: flags, devices, one call into `experiment`.
"""

import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from repdiff.errors import UserError, exit_on_user_error

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file('config', None, 'Experiment, with preset: configs/hematoma.py:quick')
flags.DEFINE_string('workdir', '', 'Where results go; "" is workdirs/NAME-PRESET-SEED.')


def parse(argv: list[str]) -> tuple[ConfigDict, Path]:
    """The config and the workdir of a command line. Raises UserError on anything unknown."""
    try:
        rest = FLAGS(argv)
        config = FLAGS.config
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(_sentence(argv, error)) from None
    if len(rest) > 1:
        raise UserError(f'unknown argument {rest[1]!r}; options start with --config or --workdir.')
    if not isinstance(config, ConfigDict):
        raise UserError('--config is missing; try --config=configs/hematoma.py.')
    _, _, preset = FLAGS['config'].config_filename.partition(':')
    name = '-'.join(part for part in (config.name, preset, str(config.seed)) if part)
    return config, Path(FLAGS.workdir or Path('workdirs') / name)


def _sentence(argv: list[str], error: Exception) -> str:
    return f'{error}'


def main(argv: list[str]) -> None:
    """Parses, starts the devices and runs the experiment."""
    with exit_on_user_error():
        config, workdir = parse(argv)
        jax.config.update('jax_num_cpu_devices', config.mesh.cpu_devices)
        from repdiff import experiment  # after the devices are set
        experiment.run(config, workdir)


if __name__ == '__main__':
    main(sys.argv)
