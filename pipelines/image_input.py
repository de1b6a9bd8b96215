"""Reference pictures: reading, checking and fitting them to a checkpoint's buckets."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import IO

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor


MAX_PIXELS = 64 * 2**20
"""Pictures larger than this are refused: 64 megapixels."""


def open_image(
    file: str | os.PathLike[str] | IO[bytes],
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    formats: Sequence[str] | None = None,
) -> Image.Image:
    """Read a picture file as RGB.

    Grey and palette pictures become RGB, transparency is laid on white, and a camera's turned picture is set upright.

    Args:
        file: path, or open file.
        name: what the picture is called in errors; default is its path.
        max_pixels: pictures with more pixels are refused before they are decoded.
        formats: Pillow's names of the formats that are read; default is all.

    Raises:
        ValueError: if the file is missing, is no picture, is cut off, moves, or is too large.
    """
    called = name or (os.fspath(file) if isinstance(file, str | os.PathLike) else "the file")
    try:
        with Image.open(file, formats=formats) as image:
            _check_size(image, max_pixels)
            _check_still(image, called)
            image.load()
            return as_rgb(ImageOps.exif_transpose(image))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ValueError(f"image: {called} cannot be opened ({error.strerror}); check the path") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"image: {called} is more than {max_pixels >> 20} megapixels; resize it first") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"image: {called} is not a readable picture; save it as PNG or JPEG") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """``image`` in RGB, transparent parts on white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def check_image(image: object) -> Image.Image:
    """Accept an RGB picture as it is.

    Raises:
        ValueError: naming ``image`` and the remedy, for anything else.
    """
    if not isinstance(image, Image.Image):
        raise ValueError(f"image: got {type(image).__name__}, not a PIL picture; open it with PIL.Image.open(path)")
    _check_size(image)
    if image.mode != "RGB":
        raise ValueError(f"image: mode is {image.mode}, not RGB; use pipelines.image_input.as_rgb(image)")
    try:
        image.load()
    except (OSError, SyntaxError) as error:
        raise ValueError("image: the file is damaged or cut off; save it again as PNG or JPEG") from error
    return image


def _check_still(image: Image.Image, called: str) -> None:
    """Refuse moving pictures. A photo may carry a small second one (MPO) or more pages (TIFF): these do not move."""
    if image.format in ("MPO", "TIFF"):
        return
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
        return
    raise ValueError(f"image: {called} is a moving picture; save one frame of it as PNG or JPEG")


def _check_size(image: Image.Image, max_pixels: int = MAX_PIXELS) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"image: {width} x {height} is more than {max_pixels >> 20} megapixels; resize it first")
    if min(width, height) < 8:
        raise ValueError(f"image: {width} x {height} is too small; use at least 8 x 8 pixels")


def nearest_bucket(width: int, height: int, buckets: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The bucket ``(height, width)`` whose aspect ratio is nearest (appendix B.1)."""
    best = min(buckets, key=lambda bucket: abs(math.log((bucket[1] / bucket[0]) / (width / height))))
    return int(best[0]), int(best[1])


def fit_image(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scale and crop ``image`` around its centre so that it covers ``height x width``; equal sizes pass unchanged."""
    if image.size == (width, height):
        return image
    # The part that stays is cut out before it is scaled: a long thin picture would grow beyond all memory.
    box = covered_box(image.width, image.height, height, width)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def covered_box(own_width: int, own_height: int, height: int, width: int) -> tuple[float, float, float, float]:
    """The part (left, top, right, bottom) in pixels of a picture that `fit_image` keeps for ``height x width``."""
    scale = max(width / own_width, height / own_height)
    wide, high = min(width / scale, own_width), min(height / scale, own_height)
    left, top = (own_width - wide) / 2, (own_height - high) / 2
    return left, top, min(left + wide, own_width), min(top + high, own_height)


def image_pixels(image: Image.Image) -> Tensor:
    """An RGB picture as ``[1, 3, 1, H, W]`` float32 in [-1, 1]."""
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    picture = raw.view(image.height, image.width, 3).permute(2, 0, 1)
    return picture[None, :, None].float() / 127.5 - 1
