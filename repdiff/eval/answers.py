"""One row's answers, image by image: what every metric, interval and comparison starts from."""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from repdiff.errors import UserError
from repdiff.files import write_atomic

COLUMNS = ('model', 'id', 'label', 'prediction')


@dataclass(frozen=True)
class Answers:
    """The answers of the row `name` on one split.

    ids, patients (B,) str; labels, predictions (B,) int; scores, calibrated probabilities: (B,) of
    class 1, or (B, K) of each class. `facts` are further keys of the row's results.json entry
    (title, pretrained, floor, seed, rule, argmin, train_seconds, ...).
    """
    name: str
    ids: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    predictions: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        lengths = {len(part) for part in (self.ids, self.patients, self.labels, self.scores,
                                          self.predictions)}
        if len(lengths) != 1:
            raise ValueError(f'{self.name}: arrays of different lengths {sorted(lengths)}')


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
