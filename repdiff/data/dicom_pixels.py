"""Stored values of a DICOM frame to HU, exactly, with sizes checked before anything is decoded."""

import dataclasses
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from repdiff.data.refusal import Refused

MAX_SIDE = 4096  # pixels; CT is 512 to 2048
MIN_SIDE = 16
MAX_DEFLATED = 4 << 20  # bytes; deflate grows at most 1032-fold, so this stays below 4 GiB
AIR = -1000.0  # HU
_DEFLATED = '1.2.840.10008.1.2.1.99'
_OPEN_FIELD = 0.45  # radius over the shorter side: beyond it lies air, whatever is scanned
_MAX_HU = 1e5  # far above metal
_IS_AIR = -300.0  # HU; below this is no tissue, fat included


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How stored values lie in a file.

    Attributes:
      rows, columns, frames: counts.
      stored: bits stored of each value, right-aligned.
      signed: two's complement.
      inverted: MONOCHROME1.
      padding: (lowest, highest) stored value that stands for no measurement, or None.
    """

    rows: int
    columns: int
    frames: int
    stored: int
    signed: bool
    inverted: bool
    padding: tuple[int, int] | None


def encoding(dataset: Any) -> Encoding:
    """Reads and checks the image pixel module (DICOM PS3.3 C.7.6.3).

    Raises:
      Refused: a tag is missing, or claims what no CT slice has.
    """
    needed = ('Rows', 'Columns', 'BitsAllocated', 'BitsStored', 'PixelRepresentation')
    missing = [name for name in needed if dataset.get(name) is None]
    if missing:
        raise Refused(f'has no {", ".join(missing)}')
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if not (MIN_SIDE <= rows <= MAX_SIDE and MIN_SIDE <= columns <= MAX_SIDE):
        raise Refused(f'claims {rows} by {columns}; {MIN_SIDE} to {MAX_SIDE} a side are read')
    frames = int(dataset.get('NumberOfFrames') or 1)
    if frames < 1:
        raise Refused(f'claims {frames} frames')
    kind = str(dataset.get('PhotometricInterpretation', ''))
    if kind not in ('MONOCHROME1', 'MONOCHROME2') or int(dataset.get('SamplesPerPixel', 1)) != 1:
        raise Refused('is no grey image by its PhotometricInterpretation and SamplesPerPixel')
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high = dataset.get('HighBit')
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise Refused(f'claims {stored} bits stored of {allocated} allocated')
    if high is not None and int(high) != stored - 1:
        raise Refused(f'has HighBit {int(high)} where {stored - 1} belongs')
    data = dataset.get('PixelData')
    if not isinstance(data, bytes):
        raise Refused('has no pixel data')
    if frames > len(data) // 8:  # the least that one compressed frame takes
        raise Refused(f'claims {frames} frames in {len(data)} bytes')
    signed = bool(dataset.PixelRepresentation)
    padding = _padding(dataset, stored, signed)
    return Encoding(rows, columns, frames, stored, signed, kind == 'MONOCHROME1', padding)


def _padding(dataset: Any, stored: int, signed: bool) -> tuple[int, int] | None:
    """PixelPaddingValue to PixelPaddingRangeLimit (C.7.5.1.1.2), as values in the stored bits."""
    value = dataset.get('PixelPaddingValue')
    if value is None:
        return None
    limit = dataset.get('PixelPaddingRangeLimit')
    limit = value if limit is None else limit
    ends = [_in_bits(int(end), stored, signed) for end in (value, limit)]
    return min(ends), max(ends)


def _in_bits(value: int, stored: int, signed: bool) -> int:
    value &= (1 << stored) - 1
    return value - (1 << stored) if signed and value >> (stored - 1) else value


def frames(dataset: Any, form: Encoding, order: Sequence[int]) -> Iterator[np.ndarray]:
    """Decodes the frames in `order`, one at a time.

    Yields:
      (rows, columns) integer stored values, unused high bits cleared.

    Raises:
      Refused: a compressed frame's own header contradicts the file's.
    """
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder, iter_pixels

    syntax = dataset.file_meta.TransferSyntaxUID
    plugin = ''
    if syntax.is_encapsulated:
        if not get_decoder(syntax).is_available:
            raise Refused(f'is compressed as {syntax.name}; install its decoder with repdiff[ct]')
        coded = list(generate_frames(dataset.PixelData, number_of_frames=form.frames))
        if len(coded) != form.frames:
            raise Refused(f'holds {len(coded)} frames where its header says {form.frames}')
        for frame in coded:
            _check_codestream(frame, form)
        plugin = 'pydicom' if syntax.name.startswith('RLE') else 'pylibjpeg'
    for values in iter_pixels(dataset, indices=order, raw=True, decoding_plugin=plugin):
        if values.shape != (form.rows, form.columns):
            raise Refused(f'decodes to shape {values.shape}, not {(form.rows, form.columns)}')
        values = values.astype(values.dtype.newbyteorder('='), copy=False)
        spare = values.dtype.itemsize * 8 - form.stored
        kind = np.dtype(f'{"i" if form.signed else "u"}{values.dtype.itemsize}')
        # Up and down again: drops overlays in the unused bits and extends the sign.
        yield (values.view(kind) << spare) >> spare


def _check_codestream(frame: bytes, form: Encoding) -> None:
    """Refuses a JPEG family frame that would decode to another size than the DICOM tags say.

    The decoders believe the codestream's own header, and would allocate whatever it claims.
    """
    if frame[:4] == b'\xff\x4f\xff\x51':  # JPEG 2000: SOC, SIZ
        _, _, right, bottom, left, top = struct.unpack_from('>HHIIII', frame, 4)
        size = (bottom - top, right - left)
    elif frame[:2] == b'\xff\xd8':
        size = _jpeg_size(frame)
    else:
        return  # RLE, whose output pydicom bounds by Rows and Columns
    if size != (form.rows, form.columns):
        raise Refused(
            f'has a compressed frame of {size[0]} by {size[1]} pixels where its header says '
            f'{form.rows} by {form.columns}'
        )


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """Height and width in the first frame header of a JPEG or JPEG-LS stream (ITU-T T.81, T.87)."""
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], struct.unpack_from('>H', frame, at + 2)[0]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack_from('>HH', frame, at + 5)
        at += 1 if marker == 0xFF else 2 + length
    raise Refused('has a JPEG frame without a frame header')


def hounsfield(
    stored: np.ndarray, form: Encoding, slope: float, intercept: float
) -> tuple[np.ndarray, str]:
    """`slope * stored + intercept`, padding as air, and two known faults of exporters mended.

    MONOCHROME1 says only that low values are shown white, which HU do not heed; but some exporters
    write it because they inverted the values. Others (RSNA 2019 has such slices) store signed
    12-bit values as unsigned with an intercept near 0, so that air wraps to 3096 and above. Air at
    the rim of the picture tells: a fault is mended only where the rim is not air as stored, and is
    when mended.

    Returns:
      (H, W) float32 HU, exact for integer slope and intercept, and a remark, '' where none is due.

    Raises:
      Refused: MONOCHROME1 whose rim is air in neither polarity, or values that are no HU.
    """
    wide = stored.astype(np.int64)
    padded = np.zeros(stored.shape, bool)
    if form.padding:
        padded = (wide >= form.padding[0]) & (wide <= form.padding[1])
    hu, remark = wide * slope + intercept, ''
    wrapped = form.stored == 12 and not form.signed and slope == 1 and intercept > -100
    if (form.inverted or wrapped) and not _rim_is_air(hu, padded):
        ends = -1 if form.signed else (1 << form.stored) - 1
        mended = ends - wide if form.inverted else np.where(wide >= 3096, wide - 4096, wide)
        if _rim_is_air(mended * slope + intercept, padded):
            hu = mended * slope + intercept
            remark = 'values stored ' + ('inverted' if form.inverted else 'wrapped') + '; mended'
        elif form.inverted:
            raise Refused('is MONOCHROME1 with no air at its rim in either polarity')
    hu[padded] = AIR
    if not np.abs(hu).max() < _MAX_HU:
        raise Refused(f'has values from {hu.min():g} to {hu.max():g}, which are no HU')
    return hu.astype(np.float32), remark


def _rim_is_air(hu: np.ndarray, padded: np.ndarray) -> bool:
    height, width = hu.shape
    y, x = np.ogrid[:height, :width]
    radius = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
    rim = hu[(radius > _OPEN_FIELD * min(height, width)) & ~padded]
    return rim.size > 0 and float(np.median(rim)) < _IS_AIR


def check_deflated(size: int, syntax: str) -> None:
    """Refuses a deflated file so large that it could hide gigabytes."""
    if syntax == _DEFLATED and size > MAX_DEFLATED:
        raise Refused(f'is deflated and has {size} bytes; at most {MAX_DEFLATED} are inflated')
