"""What the tags of a DICOM CT image say: its kind, and where each frame lies."""

import dataclasses
from typing import Any

import numpy as np

from repdiff.data.refusal import Refused

_AXIAL = 0.8  # cosine of 37 degrees: gantries tilt up to 30
_CT_CLASSES = (
    '1.2.840.10008.5.1.4.1.1.2',  # CT Image Storage
    '1.2.840.10008.5.1.4.1.1.2.1',  # Enhanced CT
    '1.2.840.10008.5.1.4.1.1.2.2',  # Legacy Converted Enhanced CT
)
_OTHERS = ('MR', 'PT', 'NM', 'US', 'XA', 'CR', 'DX', 'OT', 'SC', 'SR', 'PR', 'KO', 'SEG', 'REG',
           'RTSTRUCT', 'RTDOSE', 'RTPLAN', 'RTIMAGE', 'DOC')  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plane:
    """Where one frame lies and what its values mean: orientation (6,), position (3,) in mm."""

    frame: int
    orientation: np.ndarray
    position: np.ndarray | None
    slope: float
    intercept: float
    window: tuple[float, float] | None

    @property
    def axial(self) -> bool:
        return bool(normal(self.orientation)[2] >= _AXIAL)


def check_kind(dataset: Any) -> None:
    """Raises Refused for what is not a slice of CT.

    No reason quotes a text of the file but from a list: where a length is damaged, one tag's text
    runs on into the patient's name.
    """
    modality = str(dataset.get('Modality') or '')
    if not modality:
        raise Refused('has no Modality')
    if modality != 'CT':
        raise Refused(f'is of modality {modality if modality in _OTHERS else "unknown"}, not CT')
    if 'LOCALIZER' in (dataset.get('ImageType') or ()):
        raise Refused('is a localizer, not a slice')
    kind = dataset.get('SOPClassUID')
    if kind is not None and kind not in _CT_CLASSES:
        # Screens and dose reports come as secondary captures, with names written in the pixels.
        name = getattr(kind, 'name', kind)
        raise Refused(f'is a {name if name != kind else "thing unknown"}, not a CT image')


def _find(dataset: Any, frame: int, sequence: str, name: str) -> Any:
    """A tag of one frame: from its functional group, the shared one, or the dataset itself."""
    per_frame = dataset.get('PerFrameFunctionalGroupsSequence') or []
    shared = dataset.get('SharedFunctionalGroupsSequence') or []
    for group in (*per_frame[frame : frame + 1], *shared[:1]):
        macro = group.get(sequence)
        if macro and macro[0].get(name) is not None:
            return macro[0].get(name)
    return dataset.get(name)


def _numbers(dataset: Any, frame: int, sequence: str, name: str, count: int) -> np.ndarray | None:
    value = _find(dataset, frame, sequence, name)
    if value is None or value == '':
        return None
    array = np.array(value, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise Refused(f'has a malformed {name}')
    return array


def orientation(dataset: Any, frame: int) -> np.ndarray | None:
    """The directions in which columns, then rows, of a frame count up, (6,), or None."""
    return _numbers(dataset, frame, 'PlaneOrientationSequence', 'ImageOrientationPatient', 6)


def position(dataset: Any, frame: int) -> np.ndarray | None:
    """Where the first pixel of a frame lies, (3,) in mm, or None."""
    return _numbers(dataset, frame, 'PlanePositionSequence', 'ImagePositionPatient', 3)


def normal(directions: np.ndarray) -> np.ndarray:
    """The slice normal, pointing to the head; (3,), of length 1 for a valid orientation."""
    across = np.cross(directions[:3], directions[3:])
    return -across if across[2] < 0 else across


def plane(dataset: Any, frame: int) -> Plane:
    """Reads where one frame lies and what its values mean.

    Raises:
      Refused: no orientation, no rescaling to HU, or values that cannot be.
    """
    directions = orientation(dataset, frame)
    if directions is None:
        raise Refused('has no ImageOrientationPatient')
    row, column = directions[:3], directions[3:]
    if abs(row @ row - 1) > 0.02 or abs(column @ column - 1) > 0.02 or abs(row @ column) > 0.02:
        raise Refused('has an ImageOrientationPatient that is no pair of orthogonal unit vectors')
    spacing = _numbers(dataset, frame, 'PixelMeasuresSequence', 'PixelSpacing', 2)
    if spacing is not None and not 0.95 < spacing[0] / spacing[1] < 1.05:
        raise Refused('has pixels that are not square')
    line = 'PixelValueTransformationSequence'
    slope = _find(dataset, frame, line, 'RescaleSlope')
    intercept = _find(dataset, frame, line, 'RescaleIntercept')
    if slope is None or intercept is None:
        raise Refused('has no RescaleSlope and RescaleIntercept, so its values are no HU')
    slope, intercept = float(slope), float(intercept)
    if not (np.isfinite(slope) and np.isfinite(intercept) and slope):
        raise Refused(f'has RescaleSlope {slope} and RescaleIntercept {intercept}')
    unit = str(_find(dataset, frame, line, 'RescaleType') or 'HU')
    if unit not in ('HU', 'US'):  # "unspecified" is written for HU by old scanners
        raise Refused('has a RescaleType other than HU')
    return Plane(
        frame=frame,
        orientation=directions,
        position=position(dataset, frame),
        slope=slope,
        intercept=intercept,
        window=_window(dataset, frame),
    )


def _window(dataset: Any, frame: int) -> tuple[float, float] | None:
    """The first window that the file proposes, if it is one."""
    values = [_find(dataset, frame, 'FrameVOILUTSequence', f'Window{name}')
              for name in ('Center', 'Width')]  # fmt: skip
    if None in values:
        return None
    centre, width = (float(np.ravel(value)[0]) for value in values)
    return (centre, width) if np.isfinite(centre) and 0 < width < np.inf else None


def to_display(pixels: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Turns and mirrors a slice to the nearest of the eight ways that shows it as radiologists do.

    Args:
      pixels: (H, W).
      directions: (6,), in which columns, then rows, count up, in DICOM's patient axes (x to the
        patient's left, y to the back).

    Returns:
      (H, W) or (W, H), whose columns count up to the left side of the patient, rows to the back.
    """
    along, down = directions[:3], directions[3:]
    if abs(along[0]) < abs(along[1]):
        pixels, along, down = pixels.T, down, along
    if along[0] < 0:
        pixels = pixels[:, ::-1]
    if down[1] < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
