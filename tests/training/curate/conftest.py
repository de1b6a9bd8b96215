"""Videos that are rendered here, of any size, rate and container, whose every point is known at every moment."""

import math
import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.curate import store


@dataclass
class Scene:
    """A textured background, which a camera may pan over, with textured discs that go their ways.

    ``movers``: start, end ``(x, y)`` in 0..1 and radius (share of the shorter side) of each; they take ``seconds``.
    """

    width: int = 128
    height: int = 128
    movers: tuple = (((0.25, 0.35), (0.7, 0.6), 0.16),)
    pan: tuple = (0.0, 0.0)
    seconds: float = 2.0
    seed: int = 0
    _textures: list = field(init=False, repr=False)

    def __post_init__(self):
        rng, side = np.random.default_rng(self.seed), min(self.width, self.height)
        cells = 24
        canvas = rng.integers(40, 216, (2 * cells, 2 * cells, 3), dtype=np.uint8)
        back = Image.fromarray(canvas).resize((2 * self.width, 2 * self.height), Image.Resampling.BICUBIC)
        self._textures = [np.asarray(back)]
        for _, _, radius in self.movers:
            size = 2 * math.ceil(radius * side) + 1
            patch = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            self._textures.append(np.asarray(Image.fromarray(patch).resize((size, size), Image.Resampling.BICUBIC)))

    def progress(self, time):
        return 0.5 - 0.5 * math.cos(math.pi * min(max(time / self.seconds, 0), 1))

    def shift(self, time):
        """How far the background has gone, pixels."""
        return self.progress(time) * np.array(self.pan) * [self.width, self.height]

    def centres(self, time):
        """Where the discs are, pixels ``[N, 2]``."""
        share = self.progress(time)
        ways = [np.array(start) + share * (np.array(end) - start) for start, end, _ in self.movers]
        return np.array(ways).reshape(-1, 2) * [self.width, self.height] + self.shift(time)

    def draw(self, time):
        """The picture at a moment, uint8 ``[H, W, 3]``; subpixel, by bilinear shifts."""
        import cv2

        x, y = self.shift(time)
        size = (self.width, self.height)
        move = np.array([[1, 0, x - self.width / 2], [0, 1, y - self.height / 2]])
        canvas = cv2.warpAffine(self._textures[0], move, size, flags=cv2.INTER_LINEAR).astype(np.float32)
        for (cx, cy), (_, _, radius), texture in zip(self.centres(time), self.movers, self._textures[1:], strict=True):
            half = (texture.shape[0] - 1) / 2
            move = np.array([[1, 0, cx - 0.5 - half], [0, 1, cy - 0.5 - half]])
            disc = cv2.warpAffine(texture, move, size, flags=cv2.INTER_LINEAR).astype(np.float32)
            rows, columns = np.indices((self.height, self.width)) + 0.5
            far = np.hypot(columns - cx, rows - cy)
            alpha = np.clip(radius * min(size) - far + 0.5, 0, 1)[..., None]
            canvas = canvas + alpha * (disc - canvas)
        return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)

    def error(self, places, times):
        """Mean distance in pixels of ``places`` ``[T, 2]`` to the way of the thing that they follow best."""
        shifts = [np.array([self.shift(t) for t in times])]
        shifts += list(np.array([self.centres(t) for t in times]).transpose(1, 0, 2)) if self.movers else []
        ways = [places[0] + way - way[0] for way in shifts]
        return min(float(np.linalg.norm(places - way, axis=1).mean()) for way in ways)


def write_frames(path: Path, frames, times, codec="libx264", pixels="yuv444p", audio=False, options=None):
    """Write frames, each at its time, with any container and codec of PyAV."""
    import av

    with av.open(str(path), "w") as container:
        rate = Fraction(1 / float(np.median(np.diff(times)))).limit_denominator(1001) if len(times) > 1 else 10
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 12000 if codec != "gif" else 100)
        sound = container.add_stream("aac", rate=16000) if audio else None
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if pixels != "rgb8":
                picture = picture.reformat(format=pixels)
            picture.time_base = stream.codec_context.time_base
            picture.pts = round(time / picture.time_base)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        if sound:
            for start in range(0, int(times[-1] * 16000), 1024):
                wave = (9000 * np.sin(np.arange(start, start + 1024) / 9)).astype(np.int16)[None]
                block = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                block.sample_rate, block.pts = 16000, start
                container.mux(sound.encode(block))
            container.mux(sound.encode())
    return path


def film(path: Path, scene: Scene, fps: float, **options):
    """Write a scene; returns the times of its frames."""
    times = np.arange(int(scene.seconds * fps) + 1) / fps
    write_frames(path, [scene.draw(time) for time in times], times, **options)
    return times


def turn(path: Path, target: Path, degrees: int):
    """The same file with a note that it is to be shown turned."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-display_rotation", str(degrees)]
    subprocess.run([*command, "-i", str(path), "-c", "copy", str(target)], check=True)


@pytest.fixture(scope="session")
def scene():
    return Scene


@pytest.fixture(scope="session")
def shoot():
    return film


@pytest.fixture(scope="session")
def write():
    return write_frames


@pytest.fixture(scope="session")
def turned():
    return turn


def fill(folder, drops, sheet=b"sheet"):
    """A curated folder without videos: clips by name with the rule that they broke, pictures too where read."""
    store.begin(folder, {"fps": 16.0}, "code")
    for name, drop in drops.items():
        read = not drop.startswith("unreadable")
        row = {"id": name, "source": "a.mp4", "sha256": "0", "caption": "<b>bold</b>", "start": 0.0, "drop": drop}
        row |= {"frames": 17 * read, "fps": 16.0 * read, "height": 64 * read, "width": 64 * read, "num_tracks": 0}
        row |= {"scores": {"light": 90.0}, "sheet": sheet if read else b""}
        store.write_part(folder, row | dict.fromkeys(("tracks", "visible", "force", "video"), b""))
    store.gather_parts(folder, 9)
