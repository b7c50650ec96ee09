"""Converted weights on disk: an Orbax checkpoint of the parameters and a small JSON."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import orbax.checkpoint as ocp

from repdiff.convert import dinov2, dit, engine, hub, inception, sd_vae, weights
from repdiff.errors import UserError
from repdiff.files import write_json

KINDS: dict[str, ModuleType] = {
    'dinov2': dinov2, 'sd_vae': sd_vae, 'dit': dit, 'inception': inception}
INFO = 'convert.json'
PARAMS = 'params'


def convert(kind: str, source: str, out: str | os.PathLike) -> dict[str, Any]:
    """Converts `source` (a file, folder or hub id) of `kind` into the new directory `out`.

    `out` holds `params/` (Orbax) and `convert.json`, which is returned: kind, fields (of the
    module), parameters (their number), source, sha256 (of the source file) and licence. It is
    written under a temporary name and renamed: whole or not there.

    Raises:
      UserError: `out` exists, or the source is missing, damaged or does not fit.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f'{out} already exists; choose another --out, or remove it first.')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out: cannot make {str(out.parent)!r}: {error.strerror}; choose another '
                        'directory.') from None
    table = KINDS[kind]
    path = hub.locate(source, table.FILES)
    fields, params = _read(table, path)
    info = {'kind': kind, 'fields': fields, 'parameters': count(params), 'source': source,
            'sha256': weights.sha256(path), 'licence': table.LICENCE}
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f'.{out.name}.'))
    try:
        temporary.chmod(0o755)
        with _checkpointer() as checkpointer:
            checkpointer.save((temporary / PARAMS).absolute(), params)
        write_json(temporary / INFO, info)
        os.rename(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return info


def read_info(directory: str | os.PathLike, kind: str) -> dict[str, Any]:
    """The `convert.json` of a converted directory; UserError if it is none, or of another kind."""
    path = Path(directory) / INFO
    try:
        info = json.loads(path.read_text())
        found = info['kind']
        # JSON has no tuples, and Flax modules need hashable fields.
        info['fields'] = {key: tuple(value) if isinstance(value, list) else value
                          for key, value in info['fields'].items()}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise UserError(f'{directory} holds no converted weights; make it with `python -m '
                        f'repdiff.convert {kind} --source=FILE --out={directory}`.') from None
    if found != kind:
        raise UserError(f'{directory} holds converted {found} weights, but {kind} is needed; pass '
                        f'a directory made by `python -m repdiff.convert {kind}`.')
    return info


def load(directory: str | os.PathLike, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(module fields, params) of converted weights; params are float32 numpy arrays.

    Raises:
      UserError: `directory` holds no converted weights, those of another kind, or damaged ones.
    """
    fields = read_info(directory, kind)['fields']
    path = (Path(directory) / PARAMS).absolute()
    try:
        with _checkpointer() as checkpointer:
            return fields, checkpointer.restore(path)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f'the converted weights in {directory} are damaged '
                        f'({type(error).__name__}); remove it and convert again.') from None


def count(params: Any) -> int:
    """The number of parameters in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _read(table: ModuleType, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(module fields, params) of a weight file, whose memory is free again on return."""
    with weights.opened(path) as file:
        fields = table.fields(file, weights.settings(path))
        return fields, engine.convert(file, table.rules(file), table.shapes(fields))


def _checkpointer() -> ocp.Checkpointer:
    # Compression gains 7% on weights and holds a whole compressed copy in memory.
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False))
