"""From raw videos to clips with tracks (AR-Drag appendix B.1).

    python -m training.curate VIDEOS --output_dir runs/curated --num_workers 8
    python -m training.curate --output_dir runs/curated --review decisions.json

VIDEOS are folders, files, `.txt` lists or names of Hub datasets. Every shot becomes clips of the pipeline's sizes and
rate, every clip gets tracks, and what breaks a rule is dropped, with the rule beside its name. Running the command
again goes on where it was stopped, also after more videos were added. ``review.html`` in the folder shows what was
kept and dropped; what it saves is applied with ``--review``. `training.precompute --data` encodes the folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.curate import store
from training.curate.engine import run_tasks
from training.curate.record import Curator, Recipe, Surveyor
from training.curate.review import apply_review, write_page
from training.curate.score import Rules
from training.curate.sources import Source, find_sources
from training.run.config import parse_config


logger = logging.getLogger(__name__)
NEGATIVE_PROMPT = (
    "Overly vivid colors, overexposed, static, blurry details, subtitles, style, artwork, frame, still, overall "
    "grayish, worst quality, low quality, JPEG compression artifacts, ugly, incomplete, extra fingers, poorly drawn "
    "hands, poorly drawn faces, deformed, disfigured, malformed limbs, fused fingers, motionless frame, cluttered "
    "background, three legs, many people in the background, walking upside down."
)
"""The template of appendix B.1, one for all videos."""


@dataclass
class CurateConfig:
    """What to curate, how, and where to put it."""

    output_dir: str = field(metadata={"help": "Folder of the curated dataset."})
    videos: list[str] = field(
        default_factory=list, metadata={"help": "Folders, files, .txt lists or Hub datasets; may come first, unnamed."}
    )
    captions: str = field(default="", metadata={"help": "csv, json or jsonl of file names and captions."})
    buckets: list[str] = field(
        default_factory=lambda: ["480x368", "400x400", "368x480", "640x368", "368x640"],
        metadata={"help": "WIDTHxHEIGHT of the clips (B.1), multiples of 16; the nearest in aspect is taken."},
    )
    fps: float = field(default=16.0, metadata={"help": "Frames a second; slower videos keep their own rate."})
    num_frames: list[int] = field(
        default_factory=lambda: [81, 49, 33, 17], metadata={"help": "Lengths of clips, 4k + 1; the longest that fits."}
    )
    detector: str = field(default="content", metadata={"help": "Cuts: content (PySceneDetect) or transnet."})
    tracker: str = field(
        default="lucas_kanade", metadata={"help": "lucas_kanade, patch, cotracker, cotracker_online."}
    )
    tracker_checkpoint: str = field(default="", metadata={"help": "Local weights of CoTracker."})
    objects: int = field(default=4, metadata={"help": "At most so many tracks of things that move."})
    background: int = field(default=2, metadata={"help": "At most so many tracks of the background."})
    min_motion: float = field(default=0.03, metadata={"help": "Way of a moving point, share of the diagonal."})
    min_visible: float = field(default=0.3, metadata={"help": "Share of points that must be seen at the end."})
    max_jump: float = field(default=0.5, metadata={"help": "Share of points lost at once that means a missed cut."})
    max_frozen: float = field(default=0.25, metadata={"help": "Share of frames that may repeat the one before."})
    min_sharpness: float = field(default=4.0, metadata={"help": "Grey levels of the strongest fine detail."})
    num_workers: int = field(default=1, metadata={"help": "Processes, or actors on Ray."})
    ray: bool = field(default=False, metadata={"help": "Run on a Ray cluster; output_dir must be shared."})
    shard_rows: int = field(default=256, metadata={"help": "Clips per parquet file."})
    review: str = field(default="", metadata={"help": "JSON that review.html saved: apply it."})

    def __post_init__(self) -> None:
        wrong = [length for length in self.num_frames if length < 5 or length % 4 != 1]
        if wrong or not self.num_frames:
            raise ValueError(f"num_frames: {wrong or 'none'} is not of the form 4k + 1 with k >= 1; try 17 33 49 81")
        if self.fps <= 0 or self.num_workers < 1 or self.shard_rows < 1:
            raise ValueError("fps, num_workers, shard_rows: must be above 0, at least 1, at least 1")
        self.recipe()

    def recipe(self) -> Recipe:
        """What of this decides about clips."""
        limits = ("min_motion", "min_visible", "max_jump", "max_frozen", "min_sharpness")
        return Recipe(
            fps=self.fps,
            num_frames=tuple(sorted(set(self.num_frames))),
            buckets=tuple(parse_bucket(text) for text in self.buckets),
            detector=self.detector,
            tracker=self.tracker,
            tracker_checkpoint=self.tracker_checkpoint,
            objects=self.objects,
            background=self.background,
            rules=Rules(**{name: vars(self)[name] for name in limits}),
        )


def parse_bucket(text: str) -> tuple[int, int]:
    """``(height, width)`` of ``WIDTHxHEIGHT``.

    Raises:
        ValueError: if it is no such size, or no multiple of 16.
    """
    width, _, height = text.partition("x")
    if (
        not (width.isdigit() and height.isdigit() and int(width) and int(height))
        or int(width) % 16
        or int(height) % 16
    ):
        raise ValueError(f"buckets: {text!r} is not WIDTHxHEIGHT in multiples of 16, such as 480x368")
    return int(height), int(width)


def code_version() -> str:
    """Hash of the sources of this folder: clips of different versions are told apart in the manifest."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def source_task(source: Source) -> dict[str, Any]:
    """The task of a video; ``key`` changes when the file does."""
    path = source.path.resolve()
    state = path.stat()
    key = hashlib.sha256(f"{path} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]
    return {"path": str(path), "name": source.name, "caption": source.caption, "key": key}


def clip_tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """The clips of all plans, by name; of files with the same content one."""
    tasks = {}
    for file in sorted((folder / "plans").glob("*.json")):
        plan = json.loads(file.read_text())
        told = {name: plan[name] for name in ("path", "source", "sha256", "caption")}
        tasks.update({clip["id"]: {**told, **clip} for clip in plan["clips"] if clip["id"] not in tasks})
    return tasks


def curate(config: CurateConfig, folder: Path) -> None:
    """Survey what has no plan yet, curate what has no row yet, gather the rows."""
    recipe, began = config.recipe(), time.monotonic()
    store.begin(folder, json.loads(json.dumps(asdict(recipe) | {"negative_prompt": NEGATIVE_PROMPT})), code_version())
    videos = [source_task(source) for source in find_sources(config.videos, config.captions, folder / "downloads")]
    new = [task for task in videos if not (folder / "plans" / f"{task['key']}.json").exists()]
    given, options = (str(folder), recipe), (config.num_workers, config.ray)
    found, spent = Counter[str](), Counter[str]()
    for answer in tqdm(run_tasks(Surveyor, given, new, *options), total=len(new), desc="survey", mininterval=5):
        spent.update(answer["seconds"])
    tasks, finished = clip_tasks(folder), store.done(folder)
    todo = [task for name, task in sorted(tasks.items()) if name not in finished]
    for answer in tqdm(run_tasks(Curator, given, todo, *options), total=len(todo), desc="curate", mininterval=5):
        found[answer["drop"] or "kept"] += 1
        spent.update(answer["seconds"])
    store.gather_parts(folder, config.shard_rows)
    cost = store.add_cost(folder, len(todo), spent)
    logger.info("%d clips in %.0f s: %s", len(todo), time.monotonic() - began, dict(found))
    logger.info("clips per minute and core: %s", pace(cost["clips"], cost["seconds"]))


def pace(clips: int, seconds: Mapping[str, float]) -> str:
    """Clips per minute and core of each part of the work and of all of it, the slowest first."""
    spent = {"all": sum(seconds.values()), **dict(sorted(seconds.items(), key=lambda item: -item[1]))}
    return ", ".join(f"{part} {60 * clips / taken:.0f}" for part, taken in spent.items() if taken >= 0.001)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 after one line about what the user can put right."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    given = list(sys.argv[1:] if arguments is None else arguments)
    unnamed = next((place for place, word in enumerate(given) if word.startswith("--")), len(given))
    try:
        config = parse_config(CurateConfig, ["--videos", *given[:unnamed], *given[unnamed:]] if unnamed else given)
        folder = Path(config.output_dir)
        with store.locked(folder):
            if config.review:
                apply_review(folder, Path(config.review))
            else:
                curate(config, folder)
            manifest = store.summarise(folder)
            write_page(folder)
    except (ValueError, OSError, RuntimeError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"{manifest['kept']} clips kept, dropped {manifest['dropped'] or 'none'}; look at {folder / 'review.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
