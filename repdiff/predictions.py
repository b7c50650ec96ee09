"""What predictions leave in their directory: one line an image at once, tables and pictures."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from repdiff.errors import UserError
from repdiff.files import read_json, write_atomic, write_json
from repdiff.zeroshot import evidence

NOTICE = 'research software, no medical device: not for diagnosis or care'
FAR = 'far from the training data: do not trust this answer'
_SIDE = 320  # pixels that a slice in a picture has at least
_STRIP = 46  # pixels of the caption


def content_of(pixels: np.ndarray) -> str:
    """A name for an image that any file of it has: sha256 of its prepared pixels, hexadecimal."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


class Ledger:
    """The answers given so far in `out`, by the content of the image; each line is whole.

    Raises: UserError where `out` holds the answers of another model, or damaged ones.
    """

    def __init__(self, out: Path, identity: dict[str, Any]):
        self._path, about = out / 'predictions.jsonl', out / 'model.json'
        if not about.exists():
            write_json(about, identity)
        elif read_json(about, 'choose another --out, or remove that directory') != identity:
            raise UserError(f'--out: {str(out)!r} holds predictions of another model or window; '
                            'choose another directory, or remove it.')
        text = self._path.read_bytes() if self._path.exists() else b''
        whole = text[: text.rfind(b'\n') + 1]
        if whole != text:  # the last line was torn by a kill
            write_atomic(self._path, whole)
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            self._known = {line['content']: line for line in lines}
        except (ValueError, KeyError, TypeError):
            raise UserError(f'{self._path} is damaged, not lines of JSON; remove it and run again: '
                            'it is written anew.') from None

    def get(self, content: str) -> dict[str, Any] | None:
        """What is known of an image, or None."""
        return self._known.get(content)

    def add(self, answers: Sequence[dict[str, Any]]) -> None:
        """Writes answers down, all at once, before it returns."""
        self._known |= {answer['content']: answer for answer in answers}
        lines = ''.join(json.dumps(answer, allow_nan=False) + '\n' for answer in answers)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, lines.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_tables(out: Path, images: Sequence[dict], refused: Sequence[dict],
                 remarks: Sequence[dict], model: dict[str, Any]) -> None:
    """predictions.csv and predictions.json, in the order of the files given."""
    write_json(out / 'predictions.json', {
        'notice': NOTICE, 'model': model, 'images': images, 'refused': refused,
        'remarks': remarks,
    })
    binary = len(model['classes']) == 2
    names = ['score'] if binary else [f'score_{k}' for k in range(len(model['classes']))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['file', 'argument', 'number', 'prediction', 'class', *names, 'draws',
                     'seconds', 'typicality', 'remark', 'overlay', 'notice'])
    for image in images:
        scores = image['probabilities'][1:] if binary else image['probabilities']
        writer.writerow([
            image['file'], image['argument'], image['number'], image['prediction'], image['class'],
            *scores, image['draws'], image['seconds'], image['typicality'],
            FAR if image['far'] else '', image['overlay'] or '', NOTICE])
    write_atomic(out / 'predictions.csv', text.getvalue())


def picture(pixels: np.ndarray, found: evidence.Evidence, words: str,
            classes: tuple[str, str]) -> bytes:
    """PNG bytes: the slice (S, S, C) uint8, the same with its evidence, and a caption.

    words: of the answer; classes: that red and blue speak for.
    """
    grey = pixels.max(-1)
    side = max(_SIDE, grey.shape[0])
    canvas = Image.new('RGB', (2 * side, side + _STRIP), 'white')
    for left, part in ((0, grey), (side, evidence.overlay(grey, found))):
        canvas.paste(Image.fromarray(part).resize((side, side), Image.BICUBIC), (left, 0))
    said = (f'red: evidence for {classes[0]}, blue: for {classes[1]}' if found.shown.any()
            else 'no evidence stands out of the noise')
    lines = [words, said, f'repdiff: {NOTICE}']
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        pen.text((6, side + 2 + 14 * number), line, fill='black',
                 font=ImageFont.load_default(12))
    stream, comment = io.BytesIO(), PngInfo()
    comment.add_text('Comment', NOTICE)
    canvas.save(stream, 'PNG', pnginfo=comment)
    return stream.getvalue()
