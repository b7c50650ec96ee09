"""Errors that a user can mend: one sentence, no traceback."""

import argparse
import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

# Errors by which a file system refuses to write.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
            errno.ENAMETOOLONG)


class UserError(Exception):
    """Bad input. The message is one sentence: which file or key, what is wrong, and the mend."""


class Parser(argparse.ArgumentParser):
    """Options of a command; what does not fit is a `UserError` that points to --help."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message}; see {self.prog} --help.')


def check_writable(path: str | os.PathLike, what: str) -> None:
    """Makes the directory that `path` is to lie in, and tries to write there, before any work.

    Raises: UserError where that fails; `what` names the file in it, such as "salt file".
    """
    parent = Path(path).absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        why = ('a part of its path is a file' if isinstance(
            error, FileExistsError | NotADirectoryError) else error.strerror)
        raise UserError(f'the {what} {str(path)!r} cannot be written ({why}); choose another '
                        'place.') from None


@contextlib.contextmanager
def writable(what: str, directory: str | os.PathLike, mend: str) -> Iterator[None]:
    """Turns what ArrayRecord raises where it cannot write, or an `OSError`, into a `UserError`."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        reason = getattr(error, 'strerror', None) or str(error).partition(';')[0]
        raise UserError(f'cannot write {what} to {directory}: {reason}; make room there, or '
                        f'{mend}.') from None


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turns a `UserError`, or a disk that refuses writing, into one sentence and exit code 2."""
    try:
        yield
    except UserError as error:
        print(f'repdiff: {error}', file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        where = f' {error.filename!r}' if error.filename else ''
        print(
            f'repdiff: cannot write{where}: {error.strerror}; free some space or choose another '
            'directory, then run the same command again to resume.',
            file=sys.stderr,
        )
        raise SystemExit(2) from None
