"""The Space's benchmark on a real server with the small random pipeline, and its arithmetic."""

import pytest

from app_assets.server import Limits
from eval import app_latency
from eval.app_latency import Live, Page, clip_frames, markdown, measure, summary, together


@pytest.mark.slow
def test_a_running_server_is_measured(run_space):
    running = run_space(seats=4)
    results = measure(running.url, rounds=1, visitors=[2, 3], seconds=0.5)
    for found in (results["one"], *results["many"]):
        assert found["press_ms"] > 0 and 0 < found["live_fps"] <= 17 and found["lag_frames"] >= 0
    assert results["clip_fps"] > 0 and [found["visitors"] for found in results["many"]] == [2, 3]
    assert not running.space.lobby.queued
    page = markdown({**results, "record": app_latency.run_record("eval.app_latency", []), "model": "a/b"})
    assert (
        "| press to first moved frame, median |" in page
        and "| | one visitor | 2 at once | 3 at once |" in page
        and "`a/b`" in page
        and "commit:" in page
    )


def test_what_the_server_refuses_stops_the_run(run_space):
    page = Page(run_space().url)
    page.say(type="start", picture="nobody's", prompt="", seed=0, steps=1, num_frames=5, tracks=None, paced=True)
    with pytest.raises(RuntimeError, match="picture: "):
        page.wait("started")
    page.close()


def test_summary_takes_medians_and_counts_what_came_late():
    found = summary([Live(100, 16, 0, 1.0, [2, 4]), Live(300, 8, 4, 1.0, [6]), Live(200, 12, 2, 1.0, [4])])
    assert found == {"press_ms": 200, "press_ms_worst": 300, "live_fps": 12, "lag_frames": 4, "late_frames": 6 / 36}


def test_a_visitor_who_fails_is_not_left_out():
    with pytest.raises(RuntimeError, match="not served"):
        together(2, lambda i: None if i else 1)


@pytest.mark.slow
def test_app_that_does_not_start_is_named(tmp_path):
    with (
        pytest.raises(ValueError, match="model: the Space did not start"),
        app_latency.running_app(str(tmp_path / "nothing")),
    ):
        pass


@pytest.mark.parametrize("shown", [0.5, 64, 240])
def test_a_clip_is_longer_than_what_is_seen_of_it_and_no_longer_than_allowed(shown):
    frames = clip_frames(shown)
    assert frames % 4 == 1 and shown + 4 < frames <= Limits().max_frames
