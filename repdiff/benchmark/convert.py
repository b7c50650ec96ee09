"""`convert`: seconds and peak memory of `repdiff.convert` on a DINOv2 file of random numbers."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from repdiff.errors import UserError
from repdiff.models.vit import SIZES

PATCH, GRID = 14, 37  # of the published ViTs
HEAD_WIDTH = 64  # features of one attention head, in all of them


def meta_shapes(width: int, depth: int) -> dict[str, tuple[int, ...]]:
    """The tensors of Meta's dinov2_vit*14_pretrain.pth (a plain MLP, no registers) by name."""

    def layer(name: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
        return {f'{name}.weight': (outputs, *inputs), f'{name}.bias': (outputs,)}

    shapes = {
        'cls_token': (1, 1, width), 'mask_token': (1, width),
        'pos_embed': (1, 1 + GRID**2, width),
        **layer('patch_embed.proj', width, 3, PATCH, PATCH), **layer('norm', width),
    }
    for i in range(depth):
        block = f'blocks.{i}.'
        shapes |= {
            **layer(f'{block}norm1', width), **layer(f'{block}norm2', width),
            **layer(f'{block}attn.qkv', 3 * width, width),
            **layer(f'{block}attn.proj', width, width),
            **layer(f'{block}mlp.fc1', 4 * width, width),
            **layer(f'{block}mlp.fc2', width, 4 * width),
            f'{block}ls1.gamma': (width,), f'{block}ls2.gamma': (width,),
        }
    return shapes


def write_source(path: Path, width: int, depth: int) -> None:
    """A safetensors file of random float32 numbers under Meta's names, and its config.json.

    Written a tensor at a time: a child process starts with its parent's peak memory as its own.
    """
    rng, end, header = np.random.default_rng(0), 0, {}
    for name, shape in meta_shapes(width, depth).items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [begin, end]}
    text = json.dumps(header).encode()
    with path.open('wb') as file:
        file.write(len(text).to_bytes(8, 'little') + text)
        for tensor in header.values():
            file.write(0.02 * rng.standard_normal(tensor['shape'], np.float32))
    path.with_name('config.json').write_text(
        json.dumps({'num_attention_heads': width // HEAD_WIDTH}))


def measure(width: int, depth: int) -> tuple[int, int, float]:
    """(bytes of the file, peak bytes, seconds) of one conversion, start-up included.

    Raises: UserError where it fails, with its own sentence.
    """
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / 'model.safetensors'
        write_source(source, width, depth)
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, '-m', 'repdiff.convert', 'dinov2', f'--source={source}',
             f'--out={directory}/out'],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise UserError(f'repdiff.convert failed: {said.strip().splitlines()[-1]}')
        return source.stat().st_size, usage.ru_maxrss * 1024, time.perf_counter() - began


def options(add) -> None:
    """Adds the options."""
    add('--vit', default='L', help='S, B or L (%(default)s)')


def run(given: argparse.Namespace) -> None:
    """Prints the measurement for a ViT of a published size (S, B or L).

    Raises: UserError on another size.
    """
    size, plain = given.vit, [name for name, fields in SIZES.items() if 'ffn' not in fields]
    if size not in plain:
        raise UserError(f'there is no ViT {size!r} to convert; choose from {", ".join(plain)}.')
    file, peak, seconds = measure(SIZES[size]['width'], SIZES[size]['depth'])
    print(f'convert: ViT-{size}/14, a file of {file / 2**20:.0f} MiB: {seconds:.1f} s, peak '
          f'{peak / 2**20:.0f} MiB, {peak / file:.2f} x the file')
