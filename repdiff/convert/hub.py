"""Finding the weight file that a `--source` names: a file, a folder or a hub id."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from repdiff.errors import UserError

SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin', '.ckpt')


def locate(source: str, files: Sequence[str]) -> Path:
    """The local weight file of `source`, with its config.json beside it where there is one.

    `source` is a file, a folder as downloaded from the hub, or a hub id (OWNER/NAME), which is
    downloaded. Of a folder or repository the first of `files` that is there is taken.

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
    except ImportError:
        raise UserError(f'{source} is not a file here, and downloading it from the hub needs '
                        f'huggingface_hub; `pip install huggingface_hub`, or {by_hand}.') from None
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
