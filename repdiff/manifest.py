"""A list of a finished directory's files and their hashes, so that damage shows before use."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from repdiff.files import write_json

NAME = 'manifest.json'


class Damaged(Exception):
    """The directory is not what was sealed. The message says which file and how."""


class Unfinished(Damaged):
    """The directory was not sealed: its writer was stopped, or is at work."""


def seal(directory: Path, **facts: Any) -> None:
    """Writes `directory`'s manifest: sha256 and size of every file, and `facts` (JSON)."""
    content = {'files': _hashes(directory, _files(directory)), 'facts': facts}
    write_json(directory / NAME, {**content, 'sha256': _hash(content)})


def check(directory: Path) -> dict[str, Any]:
    """The facts that `directory` was sealed with, after all its files were read and compared.

    Raises `Damaged` where the manifest or a file is missing, is new, or has other content.
    """
    try:
        content = json.loads((directory / NAME).read_text())
        files, facts = content['files'], content['facts']
        if content['sha256'] != _hash({'files': files, 'facts': facts}):
            raise Damaged(f'{NAME} is damaged')
    except FileNotFoundError:
        raise Unfinished('it was not finished') from None
    except (OSError, ValueError, KeyError, TypeError):
        raise Damaged(f'{NAME} is damaged') from None
    found = _files(directory)
    for name in sorted(found.symmetric_difference(files)):
        raise Damaged(f'{name} is {"missing" if name in files else "unknown"}')
    try:
        hashes = _hashes(directory, found)
    except OSError as error:
        raise Damaged(f'{error.filename} cannot be read ({error.strerror})') from None
    for name in sorted(name for name in found if hashes[name] != files[name]):
        raise Damaged(f'{name} has other content than was written')
    return facts


def facts(directory: Path) -> dict[str, Any]:
    """The facts of a directory that was checked."""
    return json.loads((directory / NAME).read_text())['facts']


def _files(directory: Path) -> set[str]:
    return {
        str(path.relative_to(directory)) for path in directory.rglob('*')
        if path.is_file() and path != directory / NAME
    }


def _hashes(directory: Path, names: set[str]) -> dict[str, list]:
    """[size, sha256] of each file, several read at once: hashing leaves the interpreter's lock."""

    def one(name: str) -> list:
        with open(directory / name, 'rb') as file:
            digest = hashlib.file_digest(file, 'sha256').hexdigest()
            return [file.tell(), digest]

    names = sorted(names)
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def _hash(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
