"""What a data set is made of: every choice in one frozen object, explicit, without defaults."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from repdiff.data import phantom, splits, windows
from repdiff.errors import UserError

SIMULATED = 'simulated'
TFDS = 'tfds:'
# Of what the same settings make of the same source. Raise it with every change to the readers, the
# head mask, windows, resizing or text of remarks that alters any record: cached data sets are then
# made anew, and a re-run reads all files again instead of mixing slices of old code with new ones.
FORMAT = 2  # 2: the head mask also removes hard parts beside a closed skull
RENDERED = ('window', 'head_mask', 'crop')  # settings of how an image is made of a slice
LABEL_COLUMNS = ('label', 'class', 'hematoma', 'hemorrhage')  # what label 'auto' looks for


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Everything that decides what a prepared data set holds.

    Attributes:
      name: of the data set, in reports.
      source: 'simulated'; a file or a directory of DICOM, NIfTI, NumPy or picture files; a
        prepared data set's directory; or 'tfds:NAME', a TFDS data set that is on disk.
      files: only these of the source; () is all that the directory holds.
      labels: CSV of labels; '' is `labels.csv` in the source directory, where there is one.
      label_format: 'csv', 'rsna', 'ct_ich' or 'cq500' (`labels.read`).
      label: label column, or a rule such as `hematoma = blend_sign | fluid_level`; 'auto' is the
        first of LABEL_COLUMNS that the CSV has, or the format's own.
      classes: class names in the order of their ids, or ('auto',) for the sorted values of the
        column; () is a binary label of 0 and 1.
      markers: columns kept as multi-label.
      key_column, patient_column, facility_column, window_column: columns of a plain CSV; '' is
        none, and 'auto' takes `file` or `id`, `patient` (which pictures need; with '' each is a
        patient of its own), `facility` and `window`, where there are such.
      split_column: the column that names the splits; '' splits by patient.
      image_size: pixels a side.
      channels: 1 to 3; one a window of HU, or 1 grey and 3 colour.
      window: of HU, as `windows.parse_facilities` reads it; a row's own stands before it, and
        simulated CT knows its facilities'.
      head_mask: removes what lies outside the head.
      crop: centres the head and crops to it; needs head_mask.
      pretrain_facilities, downstream_facilities: pre-train on some, split the others; () and ()
        split everything by fractions.
      deidentify: names of patients, facilities and files become salted hashes.
      fractions: split -> share of the patients.
      seed: of the hash that orders patients.
      simulated: what to simulate; None for any other source.
    """

    name: str
    source: str
    files: tuple[str, ...]
    labels: str
    label_format: str
    label: str
    classes: tuple[str, ...]
    markers: tuple[str, ...]
    key_column: str
    patient_column: str
    facility_column: str
    split_column: str
    window_column: str
    image_size: int
    channels: int
    window: str
    head_mask: bool
    crop: bool
    pretrain_facilities: tuple[str, ...]
    downstream_facilities: tuple[str, ...]
    deidentify: bool
    fractions: Mapping[str, float]
    seed: int
    simulated: phantom.Settings | None

    def __post_init__(self):
        if not 8 <= self.image_size <= 4096:
            raise UserError(f'image_size is {self.image_size}; choose 8 to 4096 pixels.')
        if self.channels not in (1, 2, 3):
            raise UserError(f'channels is {self.channels}; choose 1, 2 or 3.')
        windows.parse_facilities(self.window)
        if self.crop and not self.head_mask:
            raise UserError('crop needs the head mask; turn head_mask on, or crop off.')
        if self.source == SIMULATED and self.simulated is None:
            raise UserError("source 'simulated' needs the settings of the simulation.")
        if self.pretrain_facilities and not self.downstream_facilities:
            raise UserError('pretrain_facilities need downstream_facilities; name both.')
        if not math.isfinite(sum(self.fractions.values())):
            raise UserError('fractions must be finite numbers.')
        if self.source != SIMULATED and not self.split_column:
            splits.check_fractions(self.labelled_fractions())

    def labelled_fractions(self) -> dict[str, float]:
        """The fractions of the patients left to split: without pre-training by facility."""
        if not self.downstream_facilities:
            return {name: share for name, share in self.fractions.items() if share}
        left = {name: share for name, share in self.fractions.items()
                if share and name != 'pretrain'}
        total = sum(left.values())
        return {name: share / total for name, share in left.items()}

    def labels_path(self) -> Path | None:
        """The label CSV, or None where there is none."""
        if self.labels:
            return Path(self.labels).expanduser()
        beside = Path(self.source).expanduser() / 'labels.csv'
        return beside if beside.is_file() else None
