"""One visitor's takes: messages of a page go in, messages for it come out. Knows no socket, thread or queue.

`post` may be called at any time and only checks and remembers; `work` does what was asked and makes the next latent.
Whoever calls `work` (a socket's worker thread, a generator in Gradio's queue) is the only one who touches the takes.
"""

from __future__ import annotations

import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app_assets.messages import Cancel, Drag, Export, Message, Plan, Rewind, Run, Seen, Start, read_message
from app_assets.take import Made, Take
from ardrag.tracks import Tracks
from pipelines.pipeline_ardrag import ARDragPipeline
from pipelines.video import write_video


MAX_TAKES = 4
"""Takes kept per visitor; the oldest is closed when there are more."""
MAX_WAITING = 512
"""Messages that may wait to be worked on."""
HISTORY_LATENTS = 8
"""Latents that a take goes back at once (5 MB each at 128x128); farther back it is made again, to the same pixels."""


@dataclass(frozen=True)
class Reply:
    """A message for the page: JSON, and pictures or files that go along."""

    header: dict[str, Any]
    parts: tuple[bytes, ...] = ()


def encode_frame(frame: np.ndarray, quality: int = 90) -> bytes:
    """A frame ``[H, W, 3]`` as WebP."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "WEBP", quality=quality, method=0)
    return buffer.getvalue()


class Player:
    """Takes of one visitor.

    Args:
        pipe: the pipeline, shared by all visitors.
        find_picture: gives the picture of a name that the page uses; ValueError if there is none.
        max_frames: frames that a take may have.
    """

    def __init__(self, pipe: ARDragPipeline, find_picture: Callable[[str], Image.Image], max_frames: int) -> None:
        self._pipe = pipe
        self._find_picture = find_picture
        self._max_frames = max_frames
        self._inbox: deque[Message] = deque()
        self._takes: dict[int, Take] = {}
        self._made_from: dict[int, Start] = {}
        self._last_seq: dict[int, int] = {}
        self._next = 1
        self.started = False

    def post(self, text: str | bytes) -> None:
        """Take in one message of the page.

        Raises:
            ValueError: naming the field and the remedy; the takes are as they were.
        """
        message = read_message(text)
        if len(self._inbox) >= MAX_WAITING:
            raise ValueError("message: too many at once; wait for the answers")
        self._inbox.append(message)
        self.started = self.started or isinstance(message, Start)

    @property
    def due(self) -> bool:
        """Whether `work` has something to do now."""
        return bool(self._inbox) or any(take.due for take in self._takes.values())

    def work(self) -> Iterator[Reply]:
        """Do what was asked and make at most one latent; gives the answers one by one."""
        while self._inbox:
            message = self._inbox.popleft()
            try:
                yield from self._answer(message)
            except ValueError as error:
                yield Reply({"type": "error", "message": str(error), "take": vars(message).get("take")})
        for number, take in reversed(list(self._takes.items())):
            if take.due:
                yield self._frames(number, take.step())
                if take.done:
                    yield Reply({"type": "done", "take": number, "frames": len(take.session.frames)})
                break

    def close(self) -> None:
        """Give back everything."""
        self._inbox.clear()
        self.started = False
        while self._takes:
            self._takes.popitem()[1].close()

    def _answer(self, message: Message) -> Iterator[Reply]:
        if isinstance(message, Start):
            yield from self._start(message)
            return
        take = self._takes.get(message.take)
        if take is None:
            known = ", ".join(map(str, self._takes)) or "none"
            raise ValueError(f"take: {message.take} is not open any more (open: {known}); start a new one")
        if isinstance(message, Drag):
            self._drag(take, message)
        elif isinstance(message, Seen):
            take.saw(message.frame, message.rtt)
        elif isinstance(message, Plan):
            take.control.replan(message.tracks)
        elif isinstance(message, Run):
            take.playing = message.on
        elif isinstance(message, Cancel):
            take.playing, take.paced = False, True
            take.control.release()
            yield Reply({"type": "cancelled", "take": message.take, "frames": len(take.session.frames)})
        elif isinstance(message, Rewind):
            yield self._rewind(take, message)
        else:
            yield from self._export(take, message)

    def _start(self, message: Start) -> Iterator[Reply]:
        if message.num_frames > self._max_frames:
            raise ValueError(f"num_frames: {message.num_frames} is more than {self._max_frames}, the most here")
        picture = self._find_picture(message.picture)
        self._pipe.check_inputs(message.tracks, message.num_frames, *self._size(picture), message.steps)
        take = Take(
            lambda: self._pipe.start_session(
                picture,
                message.prompt,
                num_inference_steps=message.steps,
                seed=message.seed,
                history_latents=HISTORY_LATENTS,
            ),
            message.tracks,
            message.num_frames,
            message.paced,
        )
        yield Reply({"type": "started", "take": self._keep(take, message), **take.summary(), "fps": take.session.fps})

    def _size(self, picture: Image.Image) -> tuple[int, int]:
        return self._pipe.size_for(picture, None, None)

    def _keep(self, take: Take, start: Start) -> int:
        number, self._next = self._next, self._next + 1
        self._takes[number], self._made_from[number] = take, start
        if len(self._takes) > MAX_TAKES:
            oldest = next(iter(self._takes))
            self._takes.pop(oldest).close()
            self._made_from.pop(oldest)
            self._last_seq.pop(oldest, None)
        return number

    def _drag(self, take: Take, message: Drag) -> None:
        if message.seq <= self._last_seq.get(message.take, -1):
            return  # overtaken by a later one: what it says is no longer so
        self._last_seq[message.take] = message.seq
        if message.ways:
            take.dragged(message.seen)
        for pointer, way in message.ways.items():
            take.control.move(pointer, way)
        for pointer in message.released:
            take.control.release(pointer)

    def _rewind(self, take: Take, message: Rewind) -> Reply:
        if not message.branch:
            frames = take.rewind(message.latent)
            return Reply({"type": "rewound", "take": message.take, "latent": message.latent, "frames": frames})
        twin = take.branch(message.latent)
        number = self._keep(twin, self._made_from[message.take])
        return Reply({"type": "branched", "take": number, "from": message.take, **twin.summary()})

    def _frames(self, number: int, made: Made) -> Reply:
        header = {"type": "frames", "take": number, "latent": made.latent, "first": made.first, "lag": made.lag}
        return Reply({**header, "places": made.places}, tuple(encode_frame(frame) for frame in made.frames))

    def _export(self, take: Take, message: Export) -> Iterator[Reply]:
        frames, start = list(take.session.frames), self._made_from[message.take]
        source = {"tool": "ardrag-pad", "prompt": start.prompt, "seed": start.seed, "steps": start.steps}
        tracks = replace(take.session.tracks, source={k: v for k, v in source.items() if v is not None})
        video = mp4_bytes(frames, take.session.fps, tracks if message.draw else None)
        header = {"type": "files", "take": message.take, "seed": start.seed}
        yield Reply({**header, "names": ["video.mp4", "tracks.json"]}, (video, tracks.to_json().encode()))


def mp4_bytes(frames: list[np.ndarray], fps: float, tracks: Tracks | None) -> bytes:
    """Frames as an H.264 mp4 in memory."""
    with tempfile.TemporaryDirectory(prefix="ardrag-app-") as folder:
        path = Path(folder) / "video.mp4"
        write_video(frames, path, fps, tracks)
        return path.read_bytes()
