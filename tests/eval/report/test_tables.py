"""Cells and tables: what stands where, and the paper's numbers apart."""

import pytest

from eval.benchmark.config import EvalConfig, Suffixes
from eval.benchmark.systems import System
from eval.report.columns import METRICS
from eval.report.paper import PAPER, TABLE_1, TABLE_2, paper_row
from eval.report.tables import (
    beside_the_paper,
    category_table,
    cell,
    curve_table,
    definitions,
    difference_table,
    main_table,
    metric_table,
    origin_table,
    speed_table,
)


SPRITE = Suffixes("-sprite", "-sprite")


def interval(mean):
    return {"mean": mean, "low": mean - 0.5, "high": mean + 0.5, "clips": 4}


def system(error):
    values = dict.fromkeys((metric.key for metric in METRICS), None)
    values |= {"path_error": interval(error), "aesthetic": interval(6.0), "consistency_template": interval(4.0)}
    values |= {"midpoint_smoothness": interval(0.99)}
    return {
        "values": values,
        "distances": {"fid": interval(1.0), "kid": interval(0.1), "fvd": interval(2.0), "kvd": None},
        "differences": dict.fromkeys((metric.key for metric in METRICS), None)
        | {"path_error": interval(1) | {"p": 0.04}},
        "latents": {"path_error": [0, 1.0, 2.0, 3.0, 4.0]},
        "long": {"path_error": [0.0] * 8 + [8.5] + [0.0] * 11 + [20.25]},
        "categories": {"fast": {key: interval(3.0) for key in ("path_error", "objmc", "identity", "background_psnr")}},
        "speed": {
            "first_seconds": {"median": 0.1234, "p95": 0.2},
            "frames_per_second": {"median": 50.0},
            "peak_mib": 512.0,
        },
    }


@pytest.fixture
def summary():
    return {"AR-Drag": system(3.0), "mine": system(4.0)}


def test_cells():
    assert cell(None) == "-" and cell(interval(1.25), 1) == "1.2 [0.8, 1.8]"


def test_main_table_leaves_out_what_nobody_has(summary):
    header, rows = main_table(summary, SPRITE)
    assert header[:4] == ["system", "first pixels, ms", "FID-sprite", "KID-sprite"]
    assert "aesthetic-sprite" in header and "motion smoothness" not in header
    assert all(len(row) == len(header) for row in rows) and rows[0][:2] == ["AR-Drag", "123 (200)"]


def test_the_paper_stands_apart(summary):
    header, rows = beside_the_paper(summary, SPRITE)
    assert header[2:] == ["here", "the paper's metric", "paper (1.3B, one H20, other clips)"]
    assert {row[0] for row in rows} == {"AR-Drag"} and len(rows) == 6
    assert [row[-1] for row in rows] == ["0.44", "28.98", "187.49", "4.07", "0.9948", "4.37"]
    assert rows[0][2] == "0.123" and rows[1][1] == "FID-sprite" and "(midpoint)" in rows[4][2]


def test_numbers_of_the_paper():
    assert paper_row("fused_flow") == "Tora" and paper_row("carried") is None and paper_row("w/o RL") == "w/o RL"
    assert len(TABLE_1) == 6 and len(TABLE_2) == 4 and len(PAPER) == 10
    assert PAPER["teacher model"]["fvd"] == 151.46 and PAPER["MagicMotion"]["latency"] == 1426.37


def test_other_tables(summary):
    header, rows = metric_table(summary)
    assert header == ["metric (what is better)", "AR-Drag", "mine"]
    assert rows[0] == ["path error, px (lower)", "3.00 [2.50, 3.50]", "4.00 [3.50, 4.50]"]
    header, rows = difference_table(summary)
    assert header == ["metric", "mine"] and rows[0] == ["path error, px", "1.00 [0.50, 1.50], p 0.04"]
    assert curve_table(summary)[1][0] == ["AR-Drag", "1.00", "2.00", "4.00", "8.50", "0.00", "0.00", "20.25"]
    assert category_table(summary)[1][0][:4] == ["fast", "AR-Drag", "4", "3.00 [2.50, 3.50]"]
    assert speed_table(summary)[1][1] == ["mine", "123 (200)", "50.0", "512"]
    assert any(line.startswith("**FVD-sprite** (lower)") for line in definitions(SPRITE))


def test_rows_say_where_they_come_from():
    first, second = {"commit": "a" * 40}, {"commit": None}
    found = {"system": System("t", "bidirectional", "runs/t", 24), "rows": [{}, {}], "digest": "d1"}
    header, rows = origin_table({"t": {**found, "records": [first, second]}}, [first, second], seed=3)
    assert rows == [["t", "bidirectional `runs/t`, 24 steps", "d1", "2", "3", "1, 2", "aaaaaaaaaaaa, none"]]
    assert len(header) == len(rows[0])


def test_only_the_network_that_is_another_changes_a_name(summary):
    assert EvalConfig().suffixes("sprites") == SPRITE
    assert EvalConfig(aesthetic_head="head.pth").suffixes("tapvid") == Suffixes("", "")
    assert EvalConfig(features="sprite", aesthetic_head="head.pth").suffixes("tapvid") == Suffixes("-sprite", "")
    header, _ = main_table(summary, Suffixes("", "-sprite"))
    assert "FVD" in header and "aesthetic-sprite" in header
