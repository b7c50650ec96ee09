"""card.json: what a run was made of, and what it chose and cost."""

import datetime
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import jax
from ml_collections import ConfigDict

from repdiff import cluster
from repdiff.errors import UserError
from repdiff.eval.answers import Answers
from repdiff.files import read_json, write_json

_MEND = 'remove it and run again: it is written anew'


class Card:
    """card.json: code version, data fingerprint, seeds, devices, seconds a phase, chosen rules."""

    def __init__(self, workdir: Path, config: ConfigDict, fingerprint: str):
        self._path = workdir / 'card.json'
        if self._path.exists():
            self._card = read_json(self._path, _MEND)
            return
        self._card = {
            'started': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
            'code': code_version(),
            'data_fingerprint': fingerprint,
            'seed': config.seed,
            'python': platform.python_version(),
            'command': ' '.join(['python -m repdiff.main', *sys.argv[1:]]),
            'packages': {
                name: importlib.metadata.version(name) for name in ('jax', 'flax', 'optax')
            },
            'devices': [device.device_kind for device in jax.devices()],
            'phases': {},
            'rules': {},
        }
        self._write()

    def _write(self) -> None:
        if cluster.is_first():
            write_json(self._path, self._card)

    def phase(self, name: str, seconds: float, devices: int) -> None:
        self._card['phases'][name] = {
            'wall_seconds': round(seconds, 2), 'device_seconds': round(seconds * devices, 2)
        }
        self._write()

    def rules(self, rows: list[Answers]) -> None:
        self._card['rules'] = {row.name: row.facts['rule'] for row in rows}
        self._write()


def check_data(workdir: Path, fingerprint: str) -> None:
    """Raises UserError where the run in `workdir` was not of the data with this fingerprint."""
    path = workdir / 'card.json'
    if not path.exists():
        raise UserError(f'{path} is missing; let python -m repdiff.main finish the run first.')
    before = read_json(path, _MEND).get('data_fingerprint', '')
    if before != fingerprint:
        raise UserError(
            f'{path}: the run was of other data (fingerprint {before[:8]}) than its config gives '
            f'here and now ({fingerprint[:8]}); bring back the source and the config.cache that it '
            'had, or run the main job on these data in a new workdir.'
        )


def code_version() -> str:
    """The package's version, with the git commit where the code runs from a checkout."""
    version = importlib.metadata.version('repdiff')
    if shutil.which('git') is None:  # as in launch/Dockerfile
        return version
    found = subprocess.run(
        ['git', 'describe', '--always', '--dirty'], cwd=Path(__file__).parent,
        capture_output=True, text=True, check=False,
    )
    return f'{version}+{found.stdout.strip()}' if found.returncode == 0 else version
