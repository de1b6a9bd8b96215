"""The crowd on a real server with the small random pipeline, and the arithmetic of its page."""

import os

import pytest

from eval import app_load
from eval.app_latency import App, Live
from eval.app_load import Crowd, fairness, growth, markdown, measure, run_record, summary


@pytest.mark.slow
def test_a_crowd_is_let_in_and_leaves_nothing(run_space, tmp_path, monkeypatch):
    for name, value in (("TAKE_SECONDS", 0.5), ("STALL_SECONDS", 0.5), ("SEATS", 4)):
        monkeypatch.setattr(app_load, name, value)
    running = run_space(seats=4, waiting=16)
    results = measure(App(running.url + "/", os.getpid()), tmp_path, visitors=2, minutes=0.02)
    assert all(one["takes"] and not one["broken"] for one in results["visitors"]), results["visitors"]
    assert results["free_seats"] == 4 and results["memory_mib"][0] > 0
    others = results["others"]
    assert set(others["asks too much"]) == {"refused"} and set(others["vanishes"]) == {"gone"}
    assert others["floods"] and others["stalls"]
    page = markdown({**results, "left": 0, "record": run_record("eval.app_load", [])})
    assert "| seats free afterwards | 4 of 4 |" in page and "commit:" in page


def test_shares_and_growth_are_those_of_the_worst():
    visitors = [summary([Live(100, 30, 0, 2.0), "cut off"]), summary([Live(300, 20, 0, 2.0), Live(100, 20, 0, 2.0)])]
    assert [one["fps"] for one in visitors] == [15, 10] and visitors[0]["broken"] == ["cut off"]
    assert visitors[1]["press_ms"] == 200 and fairness(visitors) == 1.5
    assert growth([500, 600, 610, 590]) == 10 and growth([500, 600, 590]) == -10 and growth([500]) == 0


def test_a_visitor_who_gets_nothing_is_named():
    with pytest.raises(RuntimeError, match="visitor 2 saw no take to its end: .'cut off'"):
        fairness([summary([Live(100, 30, 0, 2.0)]), summary(["cut off"])])


def test_what_breaks_is_counted_and_the_crowd_goes_on():
    crowd, acts = Crowd(30), []

    def act():
        acts.append(1)
        if len(acts) == 2:
            crowd.end = 0
        raise OSError("cut off")

    crowd.join("one", act)
    crowd.wait(lambda: None)
    assert crowd.did == {"one": ["cut off", "cut off"]}
