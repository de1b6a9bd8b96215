"""Systems: the rows of every table. How they are named, and how each makes a clip.

| text | what it is |
|---|---|
| `name=folder` | a causal checkpoint as it is saved |
| `name=folder@24` | the same weights as a bidirectional model, the whole clip at once in 24 steps |
| `name=videos:folder` or `videos:folder` | anybody's outputs: `<clip>.mp4` for each clip of the suite |
| `name=shuffled:folder` | a causal checkpoint driven by another clip's tracks: the control that ignores the path |
| `name=vae:folder` | the true video through the checkpoint's VAE: its ceiling |
| `truth`, `still` | the true video; its first frame, repeated |
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ardrag.streaming_vae import StreamingVAE
from eval.benchmark.videos import read_video
from eval.metrics.latents import encoded
from eval.model import BUNDLED_NAME, load_pipeline, model_folder
from eval.suites.case import Case, Pixels, Suite, fit_case
from pipelines import ARDragPipeline
from pipelines.bidirectional import generate_bidirectional
from pipelines.video import to_frames


DONOR_SEED = 206
REFERENCES = ("shuffled", "vae", "truth", "still")
"""Rows that bound the others: nothing competes with them."""
MODEL_KINDS = ("causal", "bidirectional", "shuffled", "vae")
AR_ROWS = {
    "AR-Drag": BUNDLED_NAME,
    "w/o RL": "{runs}/ardrag/pipeline",
    "w/o Self-Rollout": "{runs}/wosr/pipeline",
    "Self-Forcing": "{runs}/sf/pipeline",
    "initial model": "{runs}/student/pipeline",
    "teacher model": "{runs}/teacher/pipeline@24",
}
"""What ``all`` means of the paper's Tables 1 and 2: name of the row and its checkpoint."""
REFERENCE_ROWS = {
    "tracks of another clip": f"shuffled:{BUNDLED_NAME}",
    "still picture": "still",
    "VAE": f"vae:{BUNDLED_NAME}",
    "truth": "truth",
}
RIVALS = ("DragNUWA", "DragAnything", "Tora", "MagicMotion")
"""Rows of Table 1 that this repository has no model for."""


@dataclass(frozen=True)
class System:
    """One row: a name, what kind of thing it is, the folder it comes from, and steps of a bidirectional run."""

    name: str
    kind: str
    source: str = ""
    steps: int | None = None

    @classmethod
    def parse(cls, text: str) -> System:
        """Read one of the forms above.

        Raises:
            ValueError: naming what is wrong.
        """
        name, equals, rest = text.partition("=")
        if not equals or ":" in name:  # no name, but perhaps a folder with = in it
            name, rest = "", text
        elif not name:
            raise ValueError(f"systems: {text!r} has no name before the =")
        if rest in ("truth", "still"):
            return cls(name or rest, rest)
        kind, _, source = rest.partition(":")
        if kind in ("videos", "shuffled", "vae"):
            if not source:
                raise ValueError(f"systems: {text!r} names no folder after {kind}:")
            return cls(name or Path(source).name, kind, source)
        source, at, steps = rest.partition("@")
        if not (name and source) or (at and not re.fullmatch(r"[1-9]\d*", steps)):
            raise ValueError(
                f"systems: {text!r} is not name=folder, name=folder@steps, name=videos:folder, truth or still"
            )
        return cls(name, "bidirectional" if at else "causal", source, int(steps) if at else None)

    @property
    def is_model(self) -> bool:
        """Whether a pipeline must be loaded for it."""
        return self.kind in MODEL_KINDS


def expand(texts: list[str], runs: str) -> tuple[list[System], list[str]]:
    """Systems of a command line, and the names of rows that ``all`` would have and whose checkpoint is not there.

    Raises:
        ValueError: if there is none, two have one name, or a text cannot be read.
    """
    systems, absent = list[System](), list[str]()
    for text in texts:
        if text != "all":
            systems.append(System.parse(text))
            continue
        for name, source in {**AR_ROWS, **REFERENCE_ROWS}.items():
            system = System.parse(f"{name}={source.format(runs=runs)}")
            if system.is_model and system.source != BUNDLED_NAME and not Path(system.source).is_dir():
                absent.append(name)
            else:
                systems.append(system)
        absent.extend(RIVALS)
    names = [system.name for system in systems]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"systems: {names} must be one or more different names")
    return systems, absent


class Made(NamedTuple):
    """A clip: the case on the canvas of the video, the video, and how long it took.

    ``frames`` is uint8 ``[T, H, W, 3]``; the seconds are until the first generated pixels and until all of them, None
    where nothing is generated.
    """

    case: Case
    frames: Pixels
    first_seconds: float | None = None
    seconds: float | None = None


Maker = Callable[[Case, int], Made]


def maker_of(system: System, suite: Suite, device: str = "cpu") -> Maker:
    """A function that makes a case's clip with a seed. Loads the model, if there is one."""
    if system.kind == "truth":
        return lambda case, seed: Made(case, _truth(case))
    if system.kind == "still":
        return lambda case, seed: Made(case, np.repeat(case.picture[None], case.num_frames, axis=0))
    if system.kind == "videos":
        return lambda case, seed: _given(Path(system.source), case)
    pipeline = load_pipeline(system.source, device)
    if system.kind == "vae":
        return lambda case, seed: _reconstructed(pipeline, case)
    if system.kind == "bidirectional":
        return lambda case, seed: _at_once(pipeline, case, system.steps, seed)
    if system.kind == "shuffled":
        return lambda case, seed: _streamed(
            pipeline, case, seed, suite.case(donor_of(case.index, suite), case.num_frames)
        )
    return lambda case, seed: _streamed(pipeline, case, seed, case)


def donor_of(index: int, suite: Suite) -> int:
    """The clip whose tracks drive clip ``index`` in the control: a fixed cycle through all clips, never itself."""
    order = np.random.default_rng(DONOR_SEED).permutation(len(suite))
    place = int(np.flatnonzero(order == index)[0])
    return int(order[(place + 1) % len(suite)])


def _truth(case: Case) -> Pixels:
    if case.truth is None:
        raise ValueError(f"{case.name}: this suite has no true video of it")
    return case.truth[: case.num_frames]


def _given(folder: Path, case: Case) -> Made:
    """A video of any size shows the part of the picture that ours would show at that size."""
    path = folder / f"{case.name}.mp4"
    frames = read_video(path)
    if len(frames) < case.num_frames:
        raise ValueError(f"{path}: {len(frames)} frames; this clip needs {case.num_frames}")
    return Made(fit_case(case, *frames.shape[1:3]), frames[: case.num_frames])


def _fitted(pipeline: ARDragPipeline, case: Case) -> Case:
    return fit_case(case, *pipeline.size_for(Image.fromarray(case.picture), None, None))


def _reconstructed(pipeline: ARDragPipeline, case: Case) -> Made:
    fitted = _fitted(pipeline, case)
    return Made(fitted, reconstruct(pipeline, _truth(fitted)))


@torch.no_grad()
def reconstruct(pipeline: ARDragPipeline, frames: Pixels) -> Pixels:
    """Frames ``[T, H, W, 3]`` through the VAE and back: what no model on these latents can beat."""
    return to_frames(StreamingVAE(pipeline.vae).decode(encoded(pipeline.vae, frames))[0])


def _at_once(pipeline: ARDragPipeline, case: Case, steps: int | None, seed: int) -> Made:
    """A bidirectional run shows its first frame when it is done."""
    case = _fitted(pipeline, case)
    picture = Image.fromarray(case.picture)
    started = time.perf_counter()
    frames = generate_bidirectional(pipeline, picture, case.prompt, case.tracks, case.num_frames, steps, seed)
    seconds = time.perf_counter() - started
    return Made(case, frames, seconds, seconds)


def _streamed(pipeline: ARDragPipeline, case: Case, seed: int, driver: Case) -> Made:
    """A causal run with the tracks of ``driver``; its first frame is the end of the first latent that is generated."""
    case, driver = _fitted(pipeline, case), _fitted(pipeline, driver)
    picture, made, first = Image.fromarray(case.picture), list[Pixels](), None
    started = time.perf_counter()
    parts = pipeline.stream(picture, case.prompt, tracks=driver.tracks, num_frames=case.num_frames, seed=seed)
    for part in parts:
        made.extend(part)
        if first is None and len(made) > 1:
            first = time.perf_counter() - started
    return Made(case, np.stack(made), first, time.perf_counter() - started)


def source_folder(system: System) -> Path | None:
    """Local files that the system's clips depend on, None if there are none.

    Raises:
        ValueError, OSError: if they cannot be had.
    """
    if system.is_model:
        return model_folder(system.source)
    return Path(system.source) if system.kind == "videos" else None
