"""Endpoints in Gradio's queue: `/generate` for programs, `/events` for pages that no socket reaches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio import FileData
from PIL import Image
from pydantic import ValidationError

from app_assets.gate.doors import UPLOAD_FIRST
from app_assets.gate.expiring_folder import ExpiringFolder
from app_assets.live import events
from app_assets.mailbox import Mailboxes
from app_assets.messages import MAX_MESSAGE, Start, read_start
from app_assets.pictures import data_url, open_picture
from app_assets.player import Player
from app_assets.track_files import read_track_file
from pipelines.bidirectional import WholeClip
from pipelines.pipeline_ardrag import ARDragPipeline
from pipelines.video import write_video


T = TypeVar("T")
Run = Callable[[Callable[[], T]], T]
"""Runs a function on the thread on which the model runs."""


def generate_endpoint(
    pipe: ARDragPipeline, files: ExpiringFolder, run: Run[Any], max_frames: int
) -> Callable[..., Any]:
    """`/generate`: see the returned function."""

    def generate(
        image: FileData,
        tracks: str = "",
        prompt: str = "",
        seed: int = 0,
        num_frames: int = 33,
        steps: int = 0,
        track_file: FileData | None = None,
    ) -> Iterator[tuple[dict[str, Any] | None, FileData | None, dict[str, Any] | None]]:
        """Make a video from a picture and `ardrag.tracks/v1` text (empty: no control), or a track file of any kind.

        Streams ({frames: [WebP data URLs], made, total}, None, None) for each latent, and at the end (None, the mp4,
        the tracks that were applied). A model that makes a clip at once gives no frames after each of its steps, and
        all of them after the last. ``steps`` 0 is what the checkpoint was trained for. Places of a ``track_file`` that
        are pixels are those of the picture; Wan-Move's tracks and visibility are one file, the second after the first.
        """
        try:
            order = read_order(tracks, prompt, seed, num_frames, steps)
            order.check_length(max_frames)
            path = uploaded(image, files, "image")
            picture = open_picture(str(path), path.name)  # whole: tracks go through its crop with it
            if track_file is not None:
                order = with_file(order, uploaded(track_file, files, "track_file"), picture.size)
            stream = run(lambda: begin(pipe, picture, order))
            frames: list[Any] = []
            while (part := run(lambda: next(stream, None))) is not None:
                frames.extend(part)
                shown = [data_url(Image.fromarray(frame), 90) for frame in part]
                yield {"frames": shown, "made": len(frames), "total": order.num_frames}, None, None
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        folder = files.new_place()
        folder.mkdir(mode=0o700)
        video = folder / f"ardrag-{order.seed}.mp4"
        write_video(frames, video, pipe.config.fps)
        yield None, FileData(path=str(video)), applied(order)

    return generate


def read_order(tracks: Any, prompt: Any, seed: Any, num_frames: Any, steps: Any) -> Start:
    """What a program asks for, checked as what a page asks for.

    Raises:
        ValueError: naming the parameter and the remedy.
    """
    if not isinstance(tracks, str):
        kind = type(tracks).__name__
        raise ValueError(f"tracks: got {kind}, not text; send the text of an ardrag.tracks/v1 file, or '' for none")
    if len(tracks) > MAX_MESSAGE:
        raise ValueError(f"tracks: longer than {MAX_MESSAGE} characters; use fewer points")
    try:
        control = json.loads(tracks) if tracks.strip() else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"tracks: not JSON ({error}); send the text of an ardrag.tracks/v1 file") from error
    count = None if steps == 0 and not isinstance(steps, bool) else steps
    entry = {"picture": "", "prompt": prompt, "seed": seed, "num_frames": num_frames, "tracks": control}
    return read_start({**entry, "steps": count, "paced": False})


def with_file(order: Start, path: Path, size: tuple[int, int]) -> Start:
    """The order with the tracks of a file, drawn on a picture of this (width, height).

    Raises:
        ValueError: if it cannot be read, or the order has tracks already.
    """
    if order.tracks.tracks or order.tracks.camera:
        raise ValueError("track_file: there are tracks too; send one of them")
    with path.open("rb") as file:
        return replace(order, tracks=read_track_file(file, size, order.num_frames, order.num_frames))


def uploaded(value: Any, files: ExpiringFolder, name: str) -> Path:
    """The file, uploaded to this server, that the parameter called ``name`` means.

    Raises:
        ValueError: if it is anything else; the same whether that exists or not.
    """
    try:
        path = FileData.model_validate(value, context={"validate_meta": True}).path
    except ValidationError:
        path = ""
    if not files.holds(path):
        raise ValueError(f"{name}: {UPLOAD_FIRST}")
    return Path(path)


def begin(pipe: ARDragPipeline, picture: Image.Image, order: Start) -> Iterator[list[Any]]:
    """The stream of a video's frames: some after each latent, or none after each step and then all."""
    options: dict[str, Any] = {"num_inference_steps": order.steps, "seed": order.seed}
    options |= {"tracks": order.tracks, "num_frames": order.num_frames}
    if pipe.scheduler.config.mode == "causal":
        return pipe.stream(picture, order.prompt, **options)
    return at_once(pipe.start_clip(picture, order.prompt, **options))


def at_once(clip: WholeClip) -> Iterator[list[Any]]:
    """Nothing after each step of a clip, and then its frames."""
    while not clip.done:
        clip.step()
        yield []
    yield list(clip.frames())


def applied(order: Start) -> dict[str, Any]:
    """The tracks of a finished video, as long as it is; of what their file said besides, nothing is given back.

    Gradio hands out every file that an answer names, and a track file's ``source`` may name any.
    """
    source = {"tool": "ardrag-generate", "prompt": order.prompt, "seed": order.seed, "steps": order.steps}
    known = {name: value for name, value in source.items() if value is not None}
    result: dict[str, Any] = json.loads(replace(order.tracks.extended(order.num_frames), source=known).to_json())
    return result


def events_endpoint(
    make_player: Callable[[], Player], mailboxes: Mailboxes, run: Run[Any], idle_seconds: float
) -> Callable[..., Any]:
    """`/events`: what a socket would send, as text, for the session of a mailbox."""

    def stream(session: str) -> Iterator[str]:
        try:
            mailbox = mailboxes.find(session)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        yield from events(make_player(), mailbox, run, idle_seconds)

    return stream
