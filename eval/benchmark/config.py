"""What a run of the evaluation is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


FEWEST_CLIPS = 3
QUICK_CLIPS = 24
LONG_CLIPS = 40
LONG_FRAMES = 81
SPACES = ("auto", "sprite", "standard")
TRACKERS = ("lucas-kanade", "patch", "cotracker")


class Suffixes(NamedTuple):
    """Endings of names: a number of another network gets another name."""

    distance: str
    aesthetic: str


@dataclass
class EvalConfig:
    """What to evaluate, with what, and where to put it."""

    systems: list[str] = field(
        default_factory=lambda: ["all"],
        metadata={
            "help": "all, name=folder, name=folder@steps, name=videos:folder, truth, still (eval/benchmark/systems.py)"
        },
    )
    suite: str = field(
        default="sprites",
        metadata={
            "help": "sprites, photos, small, crossing, small:OPTIONS, folder:DIR, movebench:LIST, tapvid:FILE, "
            "vipseg:DIR, mcbench:DIR, or counterfactual, counterfactual:SUITE, counterfactual:DIR (many tracks on "
            "one picture)."
        },
    )
    size: str = field(
        default="", metadata={"help": "WIDTHxHEIGHT: brings all cases to one canvas; default: as they are."}
    )
    quick: bool = field(default=False, metadata={"help": f"The first {QUICK_CLIPS} clips, none of them long."})
    num_clips: int | None = field(default=None, metadata={"help": "First clips of the suite; default: all, or quick."})
    num_frames: int = field(default=33, metadata={"help": "Pixel frames per clip at most, 4k + 1."})
    num_long_clips: int | None = field(
        default=None,
        metadata={
            "help": f"Of these, how many causal models make again with {LONG_FRAMES} frames; default {LONG_CLIPS}."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of clip 0; clip i takes seed + i."})
    features: str = field(default="auto", metadata={"help": "sprite, standard (Inception, I3D), auto: by the suite."})
    inception: str | None = field(default=None, metadata={"help": "Weights of pytorch-fid; default: downloaded."})
    i3d: str | None = field(default=None, metadata={"help": "I3D torchscript; default: from the Hub."})
    aesthetic_head: str | None = field(
        default=None, metadata={"help": "Head of LAION's predictor V2; default: the scorer of Sprite World."}
    )
    amt: str | None = field(
        default=None, metadata={"help": "hub, or the file amt-s.pth: adds VBench's motion smoothness."}
    )
    vae: str = field(
        default="", metadata={"help": "Pipeline whose VAE turns all videos into latents: adds the error of these."}
    )
    tracker: str = field(default="lucas-kanade", metadata={"help": "lucas-kanade, patch or cotracker (CC-BY-NC)."})
    workers: int = field(default=2, metadata={"help": "Processes, each with one thread."})
    device: str = field(default="cpu", metadata={"help": "Where models run: cpu, cuda."})
    runs: str = field(default="runs", metadata={"help": "Folder of the run folders that all refers to."})
    title: str = field(default="", metadata={"help": "Headline of the report."})
    output_dir: str = field(default="outputs/eval", metadata={"help": "Folder of finished clips and of the report."})
    report: str = field(default="", metadata={"help": "Path of the report without suffix; default: in output_dir."})
    export_inputs: str = field(
        default="", metadata={"help": "Only write picture, tracks and prompt of every clip into this folder."}
    )

    def __post_init__(self) -> None:
        if self.num_clips is not None and self.num_clips < FEWEST_CLIPS:
            raise ValueError(f"num_clips: {self.num_clips} is too few; distances need at least {FEWEST_CLIPS}")
        if self.num_frames < 5 or self.num_frames % 4 != 1:
            raise ValueError(f"num_frames: {self.num_frames} is not 4k + 1; use 33, or 17 for a quick look")
        if self.workers < 1 or self.seed < 0 or (self.num_long_clips or 0) < 0:
            raise ValueError("workers, seed and num_long_clips: must be at least 1, 0 and 0")
        for name, choices in (("features", SPACES), ("tracker", TRACKERS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: {getattr(self, name)!r} is unknown; use {', '.join(choices)}")

    def clips(self, available: int) -> int:
        """How many clips are evaluated of a suite of ``available``.

        Raises:
            ValueError: if the suite has fewer than asked for, or fewer than three.
        """
        wanted = self.num_clips or (min(QUICK_CLIPS, available) if self.quick else available)
        if not FEWEST_CLIPS <= wanted <= available:
            raise ValueError(
                f"num_clips: {wanted} of a suite that has {available}; at least {FEWEST_CLIPS} must be there"
            )
        return wanted

    def space(self, suite: str) -> str:
        """Feature space of the distances: ``sprite`` or ``standard``."""
        own = "sprite" if suite in ("sprites", "photos", "small", "crossing") else "standard"
        return own if self.features == "auto" else self.features

    def suffixes(self, suite: str) -> Suffixes:
        """What is added to the names of metrics whose network is one of Sprite World."""
        return Suffixes(
            distance="-sprite" if self.space(suite) == "sprite" else "",
            aesthetic="-sprite" if self.aesthetic_head is None else "",
        )

    @property
    def long_clips(self) -> int:
        """How many clips are also made long."""
        return (0 if self.quick else LONG_CLIPS) if self.num_long_clips is None else self.num_long_clips
