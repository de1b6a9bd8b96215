"""Gates side by side: a row for each model and world, what it means, and what is no gate."""

import json

import pytest

from eval.benchmark.headroom import FULL_REWARD, ClipHeadroom
from eval.report.gates import main, read_gate, row_of


PLAIN = ClipHeadroom(1.0, 1.0, 0.1, 0.98, 0.99 * FULL_REWARD, 0.01, None, None)
OPEN = ClipHeadroom(6.0, 5.0, 0.5, 3.0, 0.8 * FULL_REWARD, 0.3, 0.4, 0.8)


def gate(folder, name, clip, world):
    record = {"command": f"python -m eval.headroom {name}", "commit": "abc", "dirty": False, "date": "now"}
    record |= {"hardware": {"processor": "P", "cores": 2, "memory_gib": 4, "accelerators": [], "load_average": 0.0}}
    settings = {"model": name, "world": world, "num_clips": 2, "members": 8}
    clips = [clip._asdict(), clip._asdict()]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"record": {**record, "versions": {}}, "settings": settings, "clips": clips}))
    return str(path)


def test_rows(tmp_path):
    plain = row_of(read_gate(gate(tmp_path, "tiny", PLAIN, "sprites")))
    assert plain[0] == "tiny" and plain[2] == "2 x 8" and plain[-2:] == ["nothing", "nothing"]
    assert plain[3] == "1 [1, 1]" and plain[5] == "-" and plain[6] == "10 [10, 10]"
    free = row_of(read_gate(gate(tmp_path, "free", OPEN, "small:passers_by=1")))
    assert "passers_by=1" in free[1] and free[-2:] == ["something", "something"]
    assert free[4] == "20 [20, 20]" and free[5] == "50 [50, 50]" and free[7] == "40 [40, 40]"


def test_page(tmp_path, capsys):
    sources = [gate(tmp_path, "tiny", PLAIN, "sprites"), gate(tmp_path, "free", OPEN, "small:passers_by=1")]
    target = tmp_path / "docs" / "headroom"
    main([*sources, "--report", str(target)])
    page = target.with_suffix(".md").read_text()
    assert page in capsys.readouterr().out + "\n" and page.startswith("# The gate")
    assert page.count("python -m eval.headroom") == 2 and "| tiny |" in page and "| free |" in page
    numbers = json.loads(target.with_suffix(".json").read_text())["gates"]
    assert numbers[1]["summary"]["share of variance"]["mean"] == 0.5
    (tmp_path / "odd.json").write_text('{"clips": [{}]}')
    for path in ("odd.json", "none.json"):
        with pytest.raises(SystemExit, match=f"gates: .*{path} is nothing that python -m eval.headroom wrote"):
            main([str(tmp_path / path), "--report", str(target)])
