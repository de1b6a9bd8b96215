"""Endpoints in Gradio's queue: `/generate` for programs, `/events` for pages that no socket reaches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio import FileData
from PIL import Image

from app_assets.expiring_folder import ExpiringFolder
from app_assets.live import events
from app_assets.mailbox import Mailboxes
from app_assets.pictures import Pictures, data_url
from app_assets.player import Player
from ardrag.tracks.tracks import Tracks
from pipelines.pipeline_ardrag import ARDragPipeline
from pipelines.video import write_video


T = TypeVar("T")
Run = Callable[[Callable[[], T]], T]
"""Runs a function on the thread on which the model runs."""


def generate_endpoint(
    pipe: ARDragPipeline, pictures: Pictures, downloads: ExpiringFolder, run: Run[Any], max_frames: int
) -> Callable[..., Any]:
    """`/generate`: see the returned function."""

    def generate(
        image: FileData,
        tracks: str = "",
        prompt: str = "",
        seed: int = 0,
        num_frames: int = 33,
        steps: int = 0,
    ) -> Iterator[tuple[dict[str, Any] | None, FileData | None, dict[str, Any] | None]]:
        """Make a video from a picture and `ardrag.tracks/v1` text (empty: no control).

        Streams ({frames: [WebP data URLs], made, total}, None, None) for each latent, and at the end (None, the mp4,
        the tracks that were applied). ``steps`` 0 is what the checkpoint was trained for.
        """
        try:
            if num_frames > max_frames:
                raise ValueError(f"num_frames: {num_frames} is more than {max_frames}, the most here")
            path = Path(image["path"])  # type: ignore[index]
            picture = pictures.fitted(str(path), path.name)
            control = Tracks.from_json(tracks) if tracks.strip() else Tracks.empty(num_frames)
            stream = pipe.stream(
                picture, prompt, tracks=control, num_frames=num_frames, num_inference_steps=steps or None, seed=seed
            )
            frames: list[Any] = []
            while part := run(lambda: next(stream, None)):
                frames.extend(part)
                shown = [data_url(Image.fromarray(frame), 90) for frame in part]
                yield {"frames": shown, "made": len(frames), "total": num_frames}, None, None
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        folder = downloads.new_place()
        folder.mkdir(mode=0o700)
        video = folder / f"ardrag-{seed}.mp4"
        write_video(frames, video, pipe.config.fps)
        yield None, FileData(path=str(video)), json.loads(control.to_json())

    return generate


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
