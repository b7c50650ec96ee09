"""Errors that a user can mend: one sentence, no traceback."""

import contextlib
import errno
import sys
from collections.abc import Iterator

# Errors by which a file system refuses to write.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(Exception):
    """Bad input. The message is one sentence: which file or key, what is wrong, and the mend."""


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turns a `UserError`, or a disk that refuses writing, into its one sentence and exit code 2."""
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
