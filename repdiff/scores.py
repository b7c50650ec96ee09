"""scores/ROW.*: what a row scored, what was chosen on validation, and its facts; and back."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from repdiff.files import read_json, read_npz, write_json, write_npz
from repdiff.zeroshot.decision import Decision


def is_done(workdir: Path, row: str) -> bool:
    """Whether the row is scored."""
    return _facts(workdir, row).exists()


def parts(workdir: Path, row: str) -> Path:
    """Where unfinished scores of a row are kept until it is done."""
    return workdir / 'scores' / f'{row}.part'


def write(
    workdir: Path, row: str, dataset, arrays: dict[str, np.ndarray], decision: Decision,
    facts: dict[str, Any],
) -> None:
    """Writes ROW.npz, labels, ids and patients of valid and test added, ROW.rule.json, and last
    ROW.json.
    """
    for split in ('valid', 'test'):
        loaded = dataset.load(split)
        arrays = arrays | {f'{split}_{name}s': loaded[name] for name in ('label', 'id', 'patient')}
    write_npz(workdir / 'scores' / f'{row}.npz', **arrays)
    write_json(workdir / 'scores' / f'{row}.rule.json', decision.to_json())
    write_json(_facts(workdir, row), facts)
    shutil.rmtree(parts(workdir, row), ignore_errors=True)


def read(workdir: Path, row: str) -> tuple[dict[str, np.ndarray], Decision, dict[str, Any]]:
    """The arrays, the decision and the facts that `write` left."""
    arrays = read_npz(workdir / 'scores' / f'{row}.npz', _anew(row))
    return arrays, read_decision(workdir, row), read_facts(workdir, row)


def read_decision(workdir: Path, row: str) -> Decision:
    """What was chosen on validation for a row."""
    path = workdir / 'scores' / f'{row}.rule.json'
    return Decision.from_json(read_json(path, _anew(row)))


def read_facts(workdir: Path, row: str) -> dict[str, Any]:
    """The facts of a row."""
    return read_json(_facts(workdir, row), _anew(row))


def _facts(workdir: Path, row: str) -> Path:
    return workdir / 'scores' / f'{row}.json'


def _anew(row: str) -> str:
    return f'remove {row}.json there and run the main job again, which scores the row anew'
