"""Files that a user brings to give r, prepared as the run's own images were."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from repdiff import finished
from repdiff.data import deidentify, incoming, records
from repdiff.data.png import decode_png
from repdiff.data.slices import Skipped
from repdiff.data.work import Record
from repdiff.errors import UserError
from repdiff.predictions import content_of


def read(
    paths: Sequence[str], dataset: records.Dataset, config: ConfigDict, out: Path
) -> list[dict[str, Any]]:
    """The slices of files and folders, in the order given, prepared as `dataset` was.

    Each is a record: image (S, S, C) uint8, its hidden name as id, label -1, `told` (where it is
    from, in words) and `content` (of its pixels). Raises UserError on the first file that cannot be
    read: a set of samples is under all that was given, or is not drawn.
    """
    salt = deidentify.read_salt(Path(config.cache).expanduser() / 'salt', outside=out)
    like = finished.data_settings(finished.preparation(dataset.info), config.seed)
    settings = incoming.settings_of(paths, like)
    found = []
    for item, about in incoming.told(settings, deidentify.Hasher(salt), 'reading'):
        told = f'file {about["file"]!r} (path {about["argument"]} of those given)'
        if isinstance(item, Skipped):
            raise UserError(f'--condition files: {told} {item.reason}')
        if isinstance(item, Record):
            pixels = decode_png(item.image, settings.channels)
            found.append({'image': pixels, 'label': -1, 'id': about['slice'], 'told': told,
                          'content': content_of(pixels), 'place': about['place']})
    return sorted(found, key=lambda record: record['place'])


def refuse_of_split(found: Sequence[dict], split: records.Split, name: str) -> None:
    """Raises UserError where an image has the very pixels of one of the split `name`."""
    measured = {content_of(split[index]['image']) for index in range(len(split))}
    for record in found:
        if record['content'] in measured:
            raise UserError(
                f'--condition files: {record["told"]} shows an image of the {name} split; r of the '
                'images that samples are measured against would make the measures copies, so '
                f'leave it out, or choose --reference other than {name}.')


def digest(found: Sequence[dict]) -> str:
    """8 hexadecimal digits that tell these images, in their order, from others."""
    return hashlib.sha256(''.join(record['content'] for record in found).encode()).hexdigest()[:8]
