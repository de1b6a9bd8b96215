"""From a picture and a track file to a video, on the command line.

    python -m pipelines.generate --image cat.png --tracks path.json --out cat.mp4 --draw_paths

The model is the bundled checkpoint unless ``--model`` names another folder or Hub repository. Frames are generated one
latent at a time; everything is checked before that, and every file is written whole or not at all.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ardrag.tracks.tracks import Tracks
from pipelines.hub.opening import add_model_options, open_pipeline
from pipelines.image_input import open_image
from pipelines.pipeline_ardrag import BUNDLED_CHECKPOINT, ARDragPipeline
from pipelines.video import Frame, contact_sheet, with_paths, write_video


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True, metavar="I", help="picture to start from (PNG, JPEG, ...)")
    parser.add_argument("--tracks", metavar="T", help="track file, ours or another system's; left out: no control")
    parser.add_argument("--tracks_size", metavar="WxH", help="pixels that another system's tracks are of, as 832x480")
    parser.add_argument("--tracks_frames", type=int, help="frames that another system's paths take, 4k + 1")
    parser.add_argument("--out", required=True, metavar="V.mp4", help="video to write")
    parser.add_argument("--model", default=str(BUNDLED_CHECKPOINT), help="folder or Hub name (default: bundled)")
    parser.add_argument("--prompt", default="", help="what happens in the video")
    parser.add_argument("--num_frames", type=int, help="pixel frames, 4k + 1 (default: as the tracks, or 33)")
    parser.add_argument("--height", type=int, help="pixels; with --width (default: the model's nearest size)")
    parser.add_argument("--width", type=int, help="pixels; with --height")
    parser.add_argument("--steps", type=int, help="denoising steps per latent (default: the checkpoint's own)")
    parser.add_argument("--seed", type=int, default=0, help="same seed and same tracks give the same pixels")
    parser.add_argument("--negative_prompt", help="what guidance leads away from (default: the checkpoint's own)")
    parser.add_argument("--guidance_scale", type=float, help="over the text (1 is off; default: the checkpoint's own)")
    parser.add_argument("--motion_guidance_scale", type=float, help="over the motion (likewise)")
    add_model_options(parser)
    parser.add_argument("--draw_paths", action="store_true", help="draw paths blue and the current point red")
    parser.add_argument("--contact_sheet", metavar="S.png", help="also write the frames as one picture")
    parser.add_argument("--save_tracks", metavar="T2.json", help="also write the tracks as they were used")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 after one line about what the user can put right."""
    options = build_parser().parse_args(arguments)
    try:
        run(options)
    except ValueError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    """Generate and write everything that was asked for.

    Raises:
        ValueError: naming the option and the remedy, before any file is written.
    """
    check_targets(options)
    tracks = None if options.tracks is None else load_tracks(options)
    image = open_image(options.image)
    pipeline = open_pipeline(options.model, options.device, options.dtype, options.lora)
    frames = generate(pipeline, image, tracks, options)
    used = Tracks.empty(len(frames)) if tracks is None else tracks.extended(len(frames))
    shown = list(with_paths(frames, used, image.size)) if options.draw_paths else frames
    write_video(shown, options.out, pipeline.config.fps)
    if options.contact_sheet:
        save_picture(contact_sheet(shown), Path(options.contact_sheet))
    if options.save_tracks:
        used.save(options.save_tracks)


def check_targets(options: argparse.Namespace) -> None:
    """Check the files to write before minutes are spent on their content."""
    for name, suffix in (("out", ".mp4"), ("contact_sheet", ".png"), ("save_tracks", ".json")):
        value = getattr(options, name)
        if value is None:
            continue
        target = Path(value)
        if target.suffix.lower() != suffix:
            raise ValueError(f"--{name}: {target} must end in {suffix}")
        if not target.parent.is_dir():
            raise ValueError(f"--{name}: folder {target.parent} does not exist; create it first")
        if target.is_dir():
            raise ValueError(f"--{name}: {target} is a folder; name a file in it")


def load_tracks(options: argparse.Namespace) -> Tracks:
    """Read the track file.

    Raises:
        ValueError: naming the file, the field and the remedy.
    """
    try:
        return Tracks.load(
            options.tracks, image_size=parse_size(options.tracks_size), num_frames=options.tracks_frames
        )
    except OSError as error:
        raise ValueError(f"--tracks: {options.tracks} cannot be opened ({error.strerror}); check the path") from error
    except ValueError as error:
        said = str(error).replace("image_size:", "--tracks_size:", 1).replace("num_frames:", "--tracks_frames:", 1)
        raise ValueError(f"--tracks: {options.tracks}: {said}") from error


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``WIDTHxHEIGHT`` as two numbers, None where it is left out.

    Raises:
        ValueError: if it is none.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise ValueError(f"image_size: {text!r} is not WIDTHxHEIGHT, for instance 832x480")
    return int(found[1]), int(found[2])


def generate(
    pipeline: ARDragPipeline, image: Image.Image, tracks: Tracks | None, options: argparse.Namespace
) -> list[Frame]:
    """All pixel frames of the clip, with a progress bar over its latents, or over the steps of all of them."""
    names = ("num_frames", "height", "width", "guidance_scale", "motion_guidance_scale", "seed", "negative_prompt")
    chosen = {name: getattr(options, name) for name in names}
    chosen |= {"tracks": tracks, "num_inference_steps": options.steps}
    if pipeline.scheduler.config.mode == "bidirectional":
        clip = pipeline.start_clip(image, options.prompt, **chosen)
        for _ in tqdm(range(clip.steps), desc="steps"):
            clip.step()
        return list(clip.frames())
    stream = pipeline.stream(image, options.prompt, **chosen)
    length = pipeline.clip_length(tracks, options.num_frames)
    factor = pipeline.vae.config.scale_factor_temporal
    frames: list[Frame] = []
    with tqdm(total=1 + (length - 1) // factor, desc="latents") as bar:
        for part in stream:
            frames.extend(part)
            bar.update(1 + (len(frames) - 1) // factor - bar.n)
    return frames


def save_picture(picture: Image.Image, target: Path) -> None:
    """Write a PNG whole or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".ardrag-") as folder:
        part = Path(folder) / "sheet.png"
        picture.save(part)
        part.replace(target)


if __name__ == "__main__":
    sys.exit(main())
