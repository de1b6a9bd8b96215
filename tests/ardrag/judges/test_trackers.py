"""Trackers by name: every name gives its tracker, every other one is an error that lists them."""

import pytest

from ardrag.judges.patch_tracking import PatchTracker
from ardrag.judges.trackers import build_tracker
from ardrag.judges.tracking import LucasKanadeTracker


@pytest.mark.parametrize(("name", "kind"), [("patch", PatchTracker), ("lucas_kanade", LucasKanadeTracker)])
def test_names(name, kind):
    assert isinstance(build_tracker(name), kind)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="tracker: 'eyes' is unknown; use patch, lucas_kanade, cotracker"):
        build_tracker("eyes")
