"""Pictures: the bundled examples, and what visitors brought, under names that nobody can guess."""

from __future__ import annotations

import base64
import io
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ardrag.home import ROOT
from ardrag.tracks.crop import Crop
from ardrag.tracks.tracks import Tracks
from pipelines.image_input import fit_image, open_image
from pipelines.pipeline_ardrag import ARDragPipeline


EXAMPLES = ROOT / "examples"
MAX_UPLOAD = 20 << 20
"""Bytes of an uploaded picture."""
MAX_PIXELS = 24 << 20
"""Pixels of an uploaded picture: phones' largest usual ones, and no more memory than they need."""
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "ICO", "HEIF")
"""Formats of an uploaded picture. Pillow knows others, some of which start programs (EPS) or have few readers."""
MAX_KEPT = 64
"""Uploaded pictures kept; the one that was not used for the longest time is dropped."""


def load_examples() -> list[dict[str, Any]]:
    """Bundled examples: title, picture file, tracks file, prompt, seed."""
    entries = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    return [
        {**entry, "image": str(EXAMPLES / entry["image"]), "tracks": str(EXAMPLES / entry["tracks"])}
        for entry in entries
    ]


def webp(picture: Image.Image, quality: int) -> bytes:
    """A picture as WebP, made fast."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=0)
    return buffer.getvalue()


def film(frames: Sequence[bytes], fps: float) -> bytes:
    """Pictures as one animated WebP that plays once and stays at its end."""
    buffer = io.BytesIO()
    first, *rest = (Image.open(io.BytesIO(frame)) for frame in frames)
    first.save(
        buffer, "WEBP", save_all=True, append_images=rest, duration=round(1000 / fps), loop=1, quality=85, method=0
    )
    return buffer.getvalue()


def data_url(picture: Image.Image, quality: int = 95) -> str:
    """A picture as WebP inside a URL."""
    return "data:image/webp;base64," + base64.b64encode(webp(picture, quality)).decode("ascii")


class Fitted(NamedTuple):
    """A picture in the size and crop that is generated, and the (width, height) that it had."""

    shown: Image.Image
    own: tuple[int, int]


def on_part(tracks: Tracks, picture: Fitted) -> Tracks:
    """Tracks of a picture as tracks of the part of it that is generated."""
    return tracks.cropped(Crop.covering(*picture.own, *picture.shown.size))


class Pictures:
    """All pictures that a page may name, in the size that is generated."""

    def __init__(self, pipe: ARDragPipeline) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Fitted] = OrderedDict()
        self._examples = {Path(entry["image"]).stem: entry for entry in load_examples()}
        self._fitted = {name: self._fit(entry["image"], name) for name, entry in self._examples.items()}

    def add(self, content: bytes, name: str) -> dict[str, Any]:
        """Keep an uploaded picture; gives what the page shows.

        Raises:
            ValueError: if it is no picture, cut off, moving, or too large.
        """
        if len(content) > MAX_UPLOAD:
            raise ValueError(f"image: {name} has more than {MAX_UPLOAD >> 20} MB; save it smaller")
        picture = self._fit(io.BytesIO(content), name)
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._kept[token] = picture
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return self._shown(token, picture)

    def find(self, name: str) -> Image.Image:
        """The picture called ``name``.

        Raises:
            ValueError: if there is none.
        """
        if name in self._fitted:
            return self._fitted[name].shown
        with self._lock:
            if name not in self._kept:
                raise ValueError("picture: this one is not here any more; choose it again")
            self._kept.move_to_end(name)
            return self._kept[name].shown

    def examples(self) -> list[dict[str, Any]]:
        """All that a page needs to show and run the examples."""
        return [
            {
                **self._shown(name, self._fitted[name]),
                "title": entry["title"],
                "prompt": entry["prompt"],
                "seed": entry["seed"],
                "tracks": json.loads(on_part(Tracks.load(entry["tracks"]), self._fitted[name]).to_json()),
            }
            for name, entry in self._examples.items()
        ]

    def _shown(self, name: str, picture: Fitted) -> dict[str, Any]:
        shown, (width, height) = picture
        own = {"width": width, "height": height}
        return {"picture": name, "src": data_url(shown), "width": shown.width, "height": shown.height, "own": own}

    def _fit(self, file: str | io.BytesIO, name: str) -> Fitted:
        picture = open_picture(file, name)
        return Fitted(fit_image(picture, *self._pipe.size_for(picture, None, None)), picture.size)


def open_picture(file: str | io.BytesIO, name: str) -> Image.Image:
    """A picture file of a stranger, upright and whole.

    Raises:
        ValueError: as `pipelines.image_input.open_image`.
    """
    Image.init()
    known = [kind for kind in FORMATS if kind in Image.OPEN]
    return open_image(file, name=name, max_pixels=MAX_PIXELS, formats=known)
