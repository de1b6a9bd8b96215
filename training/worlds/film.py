"""A world as videos: files that say nothing of their tracks, for what starts from videos (`training.curate`).

    python -m training.worlds.film --world small --output_dir runs/films --num_clips 400

Writes ``train-0.mp4``, ``train-1.mp4`` and so on, named as `training.precompute` names the same clips, with the
caption in a ``.txt`` beside each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ardrag.worlds.open import open_world
from pipelines.video import write_video
from training.run.config import parse_config


FPS = 16.0


@dataclass
class FilmConfig:
    """What to film and where to put it."""

    output_dir: str = field(metadata={"help": "Folder of the videos."})
    world: str = field(default="small", metadata={"help": "sprites, photos (Photo World), or small:OPTIONS."})
    split: str = field(default="train", metadata={"help": "Split of the world."})
    start: int = field(default=0, metadata={"help": "First clip."})
    num_clips: int = field(default=400, metadata={"help": "Number of clips."})
    num_frames: int = field(default=25, metadata={"help": "Pixel frames per clip."})
    height: int = field(default=64, metadata={"help": "Pixels of the world's pictures."})
    width: int = field(default=64, metadata={"help": "Pixels of the world's pictures."})
    fps: float = field(default=FPS, metadata={"help": "Frames a second that the files claim."})

    def __post_init__(self) -> None:
        open_world(self.world)  # checks it
        if self.fps <= 0:
            raise ValueError(f"fps: {self.fps} is no rate; use {FPS:g}")


def main(config: FilmConfig) -> None:
    """Film the clips; what is there is filmed again."""
    make, folder = open_world(config.world).make, Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(config.start, config.start + config.num_clips), desc="film", mininterval=10):
        clip = make(config.split, index, config.num_frames, config.height, config.width)
        target = folder / f"{config.split}-{index}.mp4"
        target.with_suffix(".txt").write_text(clip.caption)
        write_video(list(clip.frames), target, config.fps)


if __name__ == "__main__":
    main(parse_config(FilmConfig))
