"""The label files of three public brain-CT sets, turned into plain rows for `labels`."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from repdiff.data import deidentify
from repdiff.errors import UserError

ALIASES = ' other names'  # a cell of further names of the row, parted by tabs; never in a header

Rows = Iterable[tuple[int, dict[str, str]]]  # row number in the file, cells by column


@dataclasses.dataclass(frozen=True)
class Format:
    """A public format.

    Attributes:
      convert: (source, header, rows as in the file) -> (header, rows as in a plain CSV).
      label: the column or rule taken when none is asked for.
      key: column of slice names; '' where rows are patients.
      patient: column of patient names; '' where the format has none.
    """

    convert: Callable[[str, list[str], Rows], tuple[list[str], Rows]]
    label: str
    key: str = ''
    patient: str = ''


def require(source: str, header: Sequence[str], columns: Sequence[str]) -> None:
    """Raises UserError where `columns` ('' counts for none) are not all in `header`."""
    missing = [name for name in columns if name and name not in header]
    if missing:
        raise UserError(
            f'{source!r} has no column {", ".join(map(repr, missing))}; {columns_are(header)}.'
        )


# Words on a file of labels whose rows name no slices.
NO_FILES = ("no column 'file' or 'id', give the one that names the slices with "
            '--config.data.key_column (prepare: --key-column)')


def columns_are(header: Sequence[str]) -> str:
    """Words on the columns of a file; of one without a header they quote no cell."""
    if any(name.isdecimal() or deidentify.scrub(name) != name for name in header):
        return 'its first row seems to hold values where the names of columns belong'
    return f'its columns are {", ".join(map(repr, header))}'


def _rsna(source: str, header: list[str], rows: Rows) -> tuple[list[str], Rows]:
    """RSNA 2019: `ID_<image>_<type>,Label`, six lines an image, to one row an image.

    The published file repeats a few lines with equal labels; unequal ones are an error.
    """
    require(source, header, ('ID', 'Label'))
    types: dict[str, None] = {}
    images: dict[str, dict[str, str]] = {}
    first: dict[str, int] = {}
    for number, row in rows:
        image, underscore, kind = row['ID'].rpartition('_')
        if not underscore or not image:
            raise UserError(f"row {number} of {source!r} has no ID_IMAGE_TYPE in 'ID'; mend it.")
        types[kind] = None
        first.setdefault(image, number)
        cells = images.setdefault(image, {'image': image})
        if cells.setdefault(kind, row['Label']) != row['Label']:
            raise UserError(f"row {number} of {source!r} contradicts an earlier row of its 'ID'; "
                            'remove one.')
    header = ['image', *types]
    for image, cells in images.items():
        if len(cells) < len(header):
            missing = ', '.join(kind for kind in types if kind not in cells)
            raise UserError(f'{source!r} has no {missing} for the image of row {first[image]}; add '
                            'its lines.')
    return header, [(first[image], cells) for image, cells in images.items()]


def _ct_ich(source: str, header: list[str], rows: Rows) -> tuple[list[str], Rows]:
    """CT-ICH (PhysioNet, Hssayeni et al. 2020), `hemorrhage_diagnosis.csv`: one row a slice.

    A row is found as the JPEG `049/brain/1.jpg` of version 1.0, or as slice 1 of `049.nii`.
    """
    require(source, header, ('PatientNumber', 'SliceNumber', 'No_Hemorrhage'))
    plain = []
    for number, row in rows:
        patient, image = row['PatientNumber'], row['SliceNumber']
        if not (patient.isdecimal() and image.isdecimal()):
            raise UserError(
                f"row {number} of {source!r} needs whole numbers in 'PatientNumber' and "
                "'SliceNumber'."
            )
        folder = f'{int(patient):03d}'
        names = f'{folder}/brain/{int(image)}.jpg\t{folder}.nii#{int(image)}'
        cells = row | {'slice': f'{folder}#{int(image)}', 'patient': folder, ALIASES: names}
        plain.append((number, cells))
    return [*header, 'slice', 'patient'], plain


def _cq500(source: str, header: list[str], rows: Rows) -> tuple[list[str], Rows]:
    """CQ500 (Chilamkurthy et al. 2018), `reads.csv`: a finding is what most of R1, R2, R3 read."""
    require(source, header, ('name',))
    findings = [name[3:] for name in header if name.startswith('R1:')]
    readers = [f'R{reader}:{finding}' for finding in findings for reader in (1, 2, 3)]
    require(source, header, readers or ('R1:ICH', 'R2:ICH', 'R3:ICH'))
    plain = []
    for number, row in rows:
        # The scans' folders and tags write CQ500CT0 for CQ500-CT-0.
        cells = {'name': row['name'], ALIASES: row['name'].replace('-', '')}
        for finding in findings:
            reads = [row[f'R{reader}:{finding}'] for reader in (1, 2, 3)]
            if not set(reads) <= {'0', '1'}:
                raise UserError(
                    f"row {number} of {source!r} needs 0 or 1 in each of 'R1:{finding}', "
                    f"'R2:{finding}' and 'R3:{finding}'."
                )
            cells[finding] = str(int(reads.count('1') >= 2))
        plain.append((number, cells))
    return ['name', *findings], plain


FORMATS = {
    'rsna': Format(_rsna, label='hemorrhage = any', key='image'),
    'ct_ich': Format(_ct_ich, label='hemorrhage = ~No_Hemorrhage', key='slice', patient='patient'),
    'cq500': Format(_cq500, label='hemorrhage = ICH', patient='name'),
}
