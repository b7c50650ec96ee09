"""Why a file cannot be read, as a reason for the report and not as a crash."""

import contextlib
import logging
import warnings
from collections.abc import Iterator


class Refused(Exception):
    """A file, or a frame of one, that cannot be used; the message is the reason: "has no Rows"."""


@contextlib.contextmanager
def library_may_fail(what: str) -> Iterator[None]:
    """Turns any way in which a file library gives up on a broken file into `Refused`.

    They raise nearly every built-in exception on garbage. Their warnings and logs are kept silent,
    for they quote the patient's name; their messages are cut short.

    Args:
      what: the reason that the library's own words follow, such as "is damaged".
    """
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logging.disable(logging.CRITICAL)
        try:
            yield
        except Refused:
            raise
        except Exception as error:
            words = ' '.join(str(error).split())[:200].rstrip('.')
            raise Refused(f'{what} ({type(error).__name__}: {words})') from None
        finally:
            logging.disable(disabled)
