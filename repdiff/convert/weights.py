"""Reading weight files that others made, without running anything in them."""

import argparse
import contextlib
import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from repdiff.errors import UserError

# Loading with `weights_only` ran code before 2.6 (CVE-2025-32434) and overran memory before 2.10
# (CVE-2026-24747).
SAFE_TORCH = (2, 10)
FLOATS = ('F64', 'F32', 'F16', 'BF16')
# Where training scripts keep the weights of the file they save, in order of preference.
NESTED = ('ema', 'model', 'state_dict')
# Batch norms count their training steps in whole numbers, which no network needs.
COUNTER = '.num_batches_tracked'


class Weights:
    """Named tensors of one file. `shapes` at once, `read(name)` -> float32 array one at a time."""

    def __init__(self, path: str, tensor: Callable[[str], np.ndarray],
                 shapes: dict[str, tuple[int, ...]]):
        self.path = path
        self.shapes = shapes
        self._tensor = tensor

    def read(self, name: str) -> np.ndarray:
        """The tensor `name` as float32; UserError if it holds NaN or infinity."""
        value = np.asarray(self._tensor(name), np.float32)
        if not np.isfinite(value).all():
            raise UserError(f'{self.path}: {name} holds NaN or infinity; the file is damaged or '
                            'its training diverged, so fetch it again or use another one.')
        return value


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Weights]:
    """Opens a safetensors or PyTorch file, told apart by their first bytes, not their names.

    PyTorch files go through `torch.load(weights_only=True)`, which builds tensors and containers
    and runs nothing else.

    Raises:
      UserError: one sentence for a missing, empty, truncated, corrupt or foreign file, for one
        that holds pickled code, and for a PyTorch file where PyTorch is not installed.
    """
    path = Path(path)
    try:
        with open(path, 'rb') as file:
            head = file.read(64)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}; pass an existing .safetensors, '
                        '.pth, .pt or .bin file.') from None
    if not head:
        raise UserError(f'{path} is empty; fetch it again.')
    if head.startswith(b'version https://git-lfs'):
        raise UserError(f'{path} is a Git LFS pointer, not the weights; run `git lfs pull`, or '
                        'fetch the file itself.')
    if head.startswith((b'PK', b'\x80')):
        yield _torch(path)
    elif head[8:9] == b'{':
        with _safetensors(path) as weights:
            yield weights
    else:
        raise UserError(f'{path} is neither a safetensors nor a PyTorch file; pass the weights as '
                        'published, in one of these formats.')


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Weights]:
    try:
        file = safetensors.safe_open(path, 'numpy')
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f'{path} is not a whole safetensors file ({error}); fetch it '
                        'again.') from None
    with file:
        slices = {name: file.get_slice(name) for name in file.keys() if not name.endswith(COUNTER)}
        for name, part in slices.items():
            if part.get_dtype() not in FLOATS:
                raise UserError(f'{path}: {name} holds {part.get_dtype()} numbers, but weights '
                                f'must be one of {", ".join(FLOATS)}; fetch the unquantised file.')
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        yield Weights(str(path), file.get_tensor, shapes)


def _torch(path: Path) -> Weights:
    try:
        import torch
    except ImportError:
        raise UserError(f'{path} is a PyTorch file, which needs PyTorch to read; install it with '
                        '`pip install torch`, or pass the .safetensors file.') from None
    if tuple(map(int, torch.__version__.split('.')[:2])) < SAFE_TORCH:
        raise UserError(f'{path}: PyTorch {torch.__version__} can run code that a weight file '
                        'hides; `pip install -U torch`, or pass the .safetensors file.')
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            damaged = error
        if damaged is not None:
            raise UserError(f'{path} is damaged at {damaged}; fetch it again.')
    try:
        # DiT's train.py saves its arguments beside the weights: a plain bag of values, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, map_location='cpu', weights_only=True,
                                mmap=zipfile.is_zipfile(path))
    except Exception as error:
        # torch raises a dozen types on damaged files; a refused global is always this one.
        if isinstance(error, pickle.UnpicklingError) and 'nsupported' in str(error):
            raise UserError(f'{path} holds pickled code besides tensors, which is not run; save '
                            'its tensors alone, as .safetensors, and pass that file.') from None
        raise UserError(f'{path} is not a whole PyTorch file; fetch it again.') from None
    tensors = _state(path, loaded, torch.Tensor)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise UserError(f'{path}: {name} holds {tensor.dtype} numbers, but weights must be '
                            'floating point; fetch the unquantised file.')
    return Weights(str(path), lambda name: tensors[name].float().numpy(),
                   {name: tuple(tensor.shape) for name, tensor in tensors.items()})


def _state(path: Path, loaded: Any, tensor: type) -> dict[str, Any]:
    """The dict of named tensors in what a PyTorch file held, perhaps one level down."""
    candidates = [loaded]
    if isinstance(loaded, dict):
        candidates += [loaded[key] for key in NESTED if key in loaded]
    for state in candidates:
        if isinstance(state, dict) and state and all(
                isinstance(name, str) and isinstance(value, tensor)
                for name, value in state.items()):
            return {name: value for name, value in state.items() if not name.endswith(COUNTER)}
    raise UserError(f'{path} holds no table of named tensors, at its top or under '
                    f'{", ".join(NESTED)}; pass a file with a model\'s state dict.')


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal digest of a file's bytes."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def settings(path: str | os.PathLike) -> dict[str, Any]:
    """The `config.json` beside a weight file, or {} where there is none."""
    beside = Path(path).with_name('config.json')
    if not beside.exists():
        return {}
    try:
        value = json.loads(beside.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        raise UserError(f'{beside} is not readable JSON; fetch it again or remove it.') from None
    if not isinstance(value, dict):
        raise UserError(f'{beside} is not a JSON object; fetch it again or remove it.')
    return value
