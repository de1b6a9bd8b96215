"""Where the places of a picture lie in the part of it that is generated: tracks go through every crop of the picture.

A picture is brought to a checkpoint's size by cutting a part around its centre and scaling that. Tracks are of the
whole picture, in 0..1; `Crop` says where these places lie in the part, and its `inverse` leads back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.schema import Canvas


ASPECT_TOLERANCE = 0.01
"""Relative difference of two aspect ratios that rounding to whole pixels explains; beyond it, pictures differ."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, its edges in 0..1 of the picture's width and height. The default is the whole picture."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @classmethod
    def covering(cls, own_width: float, own_height: float, width: float, height: float) -> Crop:
        """The largest part around the centre of an ``own_width x own_height`` picture of the shape ``width x height``.

        Only the shape counts: scaled to ``width x height`` the part covers it.
        """
        wide = min(1.0, own_height * width / (own_width * height))
        high = min(1.0, own_width * height / (own_height * width))
        left, top = (1 - wide) / 2, (1 - high) / 2
        return cls(left, top, 1 - left, 1 - top)

    @property
    def inverse(self) -> Crop:
        """The crop whose `places` lead from the part back to the whole."""
        wide, high = self.right - self.left, self.bottom - self.top
        return Crop(-self.left / wide, -self.top / high, (1 - self.left) / wide, (1 - self.top) / high)

    def box(self, own_width: int, own_height: int) -> tuple[float, float, float, float]:
        """The part (left, top, right, bottom) in pixels of a picture of that size."""
        right, bottom = min(self.right * own_width, own_width), min(self.bottom * own_height, own_height)
        return self.left * own_width, self.top * own_height, right, bottom

    def places(self, xy: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Places ``[..., 2]`` in 0..1 of the whole as places in 0..1 of the part; outside of it where cut away."""
        start, end = np.array([self.left, self.top]), np.array([self.right, self.bottom])
        return np.asarray((xy.astype(np.float64) - start) / (end - start))

    def arrays(self, arrays: TrackArrays) -> TrackArrays:
        """Sampled tracks of the whole as tracks of the part; what lies outside of the part is not visible."""
        if self == WHOLE:
            return arrays
        xy = self.places(arrays.xy)
        inside = ((xy >= 0) & (xy <= 1)).all(axis=-1)
        return arrays._replace(xy=xy.astype(np.float32), visible=arrays.visible & inside)


WHOLE = Crop()


def crop_of_canvas(canvas: Canvas, width: int, height: int) -> Crop:
    """The part of a ``width x height`` picture that tracks with this canvas were drawn on.

    It is the whole picture, unless the canvas says that the picture was fitted to it (`fit` is ``"cover"``).

    Raises:
        ValueError: if the canvas has another shape than the picture.
    """
    if not (canvas.width and canvas.height):
        return WHOLE
    if canvas.fit == "cover":
        return Crop.covering(width, height, canvas.width, canvas.height)
    ratio = canvas.width * height / (canvas.height * width)
    if max(ratio, 1 / ratio) > 1 + ASPECT_TOLERANCE:
        raise ValueError(
            f"canvas: the tracks were drawn on {canvas.width} x {canvas.height}, and the picture has another shape, "
            f'{width} x {height}; give the picture they were drawn on, or canvas.fit "cover" if it was cut to that'
        )
    return WHOLE
