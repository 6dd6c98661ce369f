"""Encoded pictures into pixels, checked, and pixels into features."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from edgetk.core.errors import InputError, MissingExtra
from edgetk.tasks.images import front_end as fe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

#: what Pillow may try to read: no format that runs another program or has a history of surprises
_FORMATS: Final = ("JPEG", "PNG")


def decode(encoded: bytes, name: str) -> Pixels:
    """One JPEG or PNG file as (3, 32, 32) uint8; grey becomes RGB. Raises InputError naming it, MissingExtra without Pillow."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra("cifar10", "pillow", "images") from error
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as picture:
            if picture.size != (fe.SIZE, fe.SIZE):  # looked at before anything is unpacked
                width, height = picture.size
                raise InputError(f"{name}: must be {fe.SIZE} x {fe.SIZE} pixels, got {width} x {height}; scale it first")
            if picture.mode not in ("RGB", "L"):
                raise InputError(f"{name}: must be an RGB or grey picture, got the mode {picture.mode}; convert it to RGB")
            return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: must be a JPEG or PNG picture, got something else; convert it") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow's decoders raise for damaged files
        raise InputError(f"{name}: must be a whole picture, got: {error}; fetch it again") from error


def decode_all(encoded: Sequence[bytes], names: Sequence[str]) -> Tensor:
    """Many pictures: (N, 3, 32, 32) uint8. One after another: pictures this small spend their time in the interpreter."""
    pixels = np.empty((len(encoded), fe.CHANNELS, fe.SIZE, fe.SIZE), dtype=np.uint8)
    for row, (content, name) in enumerate(zip(encoded, names, strict=True)):
        pixels[row] = decode(content, name)
    return torch.from_numpy(pixels)


def read_picture(path: Path) -> Pixels:
    """One picture file as (3, 32, 32) uint8. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: must be a picture, got {'a folder' if path.is_dir() else 'no such file'}; check the path")
    return decode(path.read_bytes(), str(path))


def normalise(pixels: Tensor) -> Tensor:
    """Pixels (…, 3, 32, 32) of 0 to 255, whole or mixed, as features: (x / 255 - mean) / deviation, by channel, float32."""
    # channel by channel with plain numbers: a constant tensor would have to be copied, which a captured step must not do
    channels = zip(pixels.float().unbind(-3), fe.MEAN, fe.STD, strict=True)
    return torch.stack([(channel / 255.0 - mean) / std for channel, mean, std in channels], dim=-3)


__all__ = ["decode", "decode_all", "normalise", "read_picture"]
