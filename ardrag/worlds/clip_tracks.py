"""The tracks of a clip of any world, as a user would have drawn them."""

from __future__ import annotations

import numpy as np

from ardrag.tracks.schema import GROUND
from ardrag.tracks.tracks import Tracks
from ardrag.worlds.photos import PhotoClip
from ardrag.worlds.small import SmallClip
from ardrag.worlds.sprites import SpriteClip


def clip_tracks(clip: SpriteClip | PhotoClip) -> Tracks:
    """One track per moved thing: its grabbed point in every frame, in 0..1 of the canvas, with its visibility.

    Of Photo World also the pins of a moving camera, the touch force, and the brush where the clip has one; of the
    small world the labels, which may be off.
    """
    height, width = clip.frames.shape[1:3]
    scale = np.array([width, height], np.float32)
    if isinstance(clip, SmallClip):
        return Tracks.from_array(clip.labels / scale, clip.labelled)
    if isinstance(clip, SpriteClip):
        return Tracks.from_array(clip.xy / scale, clip.visible)
    drawn = Tracks.from_array(clip.drawn / scale, clip.visible, clip.force)
    return drawn.with_brushes([clip.brush] * len(clip.movers) + [GROUND] * (clip.xy.shape[1] - len(clip.movers)))
