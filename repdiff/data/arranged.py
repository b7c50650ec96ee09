"""Records of several prepared data sets as one: what an arrangement chose, read in place."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repdiff.data import records
from repdiff.data.slices import SPLITS
from repdiff.errors import UserError

Place = tuple[int, str, int]  # number of the data set, its split, the record in it


class Arranged:
    """A data set under an arrangement, with what `records.Dataset` offers a run."""

    def __init__(self, datasets: Sequence[records.Dataset], places: Mapping[str, list[Place]],
                 info: Mapping[str, Any]):
        self._datasets, self._places, self.info = datasets, places, dict(info)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have images."""
        return tuple(name for name in SPLITS if self._places.get(name))

    def split(self, name: str) -> 'Gathered':
        """Random access to the decoded records of one split."""
        if name not in self.splits:
            raise UserError(f'the arranged data have no split {name!r}; they have '
                            f'{", ".join(self.splits)}.')
        return Gathered(self._datasets, self._places[name], self.info)

    def load(self, name: str) -> dict[str, np.ndarray]:
        """A whole split, stacked, as `records.Dataset.load` gives it."""
        return self.split(name).load()


class Gathered(records.Records):
    """Records from several places; those of other data sets have no label, markers or mask."""

    def __init__(self, datasets: Sequence[records.Dataset], places: list[Place],
                 info: Mapping[str, Any]):
        self.info, self._places = info, places
        self._splits = {(number, split): datasets[number].split(split)
                        for number, split in dict.fromkeys(place[:2] for place in places)}

    def __len__(self) -> int:
        return len(self._places)

    def stored(self, index: int) -> dict[str, Any]:
        """The record with its image and mask still PNG bytes."""
        number, split, at = self._places[index]
        record = self._splits[number, split].stored(at)
        if number:
            none = np.zeros(len(self.info['markers']), np.int8)
            record |= {'label': np.int32(-1), 'markers': none, 'mask': None}
        return record
