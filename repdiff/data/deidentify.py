"""No person, place or date leaves the readers: salted hashes for names, and messages scrubbed."""

import dataclasses
import hashlib
import hmac
import json
import os
import re
import secrets
from pathlib import Path

from repdiff.data.slices import Skipped, Slice
from repdiff.errors import UserError, check_writable
from repdiff.files import write_atomic

_MIN_SALT_BYTES = 16
_DIGITS = 16  # 64 bits: a collision among a million names has odds of 3e-8


@dataclasses.dataclass(frozen=True)
class Hasher:
    """Names to salted hashes: `HMAC-SHA256(salt, kind ‖ 0 ‖ name)`, 16 hex digits.

    The same salt gives the same hashes, so re-runs and added data agree; without the salt nobody
    can test a guessed patient number against the dataset, which a plain hash would allow.

    Attributes:
      salt: at least 16 bytes, kept apart from the dataset.
    """

    salt: bytes = dataclasses.field(repr=False)

    def __post_init__(self):
        if len(self.salt) < _MIN_SALT_BYTES:
            raise UserError(
                f'the salt has {len(self.salt)} bytes, too few to keep names safe; give at least '
                f'{_MIN_SALT_BYTES}, or let a salt file be made.'
            )

    def name(self, kind: str, raw: str) -> str:
        """`kind-<16 hex digits>`; an empty name stays empty, for "unknown" is nobody's name."""
        if not raw:
            return ''
        digest = hmac.new(self.salt, f'{kind}\0{raw}'.encode(), hashlib.sha256).hexdigest()
        return f'{kind}-{digest[:_DIGITS]}'


def hidden(kind: str, name: str, hasher: Hasher | None) -> str:
    """A name as the data set holds it; without a hasher it is kept."""
    return name if hasher is None else hasher.name(kind, name)


class HiddenError(UserError):
    """A UserError with hidden names, for one that finds a name which the reader of it must know.

    Attributes:
      raw: hidden name -> raw name, for the private table.
    """

    def __init__(self, message: str, raw: dict[str, str] | None = None):
        super().__init__(message)
        self.raw = raw or {}


def read_salt(path: str | os.PathLike, *, outside: str | os.PathLike) -> bytes:
    """Reads the salt file, or makes a random one that only its owner can read.

    Args:
      path: the salt file.
      outside: the dataset directory, which the salt must not travel with.

    Raises:
      UserError: the file lies inside the dataset, cannot be made, is not a file, or holds too
        little.
    """
    path = Path(path)
    _check_outside(path, outside, 'salt file')
    if not path.exists():
        check_writable(path, 'salt file')
        write_atomic(path, secrets.token_hex(32) + '\n', mode=0o600)
    try:
        salt = path.read_bytes().strip()
    except OSError as error:
        raise UserError(f'cannot read the salt file {str(path)!r}: {error.strerror}.') from None
    if len(salt) < _MIN_SALT_BYTES:
        raise UserError(
            f'salt file {str(path)!r} holds {len(salt)} bytes; it needs {_MIN_SALT_BYTES}, so '
            'delete it to have a new one made (ids will change).'
        )
    return salt


def anonymise(item: Slice | Skipped, hasher: Hasher) -> Slice | Skipped:
    """The slice, or the skip, with every raw name hashed: the one gate out of the readers.

    `id`, `patient`, `facility` and `source` become hashes; a reason is scrubbed of paths, dates
    and long numbers. Pixels, label, markers, mask, split and window are kept.
    """
    source = hasher.name('file', item.source)
    if isinstance(item, Skipped):
        return Skipped(source, scrub(item.reason, secret=(item.source,)))
    return dataclasses.replace(
        item,
        id=hasher.name('slice', item.id),
        patient=hasher.name('patient', item.patient),
        facility=hasher.name('facility', item.facility),
        source=source,
    )


_LIBRARY = re.compile(r'\((\w+): .*\)')  # as `refusal.library_may_fail` quotes a library
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_PATH = re.compile(r'(?:[A-Za-z]:)?[^\s:,;()]*[/\\][^\s,;()]*')
_FILE = re.compile(r'\S+\.(?:dcm|ima|nii|gz|npy|npz|png|jpe?g|tiff?|csv|bmp)\b', re.IGNORECASE)
_PERSON = re.compile(r'\w+\^[\w^]*')
_NUMBER = re.compile(r'\d(?:[./:-]?\d){5,}')


def scrub(message: str, *, secret: tuple[str, ...] = ()) -> str:
    """A message without what could name a person: each such part becomes `[removed]`.

    Removed are the strings in `secret` with their last path components, quoted text, paths, file
    names, names as in DICOM (`DOE^JANE`), and dates, UIDs and numbers of six or more digits. Of a
    library's error only its type stays, for its words may quote any tag.
    """
    parts = {part for raw in secret for part in (raw, Path(raw).name, Path(raw).stem)}
    for part in sorted(parts, key=len, reverse=True):
        if len(part) > 2:
            message = message.replace(part, '[removed]')
    message = _LIBRARY.sub(r'(\1)', message)
    for pattern in (_QUOTED, _PATH, _FILE, _PERSON, _NUMBER):
        message = pattern.sub('[removed]', message)
    return message


def read_mapping(path: str | os.PathLike) -> dict[str, str]:
    """The private table as it is so far, empty where there is none yet.

    Raises:
      UserError: the file is not such a table, or cannot be written.
    """
    path = Path(path)
    check_writable(path, 'private mapping')
    if not path.exists():
        return {}
    try:
        names = json.loads(path.read_bytes())
    except (OSError, ValueError):
        names = None
    if not isinstance(names, dict):
        raise UserError(f'the private mapping {str(path)!r} exists and is no table of names in '
                        'JSON; choose another file, or remove it.')
    return names


def write_mapping(
    path: str | os.PathLike, names: dict[str, str], *, outside: str | os.PathLike
) -> None:
    """Writes the private table hash -> raw name, for the owner's eyes only, on explicit request.

    Raises:
      UserError: the file would lie inside the dataset directory `outside`.
    """
    path = Path(path)
    _check_outside(path, outside, 'private mapping')
    write_atomic(path, json.dumps(names, indent=2) + '\n', mode=0o600)


def _check_outside(path: Path, directory: str | os.PathLike, what: str) -> None:
    if path.resolve().is_relative_to(Path(directory).resolve()):
        raise UserError(
            f'the {what} {str(path)!r} would lie inside the dataset {str(directory)!r}, and travel '
            'with it; give a path outside.'
        )
