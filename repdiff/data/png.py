"""Pixels as PNG bytes and back, without loss, and what tells their content apart."""

import hashlib
import io

import numpy as np
from PIL import Image


def encode_png(pixels: np.ndarray) -> bytes:
    """(H, W), (H, W, 1), (H, W, 2) or (H, W, 3) uint8 -> PNG bytes, without loss."""
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]                                     # (H, W)
    elif pixels.ndim == 3 and pixels.shape[-1] == 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], -1)  # (H, W, 3)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, 'PNG', compress_level=3)
    return buffer.getvalue()


def decode_png(content: bytes, channels: int) -> np.ndarray:
    """PNG bytes -> (H, W, channels) uint8; the inverse of `encode_png`."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)[..., :channels]    # (H, W, C)


def pixel_hash(pixels: np.ndarray) -> str | None:
    """sha256 of an image's content and shape; None where it is constant and tells nothing apart."""
    if pixels.min() == pixels.max():
        return None
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
