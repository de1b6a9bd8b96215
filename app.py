"""The Space: choose a picture, draw paths on it, and watch the video that follows them while it is made.

    python app.py [--model FOLDER_OR_HUB_NAME] [--host 0.0.0.0] [--port 7860] [--share]

Nothing is shared between visitors but the loaded pipeline. The named endpoint `/generate` does the same for programs.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from app_assets.pad import data_url, drawing_from_tracks, load_examples, tracks_from_drawing
from app_assets.words import progress_text, visible_errors, whole
from ardrag.tracks import Tracks
from pipelines.image_input import fit_image, open_image
from pipelines.pipeline_ardrag import BUNDLED_CHECKPOINT, ARDragPipeline
from pipelines.video import write_video


ASSETS = Path(__file__).resolve().parent / "app_assets"
LENGTHS = (17, 33, 65)
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
AT_ONCE: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "pipeline", "api_visibility": "private"}
LOOK: dict[str, Any] = {
    "theme": gr.themes.Default(primary_hue="indigo"),
    "css": ".html-container { padding: 0 !important; }",
}


def fitted_picture(pipe: ARDragPipeline, path: str) -> Image.Image:
    """The picture of a file, upright, in the size and crop that is generated."""
    picture = open_image(path)
    return fit_image(picture, *pipe.size_for(picture, None, None))


def show_picture(pipe: ARDragPipeline, path: str, drawing: str = "") -> tuple[Image.Image, Any, str]:
    """Put a picture on the pad: (session's picture, pad, status)."""
    picture = fitted_picture(pipe, path)
    shown = {"src": data_url(picture, 95), "width": picture.width, "height": picture.height}
    return picture, gr.update(picture=shown, value=drawing, stream=None), ""


def show_example(pipe: ARDragPipeline, index: int) -> tuple[Any, ...]:
    """Put an example on the page: (session's picture, pad, status, prompt, seed, num_frames)."""
    example = load_examples()[index]
    tracks = Tracks.load(example["tracks"])
    shown = show_picture(pipe, example["image"], drawing_from_tracks(tracks))
    return *shown, example["prompt"], example["seed"], tracks.num_frames


def save_clip(folder: str, frames: list[Any], fps: float, tracks: Tracks, draw: bool, seed: int) -> tuple[str, str]:
    """Write (video, tracks) under the names that the visitor's downloads will have."""
    video, path = Path(folder) / f"ardrag-{seed}.mp4", Path(folder) / f"ardrag-{seed}.tracks.json"
    write_video(frames, video, fps, tracks if draw else None)
    tracks.save(path)
    return str(video), str(path)


def generate_on_page(
    pipe: ARDragPipeline,
    picture: Image.Image | None,
    drawing: str | None,
    prompt: str,
    seed: float,
    num_frames: int,
    steps: float,
    draw: bool,
) -> Iterator[tuple[Any, ...]]:
    """Make a clip; yields (pad, status, video, tracks file) for each latent and once more at the end."""
    started = time.perf_counter()
    if picture is None:
        raise ValueError("image: there is none yet; choose a picture or an example first")
    count, chosen = whole(num_frames, "num_frames"), {"seed": whole(seed, "seed"), "steps": whole(steps, "steps")}
    tracks = tracks_from_drawing(drawing, count, pipe.config.fps)
    tracks = replace(tracks, source={"tool": "ardrag-app", "prompt": prompt, **chosen})
    stream = pipe.stream(
        picture, prompt, tracks=tracks, num_frames=count, num_inference_steps=chosen["steps"], seed=chosen["seed"]
    )
    clip = {"clip": uuid.uuid4().hex, "fps": pipe.config.fps, "total": count}
    frames: list[np.ndarray] = []
    urls: list[str] = []
    first_seconds, at_first, text = 0.0, 0, ""
    for part in stream:
        elapsed = time.perf_counter() - started
        if not frames:
            first_seconds, at_first = elapsed, len(part)
        frames.extend(part)
        urls = urls + [data_url(Image.fromarray(frame)) for frame in part]
        text = progress_text(len(frames), count, first_seconds, len(frames) - at_first, elapsed - first_seconds)
        yield gr.update(stream={**clip, "frames": urls}), text, gr.skip(), gr.skip()
    with tempfile.TemporaryDirectory(prefix="ardrag-app-") as folder:
        video, path = save_clip(folder, frames, pipe.config.fps, tracks, draw, chosen["seed"])
        done = f"{text} | done, seed {chosen['seed']}"
        yield gr.skip(), done, video, gr.update(value=path, interactive=True)  # Gradio copies both before it goes on


def generate(
    pipe: ARDragPipeline, image: str | None, tracks: str, prompt: str, seed: float, num_frames: float, steps: float
) -> Iterator[tuple[str, str]]:
    """Make a video from a picture file and `ardrag.tracks/v1` text (empty for no control); gives the mp4 and the
    tracks that were applied."""
    if not image:
        raise ValueError("image: there is none; give a PNG or JPEG file")
    count, chosen = whole(num_frames, "num_frames"), whole(seed, "seed")
    control = Tracks.from_json(tracks) if tracks and tracks.strip() else Tracks.empty(count)
    picture = fitted_picture(pipe, image)
    stream = pipe.stream(
        picture, prompt or "", tracks=control, num_frames=count, num_inference_steps=whole(steps, "steps"), seed=chosen
    )
    frames = [frame for part in stream for frame in part]
    with tempfile.TemporaryDirectory(prefix="ardrag-app-") as folder:
        video, _ = save_clip(folder, frames, pipe.config.fps, control, False, chosen)
        yield video, control.to_json()


def build_page(pipe: ARDragPipeline) -> gr.Blocks:
    """The whole page around a loaded pipeline."""
    with gr.Blocks(title="AR-Drag", delete_cache=(3600, 3600)) as page:
        gr.Markdown("# AR-Drag\nDraw paths on a picture; the video that follows them plays while it is made.")
        picture = gr.State(None)
        with gr.Row():
            with gr.Column(scale=6, min_width=280):
                pad = page_part("pad", value="", picture=None, stream=None, elem_id="pad")
                with gr.Row():
                    go = gr.Button("Generate", variant="primary", min_width=80, elem_id="generate")
                    stop = gr.Button("Cancel", interactive=False, min_width=80, elem_id="cancel")
                    with gr.Column(min_width=80, elem_id="picture-upload"):
                        upload = gr.UploadButton("Picture", file_types=["image"], min_width=80)
                status = gr.Markdown(elem_id="status", min_height=48)
                shown = [{"title": e["title"], "src": data_url(Image.open(e["image"]))} for e in load_examples()]
                examples = page_part("examples", value=shown, elem_id="examples")
            with gr.Column(scale=4, min_width=280):
                prompt = gr.Textbox(label="Prompt", lines=2, max_length=1000, placeholder="a red star moves right")
                with gr.Row():
                    count = gr.Radio(LENGTHS, value=33, label="Frames", scale=2, min_width=230)
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, scale=1, min_width=90)
                usual = pipe.scheduler.config.num_inference_steps
                steps = gr.Slider(1, max(16, usual), usual, step=1, label="Steps per latent (fewer is faster)")
                draw = gr.Checkbox(False, label="Draw the paths into the video")
                video = gr.Video(label="Video", autoplay=True, loop=True, height=300, elem_id="video")
                file = gr.DownloadButton("Download tracks and seed (JSON)", interactive=False, elem_id="tracks")

        @visible_errors
        def example(event: gr.EventData) -> tuple[Any, ...]:
            return show_example(pipe, event.index)

        place, buttons = [picture, pad, status], [go, stop, status, video, file]
        chosen = examples.select(example, None, [*place, prompt, seed, count], **AT_ONCE)
        starts = [go.click(busy, None, buttons, **QUIET), chosen.success(busy, None, buttons, **QUIET)]
        nothing = gr.skip()
        make = visible_errors(
            functools.partial(generate_on_page, pipe), lambda text: (nothing, text, nothing, nothing)
        )
        show = visible_errors(functools.partial(show_picture, pipe), lambda text: (nothing, nothing, text))
        fields, results = [picture, pad, prompt, seed, count, steps, draw], [pad, status, video, file]
        runs = [start.then(make, fields, results, show_progress_on=status, **ONE_AT_A_TIME) for start in starts]
        for run in runs:
            run.then(idle, None, [go, stop], **QUIET)
            run.failure(idle, None, [go, stop], **QUIET)
        stop.click(lambda: (*idle(), "Cancelled."), None, [go, stop, status], cancels=runs, **QUIET)
        examples.select(None, cancels=runs)
        upload.upload(idle, None, [go, stop], cancels=runs, **QUIET)
        upload.upload(show, upload, place, **AT_ONCE)
        named_endpoint(pipe)
    return page


def busy() -> tuple[Any, ...]:
    """(generate, cancel, status, video, tracks file) while a clip is made."""
    off = gr.update(interactive=False)
    return off, gr.update(interactive=True), "", None, gr.update(value=None, interactive=False)


def idle() -> tuple[Any, Any]:
    """(generate, cancel) while none is made."""
    return gr.update(interactive=True), gr.update(interactive=False)


def page_part(name: str, **settings: Any) -> gr.HTML:
    """A part of the page with its markup, style and script in files of its own."""
    markup, style, script = ((ASSETS / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return gr.HTML(html_template=markup, css_template=style, js_on_load=script, apply_default_css=False, **settings)


def named_endpoint(pipe: ARDragPipeline) -> None:
    """`/generate` for gradio_client: components that are never seen."""
    with gr.Column(visible=False):
        fields = [
            gr.File(label="image"),
            gr.Textbox("", label="tracks: ardrag.tracks/v1 JSON, or empty"),
            gr.Textbox("", label="prompt"),
            gr.Number(0, label="seed"),
            gr.Number(33, label="num_frames"),
            gr.Number(pipe.scheduler.config.num_inference_steps, label="steps"),
        ]
        results = [gr.Video(label="video"), gr.Textbox(label="tracks")]
        handler = visible_errors(functools.partial(generate, pipe))
        gr.Button().click(
            handler, fields, results, api_name="generate", **{**ONE_AT_A_TIME, "api_visibility": "public"}
        )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line of the Space."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=str(BUNDLED_CHECKPOINT), help="folder or Hub name (default: bundled)")
    parser.add_argument("--host", help="address to listen on (default: this machine only; 0.0.0.0 is everyone)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="also make a public link that lasts a week")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the model and serve the page."""
    options = parse_arguments(arguments)
    try:
        pipe = ARDragPipeline.from_pretrained(options.model)
    except ValueError as error:
        sys.exit(f"app.py: {error}")
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    page = build_page(pipe).queue(max_size=32)
    address = {"server_name": options.host, "server_port": options.port, "share": options.share}
    page.launch(**address, **LOOK, state_session_capacity=1000)


if __name__ == "__main__":
    main()
