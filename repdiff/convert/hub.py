"""Finding the weight file that a `--source` names: a file, a folder or a hub id."""

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from repdiff.errors import UserError

REACH_S = 5.0  # seconds in which the hub must answer at all
SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin', '.ckpt')


def locate(source: str, files: Sequence[str]) -> Path:
    """The local weight file of `source`, with its config.json beside it where there is one.

    `source` is a file, a folder as downloaded from the hub, or a hub id (OWNER/NAME), which is
    downloaded, or found in the hub's cache where there is no network. Of a folder or repository
    the first of `files` that is there is taken.

    Raises:
      UserError: nothing is there, or the download failed: the message says which file to fetch
        and how to pass it.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        return path / _choose(source, files, lambda name: (path / name).is_file())
    if re.fullmatch(r'[\w-][\w.-]*/[\w-][\w.-]*', source) and path.suffix not in SUFFIXES:
        return _download(source, files)
    raise UserError(f'{source} is not there; pass --source=FILE (one of {", ".join(SUFFIXES)}), '
                    'a folder that holds it, or a hub id (OWNER/NAME).')


def _choose(source: str, files: Sequence[str], there: Callable[[str], bool]) -> str:
    for name in files:
        if there(name):
            return name
    raise UserError(f'{source} holds none of {", ".join(files)}; pass the weight file itself with '
                    '--source=FILE.')


def _download(source: str, files: Sequence[str]) -> Path:
    """Fetches the weights and config.json of the hub repository `source` into the hub's cache."""
    by_hand = (f'fetch {files[0]}, and config.json beside it, from https://huggingface.co/{source} '
               'by hand and pass --source=FILE')
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants, utils  # the package loads its parts when asked
    except ImportError:
        raise UserError(f'{source} is not a file here, and downloading it from the hub needs '
                        f'huggingface_hub; `pip install huggingface_hub`, or {by_hand}.') from None
    unreached = _unreached(utils.get_session, constants.ENDPOINT)
    if unreached is not None:
        if earlier := _downloaded(hub, source, files):
            return earlier
        raise UserError(f'cannot reach the hub for {source} ({unreached}); {by_hand}.')
    try:
        there = hub.list_repo_files(source)
        name = _choose(source, files, there.__contains__)
        beside = str(Path(name).with_name('config.json'))
        if beside in there:
            hub.hf_hub_download(source, beside)
        return Path(hub.hf_hub_download(source, name))
    except UserError:
        raise
    except Exception as error:  # names, networks and accounts fail in dozens of types
        raise UserError(f'cannot download {source} from the hub ({type(error).__name__}); check '
                        f'the name and the network, or {by_hand}.') from None


def _unreached(session: Callable, address: str) -> str | None:
    """Why the hub at `address` does not answer within REACH_S, or None if it does.

    Asked before anything else, for the hub's library retries for half a minute, and says so.
    """
    found = ['no answer']

    def ask():
        try:
            session().head(address, timeout=REACH_S)
            found[0] = None
        except Exception as error:  # of whichever HTTP library the hub's uses
            found[0] = type(error).__name__

    # A thread, because finding the address has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_S)
    return found[0]


def _downloaded(hub: ModuleType, source: str, files: Sequence[str]) -> Path | None:
    """The weights of `source` in the hub's cache, from an earlier day."""
    found = (hub.try_to_load_from_cache(source, name) for name in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)
