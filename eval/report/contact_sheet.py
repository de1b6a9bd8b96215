"""Photographs that no training has seen, each dragged once: what a visitor sees, picture by picture.

    python -m eval.report.contact_sheet checkpoints/ardrag-tiny-photos --report docs/results/contact_sheet

Which photographs, and their drags, are in `contact_sheet.json`: ``drags`` go in straight lines from the first
to the last frame, each taking a piece as wide as ``brush``; a ``camera`` ends at a pan and a zoom. They were chosen
once, by what can be moved in them; whatever comes out is shown. The photographs are Photo World's held-out ones
(``ARDRAG_PHOTOS``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm
from transformers import HfArgumentParser

from ardrag.tracks.tracks import Tracks
from ardrag.worlds.photo_library import PhotoLibrary, default_library
from eval.model import load_pipeline, with_model_named
from eval.record import page_file, record_lines, run_record, write_text
from eval.suites.case import Pixels
from pipelines import ARDragPipeline
from pipelines.video import with_paths


SHEET = Path(__file__).with_suffix(".json")
COLUMNS = 2
"""Photographs beside each other."""
SHOWN = 5
"""Frames of each, from the first to the last."""
MARGIN = 4


@dataclass
class SheetConfig:
    """Which model is asked."""

    model: str = field(metadata={"help": "Folder or Hub name of a causal checkpoint."})
    sheet: str = field(default=str(SHEET), metadata={"help": "Photographs and drags."})
    num_latents: int = field(default=9, metadata={"help": "Latent frames per video."})
    seed: int = field(default=0, metadata={"help": "Seed of every video."})
    report: str = field(default="outputs/contact_sheet", metadata={"help": "Path of the sheet without suffix."})


def drawn(entry: Mapping[str, Any], num_frames: int, width: int, height: int) -> Tracks:
    """The tracks of one photograph."""
    last = num_frames - 1
    paths = [[(0, *start), (last, *end)] for start, end in entry.get("drags", [])]
    tracks = Tracks.from_points(paths, num_frames=num_frames, width=width, height=height, sigma=entry.get("brush"))
    if "camera" not in entry:
        return tracks
    keys = [{"f": 0}, {"f": last, **entry["camera"]}]
    return Tracks.from_json({**json.loads(tracks.to_json()), "camera": {"keys": keys}})


def photograph(library: PhotoLibrary, file: str) -> Image.Image:
    """A held-out photograph by the name of its file.

    Raises:
        ValueError: if the library has none of that name.
    """
    for entry in library.choose("photo", "test"):
        if Path(entry.path).name == file:
            return Image.fromarray(library.read(entry))
    raise ValueError(f"sheet: {file} is no held-out photograph of the library; fetch it anew (training.worlds.fetch)")


def strip(pipeline: ARDragPipeline, picture: Image.Image, tracks: Tracks, seed: int) -> Pixels:
    """`SHOWN` frames beside each other, uint8 ``[h, w, 3]``; the first has the paths."""
    frames = [frame for part in pipeline.stream(picture, "", tracks=tracks, seed=seed) for frame in part]
    shown = [frames[round(index)] for index in np.linspace(0, len(frames) - 1, SHOWN)]
    first, *_ = with_paths(frames, tracks, picture.size)
    return np.concatenate([first, *shown[1:]], axis=1)


def page(strips: Sequence[Pixels]) -> Pixels:
    """Strips of several shapes in rows of `COLUMNS`, on white."""
    width = max(part.shape[1] for part in strips) + MARGIN
    lines = []
    for start in range(0, len(strips), COLUMNS):
        row = strips[start : start + COLUMNS]
        line = np.full((max(part.shape[0] for part in row) + MARGIN, COLUMNS * width, 3), 255, np.uint8)
        for number, part in enumerate(row):
            line[: part.shape[0], number * width : number * width + part.shape[1]] = part
        lines.append(line)
    return np.concatenate(lines)


def markdown(name: str, entries: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> str:
    """The page beside the picture."""
    lines = [
        "# Photographs that no training has seen",
        "",
        f"![Twelve photographs and what their drags make of them]({name}.jpg)",
        "",
        "From left to right, top to bottom; a first frame with its drag, then every eighth. Chosen once, shown as is.",
        "",
    ]
    lines += [f"{number}. {entry['about']} ({entry['credit']})" for number, entry in enumerate(entries, 1)]
    return "\n".join([*lines, "", "The picture: CC BY-SA 4.0.", "", *record_lines(dict(record)), ""])


def main(arguments: list[str] | None = None) -> None:
    """Write ``REPORT.jpg`` and ``REPORT.md``."""
    given = with_model_named(sys.argv[1:] if arguments is None else arguments)
    (config,) = HfArgumentParser(SheetConfig).parse_args_into_dataclasses(given)
    record, entries = run_record("eval.report.contact_sheet", arguments), json.loads(Path(config.sheet).read_text())
    library = default_library()  # checked before anything is loaded
    pictures = [photograph(library, entry["file"]) for entry in entries]
    pipeline, strips = load_pipeline(config.model), []
    num_frames = 1 + pipeline.vae.config.scale_factor_temporal * (config.num_latents - 1)
    for entry, picture in tqdm(list(zip(entries, pictures, strict=True)), unit="photograph"):
        tracks = drawn(entry, num_frames, *picture.size)
        strips.append(strip(pipeline, picture, tracks, config.seed))
    target = Path(config.report)
    write_text(page_file(target, ".md"), markdown(target.name, entries, record))
    Image.fromarray(page(strips)).save(page_file(target, ".jpg"), quality=85, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
