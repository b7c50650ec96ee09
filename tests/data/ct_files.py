"""CT files that the reader tests and the fuzzer write for themselves."""

import io
import struct
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

# A 16 by 16 picture of 12 bits, (7 x + 40 y) mod 4096 with 0 first and 4095 at [5, 5], as encoded
# by CharLS: pydicom's extra encodes no JPEG-LS.
JPEG_LS = bytes.fromhex(
    'ffd8fff7000b0c0010001001011100ffda0008010100000000a6cd97365d33cb59cd974cf2a84e995513529494a52a'
    'a9ca15511111111124989d249249249254992492492aaa12aa8000000004758066aaaaaaaa9922aaa7006750aaaaad'
    'b511b6db6db6db6a2249249249249442924955554902aaaaaaa5faaaaafcbe7fff17afff75e3ff7d76ff7f40ffd9'
)


def jpeg_ls_picture() -> np.ndarray:
    y, x = np.mgrid[:16, :16]
    picture = (7 * x + 40 * y) % 4096
    picture[0, 0], picture[5, 5] = 0, 4095
    return picture


def random_picture(seed: int, shape: tuple[int, ...] = (40, 36), bits: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << bits, shape)


def dicom(stored: np.ndarray, **tags) -> Dataset:
    """A CT image of one frame (H, W); `tags` change or, if None, remove a tag."""
    dataset = Dataset()
    dataset.SOPClassUID = uid.CTImageStorage
    dataset.SOPInstanceUID = uid.generate_uid(entropy_srcs=[str(tags), str(stored.sum())])
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = '1.2.3.4', '1.2.3'
    dataset.Modality, dataset.ImageType = 'CT', ['ORIGINAL', 'PRIMARY', 'AXIAL']
    dataset.PatientName, dataset.PatientID = 'DOE^JANE', 'MRN-771034'
    dataset.InstitutionName = 'Saint Elsewhere'
    dataset.InstanceNumber, dataset.BurnedInAnnotation = 1, 'NO'
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-120, -130, 40]
    dataset.PixelSpacing = [0.5, 0.5]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, 'MONOCHROME2'
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = stored.astype('<u2').tobytes()
    dataset['PixelData'].VR = 'OW'
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def enhanced(stored: np.ndarray, positions: list[float], **tags) -> Dataset:
    """An enhanced multi-frame CT image (N, H, W), whose frame n rescales by slope 1 + n."""
    removed = ('ImageOrientationPatient', 'ImagePositionPatient', 'RescaleSlope',
               'RescaleIntercept', 'PixelSpacing')  # fmt: skip
    dataset = dicom(stored, **{name: None for name in removed}, **tags)
    dataset.SOPClassUID = uid.EnhancedCTImageStorage
    dataset.NumberOfFrames = len(stored)
    plane, shared = Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = Sequence([plane])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for frame, position in enumerate(positions):
        place, values, group = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, position]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1 + frame, -1024, 'HU'
        group.PlanePositionSequence = Sequence([place])
        group.PixelValueTransformationSequence = Sequence([values])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get('SOPClassUID', uid.CTImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get('SOPInstanceUID', '1.2')
    dataset.save_as(path, enforce_file_format=True)
    return path


def with_codestream(dataset: Dataset, frames: list[bytes], syntax: str) -> Dataset:
    """Puts ready-made compressed frames into a data set."""
    dataset.PixelData = encapsulate(frames)
    dataset['PixelData'].VR = 'OB'
    dataset['PixelData'].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def jpeg_baseline(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(stream, 'JPEG', quality=95)
    return stream.getvalue()


def jpeg_lossless(picture: np.ndarray, bits: int) -> bytes:
    """Encodes (H, W) as lossless JPEG, process 14, predictor 1 (ITU-T T.81, annex H).

    Every difference class has a Huffman code of five bits: simple, and legal.
    """
    height, width = picture.shape
    values = picture.astype(int)
    guess = np.empty_like(values)
    guess[:, 1:], guess[1:, 0], guess[0, 0] = values[:, :-1], values[:-1, 0], 1 << (bits - 1)
    code = ''
    for difference in (values - guess).ravel():
        size = int(abs(difference)).bit_length()
        extra = difference if difference > 0 else difference + (1 << size) - 1
        code += f'{size:05b}' + (f'{extra:0{size}b}' if size else '')
    code += '1' * (-len(code) % 8)
    data = int(code, 2).to_bytes(len(code) // 8, 'big').replace(b'\xff', b'\xff\x00')
    frame = struct.pack('>BHHBBBB', bits, height, width, 1, 1, 0x11, 0)
    lengths = bytes([0, 0, 0, 0, 17, *[0] * 11])
    segments = (
        (b'\xff\xc3', frame),
        (b'\xff\xc4', b'\x00' + lengths + bytes(range(17))),
        (b'\xff\xda', bytes([1, 1, 0, 1, 0, 0])),
    )
    head = b''.join(tag + struct.pack('>H', len(body) + 2) + body for tag, body in segments)
    return b'\xff\xd8' + head + data + b'\xff\xd9'


def nifti(volume: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
    return path


def volume(shape: tuple[int, int, int] = (18, 22, 4)) -> tuple[np.ndarray, np.ndarray]:
    """(x, y, z) int16 HU counting up to the left, back and head, and its affine."""
    values = np.random.default_rng(0).integers(-1000, 3000, shape).astype(np.int16)
    return values, np.diag([-0.5, -0.5, 5.0, 1.0])
