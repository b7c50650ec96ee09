"""What a workdir says, read back from its files; each file may be missing."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from repdiff.errors import UserError
from repdiff.eval.answers import Answers, read_predictions

MEND = 'run the main job again to write it anew, or delete it to leave its section out.'


@dataclass(frozen=True)
class Run:
    """One workdir. A file that is missing is {} (or [] for the log)."""
    path: Path
    config: dict[str, Any]
    card: dict[str, Any]
    results: dict[str, Any]
    log: list[dict[str, Any]]
    predictions: dict[str, Answers]
    samples: dict[str, np.ndarray]
    z0_over_t: dict[str, np.ndarray]
    early_stop: dict[str, Any]
    evidence: dict[str, np.ndarray]
    generated: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The entries of results.json, models first, then floors."""
        return sorted(self.results.get('models', []), key=is_floor)

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in self.results.get('dataset', {}).get('classes', [])]

    def title(self, name: str) -> str:
        """The row's human words; its name where it has none."""
        titles = {row['name']: row.get('title', name) for row in self.rows}
        return titles.get(name, name)


def is_floor(row: dict[str, Any]) -> bool:
    return bool(row.get('floor', False))


def position(order: list[str], name: str) -> int:
    """Where `name` stands in `order`; after all of them if it does not."""
    return order.index(name) if name in order else len(order)


def load(path: str | os.PathLike) -> Run:
    """Reads a workdir.

    Raises UserError if `path` is no directory, holds none of the files, or one that is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f'{path}: no such workdir; give the --workdir of a run of the main job.')
    csv = path / 'predictions.csv'
    run = Run(
        path=path,
        config=_json(path / 'config.json'),
        card=_json(path / 'card.json'),
        results=_json(path / 'results.json'),
        log=_log(path / 'metrics.jsonl'),
        predictions=read_predictions(csv) if csv.exists() else {},
        samples=_arrays(path / 'report' / 'samples.npz'),
        z0_over_t=_arrays(path / 'report' / 'z0_over_t.npz'),
        early_stop=_json(path / 'report' / 'early_stop.json'),
        evidence=_arrays(path / 'report' / 'evidence.npz'),
        generated=_json(path / 'generate' / 'table.json'),
    )
    if not (run.config or run.results or run.log):
        raise UserError(f'{path}: not a workdir, it has no config.json, results.json or '
                        'metrics.jsonl; give the --workdir of a run of the main job.')
    return run


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f'{path}: not valid JSON ({error}); {MEND}') from error
    if not isinstance(value, dict):
        raise UserError(f'{path}: must hold one JSON object; {MEND}')
    return value


def _log(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line torn by a kill is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    parsed = []
    for number, line in enumerate(lines, 1):
        try:
            parsed.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f'{path}: line {number} is not valid JSON ({error}); '
                                f'{MEND}') from error
    return parsed


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (ValueError, OSError, BadZipFile) as error:
        raise UserError(f'{path}: not a whole npz file ({error}); {MEND}') from error
