"""DICOM CT: files grouped by series, ordered from foot to head, turned to radiological display."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repdiff.data import dicom_pixels, dicom_tags
from repdiff.data.refusal import Refused, library_may_fail
from repdiff.data.slices import Skipped, Slice
from repdiff.errors import UserError

Note = Callable[[str, str], None]  # (source, remark): what a reader kept but the report should say

REPEATED = 'repeats the image of another file, by its SOPInstanceUID.'
_MAX_FILE = 4 << 30  # bytes; a file is held in memory while its frames are read
_TILT = 0.5  # degrees; below is rounding
_TAGS = (
    'SOPInstanceUID', 'SeriesInstanceUID', 'ImageOrientationPatient', 'ImagePositionPatient',
    'InstanceNumber', 'GantryDetectorTilt', 'SharedFunctionalGroupsSequence',
    'PerFrameFunctionalGroupsSequence', 'BurnedInAnnotation',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Header:
    """What is to be known of a file before its pixels are read.

    Attributes:
      path: where it lies.
      series: its SeriesInstanceUID, or its directory where it has none.
      name: its SOPInstanceUID, or its path below the root where it has none.
      position: first image position, (3,) mm, or None.
      normal: of the first slice, to the head, (3,), or None.
      along: where the position falls on the normal, mm; the file number without one.
      tilt: of the gantry, degrees.
      told: the header says whether there is burned-in text.
    """

    path: Path
    series: str
    name: str
    position: np.ndarray | None
    normal: np.ndarray | None
    along: float
    tilt: float
    told: bool


@dataclasses.dataclass(frozen=True)
class Series:
    """The files of one series, from foot to head: the unit of parallel work, cheap to pickle."""

    files: tuple[Header, ...]


def is_dicom(path: str | os.PathLike) -> bool:
    """Whether a file starts as DICOM does: with its preamble, or at once with group 2 or 8."""
    if not os.path.isfile(path):  # opening a named pipe would wait for ever
        return False
    with open(path, 'rb') as file:
        head = file.read(132)
    return head[128:] == b'DICM' or head[:2] in (b'\x02\x00', b'\x08\x00')


def read(
    paths: Iterable[str | os.PathLike], *, root: str | os.PathLike, note: Note
) -> Iterator[Slice | Skipped]:
    """Reads the axial CT slices of files that may mix series, patients and other things.

    Names are raw (SOPInstanceUID, PatientID, InstitutionName): `deidentify.anonymise` what is kept.
    Row 0 is anterior and column 0 the patient's right, as radiologists look at it.

    Args:
      paths: files.
      root: directory that a file without SOPInstanceUID is named relative to.
      note: takes (file, remark) on gantry tilt, burned-in text, missing names, mended values.

    Yields:
      Slices in HU, (H, W) float32, series by series from foot to head; every other file, or frame,
      as Skipped with the reason.

    Raises:
      UserError: pydicom is not installed.
    """
    for item in group(headers(paths, root=root), note=note):
        if isinstance(item, Skipped):
            yield item
        else:
            yield from read_series(item, note=note)


def headers(
    paths: Iterable[str | os.PathLike], *, root: str | os.PathLike
) -> Iterator[Header | Skipped]:
    """Reads headers only, of one file after the other; arguments as of `read`."""
    for path in map(Path, paths):
        try:
            yield _header(path, Path(root))
        except Refused as refusal:
            yield Skipped(str(path), f'{refusal}.')


def group(found: Iterable[Header | Skipped], *, note: Note) -> Iterator[Series | Skipped]:
    """Groups headers by series; a file that repeats the image of an earlier one is left out.

    One remark names the first file whose header does not say whether text is burned in, for all.
    """
    groups: dict[str, list[Header]] = {}
    seen: set[str] = set()
    untold: list[Path] = []
    for header in found:
        if isinstance(header, Skipped):
            yield header
        elif header.name in seen:
            yield Skipped(str(header.path), REPEATED)
        else:
            seen.add(header.name)
            groups.setdefault(header.series, []).append(header)
            if not header.told:
                untold.append(header.path)
    if untold:
        note(str(untold[0]), f'does not say whether text is burned in ({len(untold):,} DICOM files '
             'in all): look at the contact sheet for burned-in text, for the check of pixels '
             'does not see text over the head')
    for files in groups.values():
        files.sort(key=lambda header: (header.along, header.name))
        _note_tilt(files, note)
        yield Series(tuple(files))


def read_series(series: Series, *, note: Note) -> Iterator[Slice | Skipped]:
    """Reads the slices of one series, one file in memory at a time; arguments as of `read`."""
    for header in series.files:
        try:
            yield from _slices(header, note)
        except Refused as refusal:
            yield Skipped(str(header.path), f'{refusal}.')


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise UserError(
            "reading DICOM needs pydicom and its decoders; run pip install 'repdiff[ct]'."
        ) from None
    return pydicom


def _open(path: Path, **options: Any) -> Any:
    """Reads a dataset, with or without preamble, once its size is known to be safe."""
    pydicom = _pydicom()
    if not path.is_file():
        raise Refused('is not a file')
    size = path.stat().st_size
    if size > _MAX_FILE:
        raise Refused(f'has {size} bytes; at most {_MAX_FILE} are read')
    with library_may_fail('is damaged'):
        if not is_dicom(path):
            raise Refused('is not DICOM')
        meta = pydicom.filereader.read_file_meta_info if _has_preamble(path) else None
        if meta:
            dicom_pixels.check_deflated(size, meta(path).get('TransferSyntaxUID', ''))
        dataset = pydicom.dcmread(path, force=not meta, **options)
        if 'TransferSyntaxUID' not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        return dataset


def _has_preamble(path: Path) -> bool:
    with open(path, 'rb') as file:
        return file.read(132)[128:] == b'DICM'


def _header(path: Path, root: Path) -> Header:
    dataset = _open(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    with library_may_fail('has a damaged header'):
        name = str(dataset.get('SOPInstanceUID') or os.path.relpath(path, root))
        series = str(dataset.get('SeriesInstanceUID') or path.parent)
        orientation = dicom_tags.orientation(dataset, 0)
        position = dicom_tags.position(dataset, 0)
        normal = None if orientation is None else dicom_tags.normal(orientation)
        along = float(dataset.get('InstanceNumber') or 0)
        if normal is not None and position is not None:
            along = float(position @ normal)
        tilt = float(dataset.get('GantryDetectorTilt') or 0)
        told = bool(dataset.get('BurnedInAnnotation'))
    return Header(path, series, name, position, normal, along, tilt, told)


def _note_tilt(files: Sequence[Header], note: Note) -> None:
    """Notes tilt once a series: as the scanner wrote it, or as slices that shift sideways."""
    tilt = max((abs(header.tilt) for header in files), default=0)
    first, last = files[0], files[-1]
    if first.position is not None and last.position is not None and first.normal is not None:
        step = last.position - first.position
        length = np.linalg.norm(step)
        if length > 0:
            cosine = np.clip(step @ first.normal / length, -1, 1)
            tilt = max(tilt, float(np.degrees(np.arccos(abs(cosine)))))
    if tilt > _TILT:
        note(str(first.path), f'gantry tilt of {tilt:.1f} degrees; slices are kept as acquired')


def _slices(header: Header, note: Note) -> Iterator[Slice | Skipped]:
    source = str(header.path)
    dataset = _open(header.path)
    with library_may_fail('has a damaged header'):
        dicom_tags.check_kind(dataset)
        form = dicom_pixels.encoding(dataset)
        planes = [dicom_tags.plane(dataset, frame) for frame in range(form.frames)]
        patient = _patient(dataset, header.path, note)
        facility = str(dataset.get('InstitutionName') or '').strip()
    if any(plane.position is None for plane in planes):
        note(source, 'no ImagePositionPatient; slices are in the order of their numbers')
    else:
        planes.sort(key=lambda plane: plane.position @ dicom_tags.normal(plane.orientation))
    axial = [plane for plane in planes if plane.axial]
    if not axial:
        raise Refused('is not axial')
    if len(axial) < len(planes):
        yield Skipped(source, f'{len(planes) - len(axial)} of {len(planes)} frames are not axial.')
    decoded = dicom_pixels.frames(dataset, form, [plane.frame for plane in axial])
    for plane in axial:
        with library_may_fail(f'cannot be decoded from frame {plane.frame + 1} on'):
            stored = next(decoded)
        hu, remark = dicom_pixels.hounsfield(stored, form, plane.slope, plane.intercept)
        if remark:
            note(source, remark)
        yield Slice(
            id=header.name if form.frames == 1 else f'{header.name}#{plane.frame + 1}',
            patient=patient,
            facility=facility,
            pixels=dicom_tags.to_display(hu, plane.orientation),
            unit='hu',
            label=None,
            window=plane.window,
            source=source,
        )


def _patient(dataset: Any, path: Path, note: Note) -> str:
    if str(dataset.get('BurnedInAnnotation') or '').upper() == 'YES':
        note(str(path), 'burned-in annotation: look at the picture for a name before sharing it')
    patient = str(dataset.get('PatientID') or '').strip()
    if patient:
        return patient
    note(str(path), 'no PatientID; its study stands for the patient')
    return str(dataset.get('StudyInstanceUID') or dataset.get('SeriesInstanceUID') or path.parent)
