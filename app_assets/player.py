"""One visitor's takes: messages of a page go in, messages for it come out. Knows no socket, thread or queue.

`post` may be called at any time and only checks and remembers; `turn` does a part of what is due, which is short
whatever was asked. Whoever calls `turn` (a socket's worker thread, a generator in Gradio's queue) is the only one who
touches the takes.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app_assets.messages import (
    MAX_MESSAGE,
    Cancel,
    Drag,
    Export,
    Message,
    Plan,
    Rewind,
    Run,
    Seen,
    Start,
    read_message,
)
from app_assets.pictures import webp
from app_assets.take import Made, Take
from app_assets.whole_take import WholeTake
from ardrag.tracks.tracks import Tracks
from pipelines.pipeline_ardrag import ARDragPipeline
from pipelines.video import write_video


MAX_TAKES = 4
"""Takes kept per visitor; the oldest is closed when there are more."""
MAX_WAITING = 512
"""Messages that may wait to be worked on."""
MAX_WAITING_SIZE = 2 * MAX_MESSAGE
"""Their characters together."""
HISTORY_LATENTS = 8
"""Latents that a take goes back at once (5 MB each at 128x128); farther back it is made again, to the same pixels."""


@dataclass(frozen=True)
class Reply:
    """A message for the page: JSON, and pictures or files that go along."""

    header: dict[str, Any]
    parts: tuple[bytes, ...] = ()


Turn = Reply | Callable[[], Reply] | None
"""What came of a turn: a reply; one that is still to be made, which takes long but not the model; nothing."""
OVER = Reply({"type": "over"})
"""What comes of a turn when nothing is due; visitors never see it."""


def encode_frame(frame: np.ndarray) -> bytes:
    """A frame ``[H, W, 3]`` as WebP."""
    return webp(Image.fromarray(frame), 90)


@dataclass
class Opened:
    """A take that is kept, what began it, and the number of its last drag."""

    take: Take | WholeTake
    start: Start
    last_seq: int = -1


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
        self._inbox: deque[tuple[Message, int]] = deque()
        self._takes: dict[int, Opened] = {}
        self._next = 1
        self._turns = self.work()
        self.started = False

    def post(self, text: str | bytes) -> None:
        """Take in one message of the page.

        Raises:
            ValueError: naming the field and the remedy; the takes are as they were.
        """
        waiting = [size for _, size in list(self._inbox)]
        if len(waiting) >= MAX_WAITING or sum(waiting) + len(text) > MAX_WAITING_SIZE:
            raise ValueError("message: too many at once; wait for the answers")
        message = read_message(text)
        self._inbox.append((message, len(text)))
        self.started = self.started or isinstance(message, Start)

    @property
    def due(self) -> bool:
        """Whether `work` has something to do now."""
        return bool(self._inbox) or any(opened.take.due for opened in self._takes.values())

    def turn(self) -> Turn:
        """The next turn, or `OVER`: who has more to do never spends a turn on finding that out."""
        turn = next(self._turns, OVER)
        if turn is OVER and self.due:
            self._turns = self.work()
            turn = next(self._turns, OVER)
        return turn

    def work(self) -> Generator[Turn, None, None]:
        """Do what was asked and make at most one latent, turn by turn.

        A turn makes at most one latent, or begins one take. Other visitors may have theirs before the next.
        """
        while self._inbox:
            message, _ = self._inbox.popleft()
            try:
                yield from self._answer(message)
            except ValueError as error:
                yield wrong(message, error)
        for number, opened in reversed(self._takes.items()):
            take = opened.take
            if take.due:
                yield self._frames(number, take.step()) if isinstance(take, Take) else self._progress(number, take)
                if isinstance(take, Take) and not (take.due or take.done or self._inbox):
                    yield take.session.settle()  # the frames are on their way: what the next latent would wait for
                if take.done:
                    yield Reply({"type": "done", "take": number, "frames": len(take.frames)})
                break

    def close(self) -> None:
        """Give back everything."""
        self._turns.close()
        self._inbox.clear()
        self.started = False
        while self._takes:
            self._takes.popitem()[1].take.close()

    def _answer(self, message: Message) -> Iterator[Turn]:
        if isinstance(message, Start):
            yield from self._start(message)
            return
        opened = self._takes.get(message.take)
        if opened is None:
            known = ", ".join(map(str, self._takes)) or "none"
            raise ValueError(f"take: {message.take} is not open any more (open: {known}); start a new one")
        take = opened.take
        if isinstance(message, Run):
            take.playing = message.on
        elif isinstance(message, Cancel):
            take.playing = False
            if isinstance(take, Take):
                take.paced = True
                take.control.release()
            yield Reply({"type": "cancelled", "take": message.take, "frames": len(take.frames)})
        elif isinstance(message, Export):
            yield self._export(opened, message)
        elif isinstance(take, Take):
            yield from self._steer(opened, take, message)
        elif not isinstance(message, Seen):
            raise ValueError("take: this model makes a video at once and cannot be steered; draw, then generate")

    def _steer(self, opened: Opened, take: Take, message: Message) -> Iterator[Turn]:
        """What only a take that is made latent by latent can follow."""
        if isinstance(message, Drag):
            self._drag(opened, take, message)
        elif isinstance(message, Seen):
            take.saw(message.frame, message.rtt)
        elif isinstance(message, Plan):
            take.control.replan(message.tracks)
        elif isinstance(message, Rewind):
            yield (yield from self._rewind(opened, take, message))

    def _start(self, message: Start) -> Iterator[Reply]:
        message.check_length(self._max_frames)
        picture = self._find_picture(message.picture)
        self._pipe.check_inputs(
            message.tracks, message.num_frames, *self._pipe.size_for(picture, None, None), message.steps
        )
        take = self._begin(picture, message)
        yield Reply({"type": "started", "take": self._keep(take, message), **take.summary(), "fps": take.fps})

    def _begin(self, picture: Image.Image, message: Start) -> Take | WholeTake:
        options: dict[str, Any] = {"num_inference_steps": message.steps, "seed": message.seed}
        if self._pipe.scheduler.config.mode == "bidirectional":
            options |= {"tracks": message.tracks, "num_frames": message.num_frames}
            return WholeTake(lambda: self._pipe.start_clip(picture, message.prompt, **options), message.num_frames)
        options["history_latents"] = HISTORY_LATENTS
        return Take(
            lambda: self._pipe.start_session(picture, message.prompt, **options),
            message.tracks,
            message.num_frames,
            message.paced,
        )

    def _keep(self, take: Take | WholeTake, start: Start) -> int:
        number, self._next = self._next, self._next + 1
        self._takes[number] = Opened(take, start)
        if len(self._takes) > MAX_TAKES:
            self._takes.pop(next(iter(self._takes))).take.close()
        return number

    def _drag(self, opened: Opened, take: Take, message: Drag) -> None:
        if message.seq <= opened.last_seq:
            return  # overtaken by a later one: what it says is no longer so
        opened.last_seq = message.seq
        if message.ways:
            take.dragged(message.seen)
        for pointer, way in message.ways.items():
            take.control.move(pointer, way, message.brushes[pointer])
        for pointer in message.released:
            take.control.release(pointer)

    def _rewind(self, opened: Opened, take: Take, message: Rewind) -> Generator[None, None, Reply]:
        if not message.branch:
            frames = yield from take.rewind(message.latent)
            return Reply({"type": "rewound", "take": message.take, "latent": message.latent, "frames": frames})
        twin = yield from take.branch(message.latent)
        number = self._keep(twin, opened.start)
        return Reply({"type": "branched", "take": number, "from": message.take, **twin.summary()})

    def _frames(self, number: int, made: Made) -> Reply:
        header = {"type": "frames", "take": number, "latent": made.latent, "first": made.first, "lag": made.lag}
        return Reply({**header, "places": made.places}, tuple(encode_frame(frame) for frame in made.frames))

    def _progress(self, number: int, take: WholeTake) -> Reply:
        step, steps = take.step()
        if not take.done:
            return Reply({"type": "progress", "take": number, "step": step, "steps": steps})
        header = {"type": "frames", "take": number, "latent": 0, "first": 0, "lag": None, "places": take.places}
        return Reply(header, tuple(encode_frame(frame) for frame in take.frames))

    def _export(self, opened: Opened, message: Export) -> Callable[[], Reply]:
        take, start = opened.take, opened.start
        frames = list(take.frames)  # what is made from now on, or closed, is not in the file
        source = {"tool": "ardrag-pad", "prompt": start.prompt, "seed": start.seed, "steps": start.steps}
        header = {"type": "files", "take": message.take, "seed": start.seed, "names": ["video.mp4", "tracks.json"]}

        def files() -> Reply:
            made = take.tracks
            known = {name: value for name, value in source.items() if value is not None}
            tracks = replace(made, source=known, canvas=replace(made.canvas, fit="cover"))  # drawn on the cut picture
            video = mp4_bytes(frames, take.fps, tracks if message.draw else None)
            return Reply(header, (video, tracks.to_json().encode()))

        return lambda: attempt(message, files)


def wrong(message: Message, error: ValueError) -> Reply:
    """What a visitor reads when a message cannot be followed."""
    return Reply({"type": "error", "message": str(error), "take": vars(message).get("take")})


def attempt(message: Message, make: Callable[[], Reply]) -> Reply:
    """The reply that ``make`` makes, or what was wrong."""
    try:
        return make()
    except ValueError as error:
        return wrong(message, error)


def mp4_bytes(frames: Iterable[np.ndarray], fps: float, tracks: Tracks | None) -> bytes:
    """Frames as an H.264 mp4 in memory."""
    with tempfile.TemporaryDirectory(prefix="ardrag-app-") as folder:
        path = Path(folder) / "video.mp4"
        write_video(frames, path, fps, tracks)
        return path.read_bytes()
