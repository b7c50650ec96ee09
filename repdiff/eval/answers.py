"""One row's answers, image by image: what every metric, interval and comparison starts from."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from repdiff.errors import UserError
from repdiff.files import write_atomic, write_npz

PARTS = ('ids', 'patients', 'labels', 'scores', 'predictions')
ANSWERS = 'scores/answers.npz'  # in a workdir
COLUMNS = ('model', 'id', 'label', 'prediction')


@dataclass(frozen=True)
class Answers:
    """The answers of the row `name` on one split.

    ids, patients (B,) str; labels, predictions (B,) int; scores, calibrated probabilities: (B,) of
    class 1, or (B, K) of each class. `facts` are further keys of the row's results.json entry
    (title, pretrained, floor, seed, rule, argmin, train_seconds, ...). `by_patient` are the same
    answers a patient (`eval.patients`), where there are such.
    """
    name: str
    ids: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    predictions: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    by_patient: 'Answers | None' = None

    def __post_init__(self):
        lengths = {len(getattr(self, part)) for part in PARTS}
        if len(lengths) != 1:
            raise ValueError(f'{self.name}: arrays of different lengths {sorted(lengths)}')

    def replace(self, **changes: Any) -> 'Answers':
        """A copy with other values of some fields."""
        return replace(self, **changes)


def pooled(runs: Sequence[Answers], facts: dict[str, Any]) -> Answers:
    """The answers of one row on several sets of images, one after the other."""
    people = [run.by_patient for run in runs]
    return Answers(
        runs[0].name, *(np.concatenate([getattr(run, part) for run in runs]) for part in PARTS),
        facts, pooled(people, {}) if None not in people else None)


def write_answers(path: str | os.PathLike, rows: Sequence[Answers]) -> None:
    """Every row's answers, with patients and without rounding, as an npz file."""
    arrays = {'names': np.array([row.name for row in rows])}
    for row in rows:
        for level, found in (('slice', row), ('patient', row.by_patient)):
            if found is not None:
                arrays |= {f'{row.name}.{level}.{part}': getattr(found, part) for part in PARTS}
    write_npz(path, **arrays)


def read_answers(path: str | os.PathLike) -> list[Answers]:
    """What `write_answers` wrote, without facts; UserError where it is missing or damaged."""

    def row(name: str, level: str, **more: Any) -> Answers:
        return Answers(name, *(arrays[f'{name}.{level}.{part}'] for part in PARTS), **more)

    try:
        with np.load(path) as arrays:
            return [row(name, 'slice', by_patient=(
                row(name, 'patient') if f'{name}.patient.ids' in arrays else None))
                for name in map(str, arrays['names'])]
    except (OSError, ValueError, KeyError, BadZipFile):
        raise UserError(f'{path}: is missing or damaged; run the main job again to write it '
                        'anew.') from None


def write_predictions(path: str | os.PathLike, rows: Sequence[Answers]) -> None:
    """predictions.csv: model,id,label,prediction,score, or one column score_K a class."""
    binary = rows[0].scores.ndim == 1
    names = ['score'] if binary else [f'score_{k}' for k in range(rows[0].scores.shape[1])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([*COLUMNS, *names])
    for row in rows:
        scores = row.scores.reshape(len(row.ids), -1)
        for i, name in enumerate(row.ids):
            writer.writerow([row.name, name, int(row.labels[i]), int(row.predictions[i]),
                             *(f'{score:.9g}' for score in scores[i])])
    write_atomic(path, text.getvalue())


def read_predictions(path: str | os.PathLike) -> dict[str, Answers]:
    """The rows of a predictions.csv by name, in file order; the file holds no patients ('').

    Raises UserError naming the file where it is not such a table.
    """
    with Path(path).open(newline='') as file:
        reader = csv.DictReader(file)
        names = [name for name in reader.fieldnames or () if name.startswith('score')]
        if not names or not set(COLUMNS) <= set(reader.fieldnames):
            raise UserError(f'{path}: needs the columns {",".join(COLUMNS)},score; '
                            'run the main job again to write it anew.')
        grouped: dict[str, list[dict]] = {}
        for line in reader:
            grouped.setdefault(line['model'], []).append(line)
    try:
        return {name: _parse(name, lines, names) for name, lines in grouped.items()}
    except (TypeError, ValueError) as error:
        raise UserError(f'{path}: holds a value that is not a number ({error}); '
                        'run the main job again to write it anew.') from error


def _parse(name: str, lines: list[dict], score_names: list[str]) -> Answers:
    scores = np.array([[float(line[key]) for key in score_names] for line in lines])
    return Answers(
        name=name,
        ids=np.array([line['id'] for line in lines]),
        patients=np.full(len(lines), ''),
        labels=np.array([int(line['label']) for line in lines]),
        scores=scores[:, 0] if len(score_names) == 1 else scores,
        predictions=np.array([int(line['prediction']) for line in lines]),
    )
