"""Everything that can be known to be wrong before the first clip is made.

A wrong input as a whole (a folder that is not there, files of another size, too few of them) stops the run with an
error that names it. A few broken files among many are told at once, left out, and listed in the report.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from eval.suites.case import Suite
from eval.systems import System, source_folder
from eval.videos import Probe, probe


logger = logging.getLogger(__name__)
TOLERATED_SHARE = 0.05
"""Share of broken clips (and always one) that does not stop a run."""
SHOWN = 5


def check_systems(
    systems: Sequence[System], suite: Suite, indices: Sequence[int], num_frames: int
) -> dict[str, list[str]]:
    """Check that every model is there and every video can be read and fits its case.

    Returns:
        By system, what is wrong with single files; these clips will be skipped.

    Raises:
        ValueError: naming the system, the files and the remedy.
    """
    broken: dict[str, list[str]] = {}
    for system in systems:
        folder = source_folder(system)
        if system.kind == "videos":
            assert folder is not None
            broken[system.name] = _check_videos(system, folder, suite, indices, num_frames)
            for problem in broken[system.name]:
                logger.warning("%s: %s; this clip is left out", system.name, problem)
    return broken


def _check_videos(system: System, folder: Path, suite: Suite, indices: Sequence[int], num_frames: int) -> list[str]:
    if not folder.is_dir():
        raise ValueError(f"systems: {system.name}: {folder} is no folder")
    names = suite.names()
    found: dict[str, Probe] = {}
    problems: list[str] = []
    for index in indices:
        path = folder / f"{names[index]}.mp4"
        try:
            found[path.name] = probe(path)
        except ValueError as error:
            problems.append(str(error))
    if found:
        wanted = suite.case(indices[0], num_frames)
        usual = Counter((file.height, file.width) for file in found.values()).most_common(1)[0][0]
        if suite.name == "sprites" and usual != wanted.picture.shape[:2]:
            height, width = wanted.picture.shape[:2]
            raise ValueError(
                f"systems: {system.name}: videos of {usual[1]}x{usual[0]} pixels; the suite has {width}x{height}"
            )
        for name, file in found.items():
            if (file.height, file.width) != usual:
                problems.append(f"{name} has {file.width}x{file.height} pixels, most others {usual[1]}x{usual[0]}")
            elif file.frames < wanted.num_frames:
                problems.append(f"{name} has {file.frames} frames, the clip has {wanted.num_frames}")
    tolerated = max(1, int(TOLERATED_SHARE * len(indices)))
    if len(problems) > tolerated or len(problems) > len(indices) - 2:
        listed = "; ".join(problems[:SHOWN]) + (f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else "")
        raise ValueError(f"systems: {system.name}: {len(problems)} of {len(indices)} clips cannot be used: {listed}")
    return problems
