"""Files that are either whole or not there."""

import io
import json
import os
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from repdiff.errors import UserError


def write_atomic(path: str | os.PathLike, content: bytes | str, mode: int = 0o644) -> None:
    """Writes `content` under a temporary name beside `path`, then renames it into place.

    A reader, or a run killed half-way, sees the old file or the new one, never a part, and never
    with other permissions than `mode`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(descriptor, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; NaN and infinity are refused with ValueError."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def read_json(path: str | os.PathLike, mend: str) -> Any:
    """What `write_json` wrote. Raises UserError, which tells the `mend`, where it is damaged."""
    try:
        return json.loads(Path(path).read_bytes())
    except ValueError:
        raise UserError(f'{path} is damaged, not valid JSON; {mend}.') from None


def read_npz(path: str | os.PathLike, mend: str) -> dict[str, np.ndarray]:
    """What `write_npz` wrote. Raises UserError, which tells the `mend`, where it is damaged."""
    content = io.BytesIO(Path(path).read_bytes())
    try:
        with np.load(content) as arrays:
            return dict(arrays)
    except (ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise UserError(f'{path} is damaged, not a readable .npz file; {mend}.') from None


def write_npz(path: str | os.PathLike, **arrays: np.ndarray) -> None:
    """Writes an .npz file, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())
