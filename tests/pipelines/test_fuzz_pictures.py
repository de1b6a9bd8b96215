"""Pictures of all kinds, damaged in every way: an upright RGB picture, or a sentence."""

import io

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from pipelines.image_input import fit_image, open_image
from tests.fuzzing import damaged, fuzz, memory_before, peak_memory, refused_or_read


MOST_MIB = 256
"""Memory that thousands of files may leave behind, at most."""


def samples() -> dict[str, bytes]:
    """One small good file of each kind."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(rng.integers(0, 65536, (24, 20), dtype=np.uint16))
    unit = Image.fromarray(rng.random((24, 20), dtype=np.float32))
    kinds = {
        "png": (colour, "PNG"),
        "png turned": (colour, "PNG"),
        "png 16": (deep, "PNG"),
        "palette": (colour.convert("P"), "PNG"),
        "alpha": (colour.convert("RGBA"), "PNG"),
        "jpeg": (colour, "JPEG"),
        "jpeg turned": (colour, "JPEG"),
        "webp": (colour, "WEBP"),
        "gif": (colour, "GIF"),
        "bmp": (colour, "BMP"),
        "tiff": (colour, "TIFF"),
        "tiff 16": (deep, "TIFF"),
        "tiff float": (unit, "TIFF"),
        "cmyk": (colour.convert("CMYK"), "TIFF"),
    }
    found = {}
    for name, (picture, kind) in kinds.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **({"exif": exif} if "turned" in name else {}))
        found[name] = buffer.getvalue()
    return found


def read(content: bytes) -> None:
    """The whole way of a picture."""
    picture = open_image(io.BytesIO(content), max_pixels=1 << 22)
    assert picture.mode == "RGB" and fit_image(picture, 32, 32).size == (32, 32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_damaged_pictures() -> None:
    files, good = samples(), []
    assert all(refused_or_read(lambda content=content: read(content)) for content in files.values())
    before = memory_before()

    @fuzz
    @given(damaged(files))
    def check(file: tuple[str, bytes]) -> None:
        good.append(refused_or_read(lambda: read(file[1])))

    check()
    assert 0 < sum(good) < len(good)
    assert peak_memory() - before < MOST_MIB
    print(f"{len(good)} pictures, {sum(good)} of them read")
