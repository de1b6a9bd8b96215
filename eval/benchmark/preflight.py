"""Everything that can be known to be wrong before the first clip is made.

A wrong input as a whole (a folder that is not there, files of another size, too few of them) stops the run with an
error that names it. A few broken files among many are told at once, left out, and listed in the report.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from eval.benchmark.config import FEWEST_CLIPS
from eval.benchmark.systems import System, source_folder
from eval.benchmark.videos import Probe, probe
from eval.suites.case import Case, Suite, first_readable
from pipelines.image_input import nearest_bucket


logger = logging.getLogger(__name__)
TOLERATED_SHARE = 0.05
"""Share of broken clips (and always one) that does not stop a run."""
SHOWN = 5


def check_systems(
    systems: Sequence[System], suite: Suite, indices: Sequence[int], num_frames: int
) -> dict[str, dict[int, str]]:
    """Check that every model is there and every video can be read and fits its case.

    Returns:
        By system, what is wrong with single files, by clip; these will be left out.

    Raises:
        ValueError: naming the system, the files and the remedy.
    """
    broken: dict[str, dict[int, str]] = {system.name: {} for system in systems}
    sizes: dict[str, tuple[int, int]] = {}
    for system in systems:
        folder = source_folder(system)
        if system.kind == "videos":
            assert folder is not None
            broken[system.name], sizes[system.name] = _check_videos(system, folder, suite, indices, num_frames)
            for problem in broken[system.name].values():
                logger.warning("%s: %s; this clip is left out", system.name, problem)
    _check_canvas(systems, first_readable(suite, indices, num_frames), sizes)
    return broken


def _check_canvas(systems: Sequence[System], case: Case, sizes: dict[str, tuple[int, int]]) -> None:
    """Raises ValueError if the systems would be measured in different pixels."""
    height, width = case.picture.shape[:2]
    canvases: dict[str, tuple[int, int]] = {}
    for system in systems:
        canvases[system.name] = sizes.get(system.name, (height, width))
        if system.is_model:
            folder = source_folder(system)
            assert folder is not None
            index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
            canvases[system.name] = nearest_bucket(width, height, index["buckets"])
    if len(set(canvases.values())) > 1:
        listed = ", ".join(f"{name} {wide}x{high}" for name, (high, wide) in canvases.items())
        raise ValueError(
            f"systems: their pictures have different sizes ({listed}), and errors are in pixels; bring videos to one "
            "size and add --size WIDTHxHEIGHT"
        )


def _check_videos(
    system: System, folder: Path, suite: Suite, indices: Sequence[int], num_frames: int
) -> tuple[dict[int, str], tuple[int, int]]:
    """What is wrong with single files, by clip, and the size of most files."""
    if not folder.is_dir():
        raise ValueError(f"systems: {system.name}: {folder} is no folder")
    names, found, problems = suite.names(), dict[int, Probe](), dict[int, str]()
    for index in indices:
        try:
            found[index] = probe(folder / f"{names[index]}.mp4")
        except ValueError as error:
            problems[index] = str(error)
    sizes = Counter((file.height, file.width) for file in found.values())
    height, width = sizes.most_common(1)[0][0] if sizes else (0, 0)
    if suite.name == "sprites" and found:
        wanted = suite.case(indices[0], num_frames).picture.shape
        if (height, width) != wanted[:2]:
            raise ValueError(
                f"systems: {system.name}: videos of {width}x{height} pixels; the suite has {wanted[1]}x{wanted[0]}"
            )
    for index, file in found.items():
        name = f"{names[index]}.mp4"
        if (file.height, file.width) != (height, width):
            problems[index] = f"{name} has {file.width}x{file.height} pixels, most others {width}x{height}"
        elif suite.name == "sprites" and file.frames < num_frames:
            problems[index] = f"{name} has {file.frames} frames, the clip has {num_frames}"
    _refuse_many(system, problems, len(indices))
    return problems, (height, width)


def _refuse_many(system: System, problems: dict[int, str], count: int) -> None:
    """Raises ValueError if more than single files are wrong, or too few are left."""
    if len(problems) > max(1, int(TOLERATED_SHARE * count)) or count - len(problems) < FEWEST_CLIPS:
        listed = list(problems.values())
        more = f"; and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
        told = "; ".join(listed[:SHOWN])
        raise ValueError(f"systems: {system.name}: {len(listed)} of {count} clips cannot be used: {told}{more}")
