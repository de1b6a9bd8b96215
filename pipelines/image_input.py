"""Reference pictures: reading, checking and fitting them to a checkpoint's buckets."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from ardrag.tracks.crop import Crop


MAX_PIXELS = 64 * 2**20
"""Pictures larger than this are refused: 64 megapixels."""
ORIENTATION, BITS_PER_SAMPLE, PHOTOMETRIC = 0x0112, 258, 262
"""Tags of EXIF and TIFF."""
WHITE_IS_ZERO = 0
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a picture upright, by its EXIF orientation."""

Picture = Image.Image | str | os.PathLike[str] | np.ndarray | Tensor
"""What users bring as a picture (`check_image`)."""


class PictureError(ValueError):
    """What is wrong with a picture, and the remedy."""


def open_image(
    file: str | os.PathLike[str] | IO[bytes],
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    formats: list[str] | tuple[str, ...] | None = None,
) -> Image.Image:
    """Read a picture file as RGB, as `check_image` makes it; HEIC too where ``pillow-heif`` is installed.

    Args:
        file: path, where ``~`` is the user's home, or open file.
        name: what the picture is called in errors; default is its path.
        max_pixels: pictures with more pixels are refused before they are decoded.
        formats: Pillow's names of the formats that are read; default is all.

    Raises:
        ValueError: if the file is missing, is no picture, is cut off, moves, or is too large.
    """
    called = name or (os.fspath(file) if isinstance(file, str | os.PathLike) else "the file")
    place = os.path.expanduser(file) if isinstance(file, str | os.PathLike) else file
    _register_heif()
    try:
        with Image.open(place, formats=formats) as image:
            _check_size(image, max_pixels)
            _check_still(image, called)
            image.load()
            return check_image(image)
    except PictureError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise PictureError(f"image: {called} cannot be opened ({error.strerror}); check the path") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"image: {called} is more than {max_pixels >> 20} megapixels; resize it first") from error
    except Exception as error:  # decoders raise whatever they stumble over in a damaged file
        raise PictureError(f"image: {called} is not a readable picture; save it as PNG or JPEG") from error


@functools.cache
def _register_heif() -> None:
    """Teach Pillow to read what iPhones write, where the package for it is installed."""
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()


def check_images(images: Any) -> list[Image.Image]:
    """One picture, a list of them, or an array or tensor with a batch axis, each as `check_image` makes it.

    Raises:
        ValueError: naming ``image`` and the remedy.
    """
    if isinstance(images, list | tuple) and not images:
        raise PictureError("image: the list is empty; give a picture or a non-empty list of them")
    many = isinstance(images, list | tuple) or (isinstance(images, np.ndarray | Tensor) and images.ndim == 4)
    return [check_image(image) for image in (images if many else [images])]


def check_image(image: Any) -> Image.Image:
    """Any picture that users bring as an upright RGB picture; an upright RGB picture passes as it is.

    Args:
        image: PIL picture of any mode; path; array ``[H, W]`` or ``[H, W, C]`` or tensor ``[H, W]`` or ``[C, H, W]``
            with one, three or four channels, uint8, uint16, or floats in 0..1 (-1..1 where any is negative), as
            diffusers takes them. A batch axis of one is dropped.

    A camera's turned picture is set upright, transparency is laid on white, 16 bits become 8.

    Raises:
        ValueError: naming ``image`` and the remedy, for anything else.
    """
    if isinstance(image, str | os.PathLike):
        return open_image(image)
    if isinstance(image, np.ndarray | Tensor):
        image = _from_array(image)
    if not isinstance(image, Image.Image):
        raise PictureError(f"image: got {type(image).__name__}; give a PIL picture, a path, an array or a tensor")
    _check_size(image)
    try:
        image.load()
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception as error:  # as in `open_image`
        raise PictureError("image: the file is damaged or cut off; save it again as PNG or JPEG") from error
    picture = image if image.mode == "RGB" and "transparency" not in image.info else as_rgb(image)
    if turn is None:
        return picture
    upright = picture.transpose(turn)
    upright.info = {}  # it is not turned any more
    return upright


def as_rgb(image: Image.Image) -> Image.Image:
    """``image`` in RGB: transparent parts on white, deeper numbers scaled to 8 bits.

    Raises:
        ValueError: if it is not known which of its numbers is white, or its colours have no meaning in RGB.
    """
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image).convert("RGB")
    try:
        if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
            layered = image.convert("RGBA")
            white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
            return Image.alpha_composite(white, layered).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise PictureError(f"image: mode {image.mode} cannot be made RGB; save it as PNG or JPEG") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16-bit numbers, or of floats in 0..1, with 8 bits; transparent parts are white."""
    numbers = np.asarray(image)
    if image.mode == "F":
        if not ((numbers >= 0) & (numbers <= 1)).all():
            raise PictureError("image: its floating-point numbers are not within 0..1; scale them, or save it as PNG")
        return Image.fromarray((numbers * 255).round().astype(np.uint8))
    if not image.mode.startswith("I;16"):
        raise PictureError(f"image: mode {image.mode}, 32-bit numbers of unknown range; save it as 8- or 16-bit PNG")
    white = (1 << 16) - 1
    if isinstance(image, TiffImageFile):
        white = (1 << int(image.tag_v2[BITS_PER_SAMPLE][0])) - 1
        numbers = white - numbers if image.tag_v2[PHOTOMETRIC] == WHITE_IS_ZERO else numbers
    numbers = np.where(numbers == image.info.get("transparency", -1), white, numbers).astype(np.uint32)
    return Image.fromarray(((numbers * 255 + white // 2) // white).clip(0, 255).astype(np.uint8))


def _from_array(array: np.ndarray | Tensor) -> Image.Image:
    """An array or tensor, as `check_image` describes it, as a PIL picture with 8 bits a channel."""
    channels_first = isinstance(array, Tensor)
    numbers = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
    given = f"image: {type(array).__name__} of shape {list(array.shape)} and {array.dtype}"
    if numbers.ndim == 4 and len(numbers) == 1:
        numbers = numbers[0]
    if numbers.ndim == 3 and channels_first:
        numbers = np.moveaxis(numbers, 0, 2)
    if numbers.ndim == 3 and numbers.shape[2] == 1:
        numbers = numbers[..., 0]
    if not (numbers.ndim == 2 or (numbers.ndim == 3 and numbers.shape[2] in (3, 4))):
        raise PictureError(f"{given}; use {'[C, H, W]' if channels_first else '[H, W, C]'} with C = 1, 3 or 4")
    if numbers.dtype in (np.uint8, np.uint16):
        unit = numbers / np.iinfo(numbers.dtype).max
    elif np.issubdtype(numbers.dtype, np.floating):
        unit = numbers.astype(np.float64)
        unit = (unit + 1) / 2 if (unit < 0).any() else unit
    else:
        raise PictureError(f"{given}; use uint8, uint16, or floats in 0..1")
    if not ((unit >= 0) & (unit <= 1)).all():
        raise PictureError(f"{given} has numbers outside of 0..1 (or -1..1); divide by the largest possible one")
    return Image.fromarray((unit * 255).round().astype(np.uint8))


def _check_still(image: Image.Image, called: str) -> None:
    """Refuse moving pictures. A photo may carry a small second one (MPO) or more pages (TIFF): these do not move."""
    if image.format in ("MPO", "TIFF"):
        return
    try:
        image.seek(1)
    except EOFError:
        image.seek(0)
        return
    raise PictureError(f"image: {called} is a moving picture; save one frame of it as PNG or JPEG")


def _check_size(image: Image.Image, max_pixels: int = MAX_PIXELS) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(f"image: {width} x {height} is more than {max_pixels >> 20} megapixels; resize it first")
    if min(width, height) < 8:
        raise PictureError(f"image: {width} x {height} is too small; use at least 8 x 8 pixels")


def nearest_bucket(width: int, height: int, buckets: Sequence[Sequence[int]]) -> tuple[int, int]:
    """The bucket ``(height, width)`` whose aspect ratio is nearest (appendix B.1)."""
    best = min(buckets, key=lambda bucket: abs(math.log((bucket[1] / bucket[0]) / (width / height))))
    return int(best[0]), int(best[1])


def fit_image(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scale and crop ``image`` around its centre so that it covers ``height x width``; equal sizes pass unchanged.

    The part that stays is `Crop.covering` of the sizes: tracks of the picture go through the same.
    """
    if image.size == (width, height):
        return image
    # The part that stays is cut out before it is scaled: a long thin picture would grow beyond all memory.
    box = Crop.covering(*image.size, width, height).box(*image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def image_pixels(image: Image.Image) -> Tensor:
    """An RGB picture as ``[1, 3, 1, H, W]`` float32 in [-1, 1]."""
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    picture = raw.view(image.height, image.width, 3).permute(2, 0, 1)
    return picture[None, :, None].float() / 127.5 - 1
