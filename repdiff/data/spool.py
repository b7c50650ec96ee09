"""Records on their way from the readers to the data set: facts in memory, pictures on disk."""

import dataclasses
import os
from typing import BinaryIO

from repdiff.data.work import Record


class Spool:
    """Records with their pictures in an unnamed temporary file, which no kill leaves behind."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.records: list[Record] = []
        self._places: list[tuple[int, int, int]] = []  # offset, bytes of image and of mask

    def add(self, record: Record) -> None:
        """Takes a record; its `image` and `mask` live in the file from now on."""
        mask = record.mask or b''
        self._places.append((self._file.seek(0, os.SEEK_END), len(record.image), len(mask)))
        self._file.write(record.image)
        self._file.write(mask)
        self.records.append(dataclasses.replace(record, image=b'', mask=None))

    @property
    def has_masks(self) -> bool:
        """Whether the records come with masks."""
        return any(mask for _, _, mask in self._places)

    def stored(self, index: int) -> dict:
        """A record as `records.write` takes it."""
        offset, image, mask = self._places[index]
        self._file.seek(offset)
        record = self.records[index]
        return {'image': self._file.read(image), 'mask': self._file.read(mask) or None,
                **{key: getattr(record, key)
                   for key in ('label', 'id', 'patient', 'facility', 'markers')}}
