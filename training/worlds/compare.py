"""How true curated tracks are where the truth is known: films of a world, curated blind, beside its own tracks.

    python -m training.worlds.compare --curated runs/clips_curated --truth runs/clips_true --output_dir runs/clips_same

Both are folders of `training.precompute`, of the films of `training.worlds.film` and of the world itself. Prints what
was found; ``--output_dir`` takes the true rows of the clips that were kept, so that a model can be trained on the very
same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.curate.score import Rules
from training.run.clips import unpack_tracks
from training.run.config import parse_config
from training.run.data import load_latents


Floats = npt.NDArray[np.float32]
FOLLOWED = 1.5
"""Pixels by which a track may be off on average and still follow a thing."""


@dataclass
class CompareConfig:
    """What to compare."""

    curated: str = field(metadata={"help": "Encoded clips of films, with curated tracks."})
    truth: str = field(metadata={"help": "Encoded clips of the world that was filmed."})
    output_dir: str = field(default="", metadata={"help": "Folder for the true rows of the kept clips."})


@dataclass(frozen=True)
class Comparison:
    """Of one or more clips. ``errors`` are those of the tracks that move, in pixels, each to what it follows best."""

    clips: int
    things: int
    followed: int
    still_tracks: int
    errors: tuple[float, ...]

    def told(self) -> dict[str, float]:
        """In numbers."""
        off = np.array(self.errors or [np.nan])
        return {
            "clips": self.clips,
            "things that move": self.things,
            "of them followed": self.followed,
            "tracks that move": len(self.errors),
            "median error, px": round(float(np.median(off)), 2),
            "mean error, px": round(float(off.mean()), 2),
            f"off by more than {FOLLOWED} px": int((off > FOLLOWED).sum()),
            "tracks that stand still": self.still_tracks,
        }


def ways(row: Mapping[str, Any]) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """How far each track has gone, pixels ``[T, P, 2]``; where it is seen, ``[T, P]``; which move at all, ``[P]``."""
    arrays, size = unpack_tracks(row), np.array([row["width"], row["height"]], np.float32)
    way = (arrays.xy - arrays.xy[:1]) * size
    length = np.where(arrays.visible, np.linalg.norm(way, axis=2), 0).max(0, initial=0)
    return way, arrays.visible, length >= Rules().min_motion * float(np.hypot(*size))


def compare(curated: Mapping[str, Any], truth: Mapping[str, Any]) -> Comparison:
    """Compare the tracks of one clip: ways, as a thing may be held anywhere."""
    (found, seen, moves), (true, _, moved) = ways(curated), ways(truth)
    things = true[:, moved]
    apart = np.linalg.norm(found[:, moves, None] - things[:, None], axis=3)  # [T, tracks, things]
    weights = seen[:, moves, None] / np.maximum(seen[:, moves].sum(0), 1)[:, None]
    errors = (apart * weights).sum(0)
    followed = int((errors.min(0, initial=np.inf) <= FOLLOWED).sum())
    off = errors.min(1, initial=np.inf)  # of a clip where nothing moves: without end
    return Comparison(1, things.shape[1], followed, int((~moves).sum()), tuple(off.tolist()))


def joined(parts: list[Comparison]) -> Comparison:
    """Several clips as one."""
    return Comparison(
        clips=sum(part.clips for part in parts),
        things=sum(part.things for part in parts),
        followed=sum(part.followed for part in parts),
        still_tracks=sum(part.still_tracks for part in parts),
        errors=tuple(error for part in parts for error in part.errors),
    )


def main(config: CompareConfig) -> dict[str, float]:
    """Compare all clips that both have; returns what is printed.

    Raises:
        ValueError: if a curated clip is none of the world's, or not as long as there.
    """
    curated, truth = load_latents([config.curated]), load_latents([config.truth])
    places = {name: place for place, name in enumerate(truth["id"])}
    names = [Path(source).stem for source in curated["source"]]
    strange = [name for name in names if name not in places]
    if strange:
        raise ValueError(f"truth: {config.truth} has no clip {strange[0]}; encode the clips that were filmed")
    same = truth.select([places[name] for name in names])
    if list(curated["frames"]) != list(same["frames"]):
        raise ValueError("truth: clips of both must have equally many frames; film and encode as many")
    told = joined([compare(ours, theirs) for ours, theirs in zip(curated, same, strict=True)]).told()
    if config.output_dir:
        same.save_to_disk(config.output_dir)
    print(json.dumps(told, indent=1))
    return told


if __name__ == "__main__":
    main(parse_config(CompareConfig))
