"""Encode clips once: video latents, heat-map latents, caption and reference picture, as a `datasets` dataset on disk.

    python -m training.precompute --vae runs/vae/vae --output_dir runs/latents --num_clips 1500 --num_frames 17

Several processes share the work with ``--start``; training takes several folders. With ``--categories occluded`` a
folder holds the clips of the range that are hard in that way; given to training beside the others, they are drawn more
often.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from datasets import Array3D, Array4D, Dataset, Features, Value
from diffusers import AutoencoderKLWan
from tqdm import tqdm

from ardrag.streaming_vae import StreamingVAE, fold_causal_convs
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.sprites import SpriteClip, make_clip
from training.run.config import parse_config


@dataclass
class PrecomputeConfig:
    """What to encode and where to put it."""

    vae: str = field(metadata={"help": "Folder of the trained VAE."})
    output_dir: str = field(metadata={"help": "Folder of the dataset to write."})
    split: str = field(default="train", metadata={"help": "Sprite World split."})
    start: int = field(default=0, metadata={"help": "First clip."})
    num_clips: int = field(default=1500, metadata={"help": "Number of clips, or of those to choose from."})
    categories: list[str] = field(
        default_factory=list,
        metadata={"help": "Keep clips with one of these names (occluded, fast, ...); empty: all."},
    )
    num_frames: int = field(default=17, metadata={"help": "Pixel frames per clip, 4k + 1."})
    coloured_tracks: bool = field(
        default=False,
        metadata={"help": "Each track's heat in a colour of its own, as the pipeline's coloured_tracks."},
    )
    batch_size: int = field(default=4, metadata={"help": "Clips encoded at once."})


def chosen_clips(config: PrecomputeConfig) -> Iterator[SpriteClip]:
    """The clips of the range that have one of the categories."""
    wanted, found = set(config.categories), False
    for index in tqdm(range(config.start, config.start + config.num_clips), desc="encode", mininterval=10):
        clip = make_clip(config.split, index, config.num_frames)
        if not wanted or wanted.intersection(clip.categories):
            found = True
            yield clip
    if not found:
        last = config.start + config.num_clips - 1
        raise ValueError(
            f"categories: none of clips {config.start} to {last} of {config.split} is {' or '.join(sorted(wanted))}; "
            "names are those of SpriteClip.categories, such as occluded, fast, near border"
        )


@torch.no_grad()
def encode_rows(config: PrecomputeConfig) -> Iterator[dict[str, Any]]:
    """Rows of the dataset, clip by clip."""
    vae = StreamingVAE(fold_causal_convs(AutoencoderKLWan.from_pretrained(config.vae).eval()))
    chosen = chosen_clips(config)
    while clips := list(islice(chosen, config.batch_size)):
        height, width = clips[0].frames.shape[1:3]
        video = torch.stack([torch.from_numpy(clip.frames).permute(3, 0, 1, 2) for clip in clips]).float() / 127.5 - 1
        tracks = [clip_tracks(clip) for clip in clips]
        heat = torch.stack([t.control_video(height, width, coloured=config.coloured_tracks) for t in tracks])
        latents, motion = vae.encode(torch.cat([video, heat])).chunk(2)
        for i, clip in enumerate(clips):
            yield {
                "latents": latents[i].numpy(),
                "motion": motion[i].numpy(),
                "reference": clip.frames[0],
                "caption": clip.caption,
            }


def main(config: PrecomputeConfig) -> None:
    """Encode and save."""
    shape = next(encode_rows(replace(config, batch_size=1)))
    latent = Array4D(shape["latents"].shape, "float32")
    picture = Array3D(shape["reference"].shape, "uint8")
    features = Features({"latents": latent, "motion": latent, "reference": picture, "caption": Value("string")})
    # In a cache of its own: `datasets` knows a generator by its arguments and would give back the latents of a VAE
    # that lay in the same folder before.
    with tempfile.TemporaryDirectory() as cache:
        dataset = Dataset.from_generator(
            encode_rows, features=features, gen_kwargs={"config": config}, cache_dir=cache
        )
        dataset.save_to_disk(config.output_dir)


if __name__ == "__main__":
    main(parse_config(PrecomputeConfig))
