"""`prepare`: slices a second and peak memory of `repdiff.prepare`, at ten times the files, too."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from repdiff.errors import UserError

PER_PATIENT = 20  # slices
SIZE = 512  # pixels a side
FRACTIONS = '--fractions=train=0.6,valid=0.2,test=0.2'


def write_source(root: Path, files: int, size: int) -> None:
    """Writes `files` DICOM slices, (size, size) int16, of people of 20, and their labels.csv."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    rng = np.random.default_rng(0)
    noise = rng.normal(30, 8, (size, size))
    y, x = np.mgrid[-1:1:1j * size, -1:1:1j * size]
    head = np.where(x ** 2 + y ** 2 < 0.6, noise, -1000)
    lines = ['patient,label']
    for number in range(files):
        patient, k = divmod(number, PER_PATIENT)
        made = Dataset()
        made.SOPClassUID, made.Modality = uid.CTImageStorage, 'CT'
        made.SOPInstanceUID = f'1.2.3.{patient}.{k}'
        made.SeriesInstanceUID, made.PatientID = f'1.2.3.{patient}', f'p{patient}'
        made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        made.ImagePositionPatient, made.PixelSpacing = [0, 0, 5 * k], [0.5, 0.5]
        made.RescaleSlope, made.RescaleIntercept = 1, 0
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, 'MONOCHROME2'
        made.Rows = made.Columns = size
        made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
        made.PixelRepresentation = 1
        turned = np.roll(head, divmod(number, size), (0, 1))  # no two alike: copies would leak
        made.PixelData = turned.astype('<i2').tobytes()
        made['PixelData'].VR = 'OW'
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        folder = root / f'{patient:05}'
        folder.mkdir(exist_ok=True)
        made.save_as(folder / f'{k:02}.dcm', enforce_file_format=True)
        if k == 0:
            lines.append(f'p{patient},{patient % 2}')
    (root / 'labels.csv').write_text('\n'.join(lines) + '\n')


def measure(files: int, size: int, options: tuple[str, ...]) -> tuple[float, float]:
    """(slices a second, peak MiB of the largest process) of one preparation, start-up included.

    Raises: UserError where it fails, with its own sentence.
    """
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / 'source'
        source.mkdir()
        write_source(source, files, size)
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, '-m', 'repdiff.prepare', f'--source={source}',
             f'--out={directory}/out', f'--salt-file={directory}/salt', FRACTIONS, *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = child.stderr.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise UserError(f'repdiff.prepare failed: {said.strip().splitlines()[-1]}')
        return files / (time.perf_counter() - began), usage.ru_maxrss / 1024


def options(add) -> None:
    """Adds the options."""
    add('--files', type=int, default=200, help='then ten times as many (%(default)s)')


def run(given: argparse.Namespace) -> None:
    """Prints rate and memory at `files` and ten times as many, and their ratios.

    Raises: UserError where `files` are too few to be split.
    """
    files = given.files
    if files < 10 * PER_PATIENT:
        raise UserError(f'{files} files are too few to be split; give at least {10 * PER_PATIENT}.')
    rates, peaks = zip(*(measure(count, SIZE, ()) for count in (files, 10 * files)))
    for count, rate, peak in zip((files, 10 * files), rates, peaks, strict=True):
        print(f'prepare: {count} files of {SIZE} x {SIZE}: {rate:.1f} slices/s, '
              f'{peak:.0f} MiB in the largest process')
    print(f'prepare: ten times the files: {rates[1] / rates[0]:.2f} x the rate, '
          f'{peaks[1] / peaks[0]:.2f} x the memory')
