"""What passes between the readers and the records: one axial slice, or the reason it was left out.

A reader is any iterator of `Slice | Skipped`; it yields lazily, so memory does not grow with the
number of files.
"""

import dataclasses

import numpy as np

SPLITS = ('pretrain', 'train', 'valid', 'test')


@dataclasses.dataclass(frozen=True)
class Slice:
    """One axial slice between a reader and the records.

    Attributes:
      id: unique and stable within the source; never an identifier of a person.
      patient: grouping key for splits (a person or an opaque hash).
      facility: '' where unknown.
      pixels: (H, W) float32 HU, or (H, W[, 3]) uint8 grey or colour.
      unit: 'hu' or 'grey'.
      label: class id; None is unlabelled.
      markers: multi-label of 0 and 1, in the order of the data set's marker names.
      mask: (H, W) uint8 true lesion mask, simulated CT only.
      split: one of SPLITS where the source says so.
      window: (centre, width) in HU where the source says so.
      source: file it came from, for messages.
    """

    id: str
    patient: str
    facility: str
    pixels: np.ndarray
    unit: str
    label: int | None
    markers: tuple[int, ...] = ()
    mask: np.ndarray | None = None
    split: str | None = None
    window: tuple[float, float] | None = None
    source: str = ''


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file, or a slice of one, that was left out, with the reason in one sentence."""

    source: str
    reason: str
