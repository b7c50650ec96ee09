"""python -m repdiff.main --config=configs/hematoma.py[:PRESET] [--workdir=DIR] [--config.a.b=V]

Short on purpose: flags, processes, devices, one call into `folds`. Exit codes: 0 done, 2 bad
input, 75 stopped by SIGTERM or SIGINT with all work saved, to be run again.
"""

import os
import re
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from repdiff import cluster, interrupt
from repdiff.errors import UserError, exit_on_user_error
from repdiff.host import keep_freed_memory

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file('config', None, 'Experiment and preset: configs/hematoma.py:quick')
flags.DEFINE_string('workdir', '', 'Where results go; "" is workdirs/NAME-PRESET-SEED.')
# SLURM, Cloud TPU, GKE and Open MPI need none of these.
flags.DEFINE_string('coordinator', '', 'Of several processes: HOST:PORT of process 0.')
flags.DEFINE_integer('processes', 1, 'Of several processes: how many there are.')
flags.DEFINE_integer('process', 0, 'Of several processes: which one this is, from 0.')


def parse(argv: list[str]) -> tuple[ConfigDict, Path]:
    """The config and the workdir of a command line. Raises UserError on anything unknown."""
    try:
        rest = FLAGS(argv)
        config = FLAGS.config
        if config is not None:
            config.seed  # an unreadable config file shows itself here
    except flags.Error as error:
        raise UserError(f'{error}'.rstrip('.') + '.') from None
    except (AttributeError, KeyError) as error:
        raise UserError(_unknown_key(argv, str(error))) from None
    except OSError:
        given = (option.partition('=') for option in argv)
        file = [value for name, _, value in given if name.lstrip('-') == 'config'][-1]
        raise UserError(f'--config: there is no file {file!r}; try configs/hematoma.py.') from None
    if len(rest) > 1:
        raise UserError(f'unknown argument {rest[1]!r}; write options as --config.KEY=VALUE.')
    if config is None:
        raise UserError('--config is missing; try --config=configs/hematoma.py.')
    _check_words(config, argv)
    _, _, preset = FLAGS['config'].config_filename.partition(':')
    name = '-'.join(part for part in (config.name, preset, str(config.seed)) if part)
    return config, Path(FLAGS.workdir or Path('workdirs') / name)


def _check_words(config: ConfigDict, argv: list[str], path: str = 'config') -> None:
    """Raises UserError where words without quotes became one, as of --config.rows=rc_ldt,vit."""
    given = {argument.removeprefix(argument.partition('=')[0] + '=') for argument in argv}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            _check_words(value, argv, f'{path}.{key}')
        elif isinstance(value, tuple):
            for text in given.intersection(value):
                if ',' in str(text):
                    words = tuple(word.strip() for word in text.strip('()[]').split(',') if word)
                    raise UserError(f'--{path}.{key}={text} is a single word to the parser; quote '
                                    f'each: --{path}.{key}="{words}".')


def _unknown_key(argv: list[str], message: str) -> str:
    """Names the option whose key the config does not have; `message` quotes the key first."""
    options = [argument.partition('=')[0].lstrip('-') for argument in argv[1:]]
    words = re.findall(r'\w+', message)
    option = next((name for name in options if words and words[0] in name.split('.')), message)
    return f'unknown config key {option!r}; repdiff/config.py lists every key.'


def start(config: ConfigDict) -> None:
    """Starts the devices and the processes of a run, before the first use of JAX."""
    keep_freed_memory()
    # Read when the devices start; the last of equal flags counts, so the user's own wins.
    effort = f'--xla_backend_optimization_level={config.xla_effort}'
    os.environ['XLA_FLAGS'] = f'{effort} {os.environ.get("XLA_FLAGS", "")}'
    jax.config.update('jax_num_cpu_devices', config.mesh.cpu_devices)
    # What was compiled once, in this run or an earlier one, is read back. JAX looks at this once.
    jax.config.update('jax_compilation_cache_dir', str(Path(config.cache).expanduser() / 'xla'))
    cluster.start(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
    interrupt.listen()


def main(argv: list[str]) -> None:
    """Parses, starts the devices and runs the experiment."""
    with cluster.leave_together(), exit_on_user_error():
        config, workdir = parse(argv)
        start(config)
        from repdiff import folds  # after the devices are set
        folds.run(config, workdir)


if __name__ == '__main__':
    main(sys.argv)
