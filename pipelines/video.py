"""Videos and pictures people look at: mp4, drawn paths (whole path blue, current point red), contact sheets."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import imageio
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw

from ardrag.tracks.crop import Crop
from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.tracks import Tracks


Frame = npt.NDArray[np.uint8]
PATH_COLOUR = (40, 90, 255)
POINT_COLOUR = (255, 40, 40)


def frame_pixels(frame: npt.NDArray[np.uint8]) -> torch.Tensor:
    """A frame, uint8 ``[H, W, 3]``, as ``[3, H, W]`` float32 in [-1, 1]."""
    return torch.from_numpy(np.array(frame)).permute(2, 0, 1).float() / 127.5 - 1


def to_frames(pixels: torch.Tensor) -> Frame:
    """Pixels ``[..., 3, T, H, W]`` in [-1, 1] to uint8 ``[..., T, H, W, 3]``."""
    scaled = ((pixels.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.movedim(-4, -1).cpu().numpy()


def draw_paths(frame: Frame, arrays: TrackArrays, index: int) -> Frame:
    """Draw whole paths in blue and the current points in red over one frame, as in the paper's figures."""
    height, width = frame.shape[:2]
    picture = Image.fromarray(frame)
    pen = ImageDraw.Draw(picture)
    radius = max(2, round(0.014 * max(height, width)))
    scale = np.array([width, height], np.float32)
    for track in range(arrays.xy.shape[1]):
        seen = arrays.visible[:, track]
        points = [(float(x), float(y)) for x, y in arrays.xy[seen, track] * scale]
        if len(points) > 1:
            pen.line(points, fill=PATH_COLOUR, width=max(1, radius // 2))
    for place in arrays.xy[index, arrays.visible[index]] * scale:
        x, y = (float(value) for value in place)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=POINT_COLOUR)
    return np.asarray(picture)


def with_paths(frames: Iterable[Frame], tracks: Tracks, picture: tuple[int, int] | None = None) -> Iterable[Frame]:
    """Frames with the paths of ``tracks`` drawn on them.

    ``picture`` is the (width, height) of the picture that the tracks are of, where the frames show only a part of it.
    """
    listed = list(frames)
    if picture is None:
        arrays = tracks.to_array(len(listed))
    else:
        height, width = listed[0].shape[:2]
        arrays = Crop.covering(*picture, width, height).arrays(tracks.on_picture(*picture, num_frames=len(listed)))
    return (draw_paths(frame, arrays, index) for index, frame in enumerate(listed))


def write_video(
    frames: Sequence[Frame] | Iterable[Frame],
    path: str | os.PathLike[str],
    fps: float,
    tracks: Tracks | None = None,
    picture: tuple[int, int] | None = None,
) -> None:
    """Write uint8 frames ``[H, W, 3]`` as H.264 mp4, whole or not at all, with paths drawn where ``tracks`` is given.

    ``picture`` is as in `with_paths`.

    Raises:
        ValueError: if there is no frame, or the folder does not exist or cannot be written.
    """
    target = Path(path).expanduser()
    if target.suffix.lower() != ".mp4":
        raise ValueError(f"path: {target} must end in .mp4")
    if not target.parent.is_dir():
        raise ValueError(f"path: folder {target.parent} does not exist; create it first")
    listed = list(frames) if tracks is None else list(with_paths(frames, tracks, picture))
    if not listed:
        raise ValueError("frames: there is nothing to write yet; make at least one step")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".ardrag-") as folder:
            part = Path(folder) / "video.mp4"
            writer: Any = imageio.get_writer(part, fps=fps, codec="libx264", quality=8, macro_block_size=2)
            with writer:
                for frame in listed:
                    writer.append_data(frame)
            os.replace(part, target)
    except OSError as error:
        raise ValueError(f"path: {target} cannot be written ({error}); choose another place") from error


def contact_sheet(frames: Sequence[Frame], columns: int = 9) -> Image.Image:
    """Every frame, or evenly chosen ones, as one picture of at most ``columns`` x 4 tiles."""
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), 4 * columns)).round().astype(int)
    height, width = frames[0].shape[:2]
    rows = math.ceil(len(chosen) / columns)
    sheet = Image.new("RGB", (min(columns, len(chosen)) * width, rows * height))
    for place, index in enumerate(chosen):
        sheet.paste(Image.fromarray(frames[index]), (place % columns * width, place // columns * height))
    return sheet
