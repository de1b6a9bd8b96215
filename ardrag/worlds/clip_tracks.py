"""The tracks of a Sprite World clip, as a user would have drawn them."""

from __future__ import annotations

import numpy as np

from ardrag.tracks.tracks import Tracks
from ardrag.worlds.sprites import SpriteClip


def clip_tracks(clip: SpriteClip) -> Tracks:
    """One track per moved sprite: its grabbed point in every frame, in 0..1 of the canvas, with its visibility."""
    height, width = clip.frames.shape[1:3]
    scale = np.array([width, height], np.float32)
    return Tracks.from_array(clip.xy / scale, clip.visible)
