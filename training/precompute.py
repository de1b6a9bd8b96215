"""Encode clips once: video latents, motion latents, tracks and reference picture, as a `datasets` dataset on disk.

    python -m training.precompute --vae runs/vae/vae --output_dir runs/latents --num_clips 1500 --num_frames 17
    python -m training.precompute --vae runs/vae/vae --output_dir runs/latents --data runs/curated
    python -m training.precompute training/configs/small/latents.yaml --output_dir runs/small \
        --world small:label_noise=6,late_start=8,passers_by=1,two_futures=1
    python -m training.precompute --vae runs/vae/vae --clips runs/latents --control carried --output_dir runs/carried

A world's clips are made as they are encoded; ``--data`` encodes what `training.curate` kept, in its sizes and
lengths. Rows are `ardrag.clips/v1` (docs/data.md). Several processes share the work with ``--start``; training takes
several folders, of any size and length. What is stored of the tracks' control is only there to save time: a run that
shows another one makes it when a clip is drawn (`training.controls.maker`). ``--control none`` stores none, and
``--clips`` reads encoded clips and makes their control alone anew. ``--tokens PIPELINE`` stores what its text and
image encoders make of the clips, so that stages 1 and 2 need not load them (``--stored_tokens true``).
``--push_to_hub OWNER/NAME`` also makes a dataset repository of the clips, which training takes by its name.

With ``--categories occluded`` a folder holds the clips of the range that are hard in that way; given to training
beside the others, they are drawn more often.
"""

from __future__ import annotations

import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError
from diffusers import AutoencoderKLWan
from torch import Tensor
from tqdm import tqdm

from ardrag.controls.build import build_control
from ardrag.controls.control import PixelControl, Rows, Scene
from ardrag.outlines.network import Outline
from ardrag.streaming_vae import StreamingVAE, fold_causal_convs
from ardrag.tracks.tracks import Tracks
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.open import open_world
from ardrag.worlds.photos import PhotoClip
from ardrag.worlds.sprites import SpriteClip
from pipelines.hub.client import clear_errors
from training.controls.changes import pressed
from training.controls.maker import control_text, told
from training.curate.record import decode_video
from training.curate.store import read_manifest, read_rows
from training.rollouts.tokens import TokenMaker
from training.run.clips import FEATURES, pack_clip, pack_half, pack_tracks, unpack_tracks
from training.run.config import parse_config
from training.run.data import load_latents


NONE = "none"
T = TypeVar("T")


@dataclass
class PrecomputeConfig:
    """What to encode and where to put it."""

    vae: str = field(metadata={"help": "Folder of the trained VAE."})
    output_dir: str = field(metadata={"help": "Folder of the dataset to write."})
    world: str = field(default="sprites", metadata={"help": "sprites, photos (Photo World), or small:OPTIONS."})
    split: str = field(default="train", metadata={"help": "Split of the world."})
    data: str = field(default="", metadata={"help": "Folder of curated clips; empty: the world."})
    start: int = field(default=0, metadata={"help": "First clip."})
    num_clips: int = field(default=1500, metadata={"help": "Number of clips, or of those to choose from."})
    categories: list[str] = field(
        default_factory=list,
        metadata={"help": "Keep clips with one of these names (occluded, fast, ...); empty: all."},
    )
    num_frames: int = field(default=17, metadata={"help": "Pixel frames per clip, 4k + 1."})
    height: int = field(default=128, metadata={"help": "Pixels of the world's pictures."})
    width: int = field(default=128, metadata={"help": "Pixels of the world's pictures."})
    clips: str = field(
        default="", metadata={"help": "Folder of encoded clips, whose control alone is made anew; empty: all is made."}
    )
    control: str = field(
        default="heat", metadata={"help": "What is stored of the tracks: heat, carried, another video, or none."}
    )
    outline: str = field(
        default="", metadata={"help": "Folder of the network that knows outlines, for the control cutout."}
    )
    touch_force: float = field(
        default=1.0,
        metadata={
            "help": "Weakest touch (B.1): the force of a track changes smoothly between it and 1; 1 = always 1."
        },
    )
    batch_size: int = field(default=4, metadata={"help": "Clips encoded at once."})
    tokens: str = field(
        default="", metadata={"help": "Pipeline whose text and image tokens of the clips are stored; empty: none."}
    )
    push_to_hub: str = field(default="", metadata={"help": "Dataset repository, owner/name, to push to as well."})
    hub_private: bool = field(default=False, metadata={"help": "Make the repository private if it is made."})

    def __post_init__(self) -> None:
        if self.control != NONE and not isinstance(build_control(self.control), PixelControl):
            raise ValueError(
                f"control: {self.control} is no video that a VAE encodes, training makes it as it goes; use heat, "
                f"coloured, carried, or {NONE}"
            )
        if self.clips and self.control == NONE:
            raise ValueError("control: with clips their control is made anew; name one, heat for instance")
        if self.push_to_hub and self.push_to_hub.count("/") != 1:
            raise ValueError(f"push_to_hub: {self.push_to_hub!r} is no owner/name of a dataset repository")
        open_world(self.world)  # checks it
        if not 0 <= self.touch_force <= 1:
            raise ValueError(f"touch_force: {self.touch_force} is no share; use 0 to 1, full force")


class RawClip(NamedTuple):
    """A clip before it is encoded: ``frames`` uint8 ``[T, H, W, 3]`` with their tracks."""

    name: str
    source: str
    caption: str
    frames: npt.NDArray[np.uint8]
    tracks: Tracks
    fps: float


def chosen_clips(config: PrecomputeConfig) -> Iterator[tuple[int, SpriteClip | PhotoClip]]:
    """The clips of the range that have one of the categories, with their numbers."""
    wanted, found = set(config.categories), False
    make = open_world(config.world).make
    for index in tqdm(range(config.start, config.start + config.num_clips), desc="encode", mininterval=10):
        clip = make(config.split, index, config.num_frames, config.height, config.width)
        if not wanted or wanted.intersection(clip.categories):
            found = True
            yield index, clip
    if not found:
        last = config.start + config.num_clips - 1
        raise ValueError(
            f"categories: none of clips {config.start} to {last} of {config.split} is {' or '.join(sorted(wanted))}; "
            "names are those of the clips' own categories, such as occluded, fast, two paths"
        )


def world_clips(config: PrecomputeConfig) -> Iterator[RawClip]:
    """Clips of the chosen world."""
    title = open_world(config.world).title
    for index, clip in chosen_clips(config):
        tracks = clip_tracks(clip)
        yield RawClip(f"{config.split}-{index}", title, clip.caption, clip.frames, tracks, tracks.fps)


def curated_clips(config: PrecomputeConfig) -> Iterator[RawClip]:
    """Clips that `training.curate` kept, and a person did not reject."""
    folder, found = Path(config.data), False
    read_manifest(folder)
    for row in tqdm(read_rows(folder), desc="encode", mininterval=10):
        if not row["drop"]:
            found = True
            tracks = Tracks.from_array(*unpack_tracks(row), fps=row["fps"])
            frames = decode_video(row["video"])
            yield RawClip(row["id"], row["source"], row["caption"], frames, tracks, row["fps"])
    if not found:
        raise ValueError(f"data: {folder} kept no clip; its review.html says why each was dropped")


def touched(clip: RawClip, weakest: float) -> RawClip:
    """``clip`` with a force that changes smoothly between ``weakest`` and 1, a function of its name."""
    if weakest == 1:
        return clip
    arrays = pressed(clip.tracks.to_array(), weakest, np.random.default_rng(zlib.crc32(clip.name.encode())))
    return clip._replace(tracks=Tracks.from_array(*arrays, fps=clip.fps).with_brushes(clip.tracks.brushes()))


def batches(clips: Iterable[T], size: int, shape_of: Callable[[T], tuple[int, ...]]) -> Iterator[list[T]]:
    """Batches of clips of one shape each."""
    waiting: dict[tuple[int, ...], list[T]] = defaultdict(list)
    for clip in clips:
        shape = shape_of(clip)
        waiting[shape].append(clip)
        if len(waiting[shape]) == size:
            yield waiting.pop(shape)
    yield from waiting.values()


@torch.no_grad()
def encode_rows(config: PrecomputeConfig) -> Iterator[dict[str, Any]]:
    """Rows of the dataset, clip by clip."""
    vae = StreamingVAE(fold_causal_convs(AutoencoderKLWan.from_pretrained(config.vae).eval()))
    control = None if config.control == NONE else build_control(config.control)
    name, outline = control_text(control) if control else "", known_outline(config)
    raw = curated_clips(config) if config.data else world_clips(config)
    clips = (touched(clip, config.touch_force) for clip in raw)
    for batch in batches(clips, config.batch_size, lambda clip: clip.frames.shape):
        video = torch.stack([torch.from_numpy(clip.frames).permute(3, 0, 1, 2) for clip in batch]).float() / 127.5 - 1
        if isinstance(control, PixelControl):
            pairs = zip(batch, video, strict=True)
            shown = [paint(control, clip.tracks, v, vae.temporal_factor, outline) for clip, v in pairs]
            video = torch.cat([video, torch.stack(shown)])
        encoded = vae.encode(video)
        for i, clip in enumerate(batch):
            told = clip.name, clip.source, clip.caption, clip.frames[0], Rows.of(clip.tracks), clip.fps
            yield pack_clip(*told, encoded[i], name, encoded[len(batch) + i] if control else None)


def known_outline(config: PrecomputeConfig) -> Outline | None:
    """The network that knows outlines, if there is one."""
    return Outline.from_pretrained(config.outline) if config.outline else None


def paint(
    control: PixelControl, tracks: Tracks, video: Tensor, temporal_factor: int, outline: Outline | None = None
) -> Tensor:
    """The video ``[3, T, H, W]`` that a control makes of ``tracks`` in the true ``video`` ``[3, T, H, W]``."""
    frames = video.movedim(1, 0)
    scene = Scene(frames[0], frames[:1], outline=outline)
    return control.paint_clip(Rows.of(tracks), scene, frames[::temporal_factor], temporal_factor)


@torch.no_grad()
def shown_anew(config: PrecomputeConfig) -> Iterator[dict[str, Any]]:
    """Rows of encoded clips with another control."""
    vae = StreamingVAE(fold_causal_convs(AutoencoderKLWan.from_pretrained(config.vae).eval()))
    control, outline = build_control(config.control), known_outline(config)
    assert isinstance(control, PixelControl), "checked with the configuration"
    rows = tqdm(load_latents([config.clips]), desc="control", mininterval=10)
    for batch in batches(rows, config.batch_size, lambda row: tuple(row["latent_shape"])):
        videos = []
        for row in batch:
            arrays = unpack_tracks(row)
            if config.touch_force < 1:
                arrays = pressed(arrays, config.touch_force, np.random.default_rng(zlib.crc32(row["id"].encode())))
                row |= pack_tracks(arrays)
            scene, shown, keyframes = told(control, vae.vae, row, arrays, outline=outline)
            videos.append(control.paint_clip(shown, scene, keyframes, vae.temporal_factor))
        for row, motion in zip(batch, vae.encode(torch.stack(videos)), strict=True):
            yield {**row, "control": control_text(control), "motion": pack_half(motion)}


def all_rows(config: PrecomputeConfig) -> Iterator[dict[str, Any]]:
    """Rows of the dataset, with tokens where they are asked for."""
    rows = shown_anew(config) if config.clips else encode_rows(config)
    return map(TokenMaker(config.tokens), rows) if config.tokens else rows


def main(config: PrecomputeConfig) -> None:
    """Encode and save; what is saved stays where it cannot be pushed."""
    # In a cache of its own: `datasets` knows a generator by its arguments and would give back the latents of a VAE
    # that lay in the same folder before.
    with tempfile.TemporaryDirectory() as cache:
        options: dict[str, Any] = {"gen_kwargs": {"config": config}, "cache_dir": cache, "writer_batch_size": 32}
        try:
            Dataset.from_generator(all_rows, features=FEATURES, **options).save_to_disk(config.output_dir)
        except DatasetGenerationError as error:
            if isinstance(error.__cause__, ValueError):  # what the user can cause, in its own words
                raise error.__cause__ from None
            raise
    if config.push_to_hub:
        with clear_errors(f"push_to_hub: {config.push_to_hub}", f"; the clips are in {config.output_dir}"):
            load_from_disk(config.output_dir).push_to_hub(config.push_to_hub, private=config.hub_private)


if __name__ == "__main__":
    main(parse_config(PrecomputeConfig))
