"""Runs side by side: numbers from logs whose answer is known."""

import json

import pytest

from eval.rl_runs import RunsConfig, main, read_log, summarize


def write_log(folder, rewards, spread):
    folder.mkdir()
    rows = [{"step": -1, "validation/path_error_px": 3.0}]
    for step, reward in enumerate(rewards):
        row = {"step": step, "reward/motion": reward, "reward/group_spread": spread, "policy/kl": 0.001 * step}
        rows.append(row)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_prompts_are_paired_and_the_shortest_run_sets_the_length(tmp_path, capsys):
    prompts = [4.0, 1.0, 3.0, 2.0, 4.5, 0.5]
    write_log(tmp_path / "one", prompts, 0.1)
    write_log(tmp_path / "all", [value + 0.25 for value in prompts[:4]], 0.3)
    runs = [f"one step={tmp_path / 'one'}", f"all steps={tmp_path / 'all'}"]
    main(["--runs", *runs, "--window", "2", "--report", str(tmp_path / "out" / "page")])
    found = json.loads((tmp_path / "out" / "page.json").read_text())["summary"]["all steps"]
    assert found["rollouts"] == 4 and found["variance"]["mean"] == pytest.approx(0.09)
    assert [found["difference"][end] for end in ("mean", "low", "high")] == pytest.approx([0.25] * 3)
    assert found["divergence"] == pytest.approx(0.003)
    page = capsys.readouterr().out
    assert "| all steps | 4 | 0.0900 [0.0900, 0.0900] | 2.75" in page and "+0.2500 [+0.2500, +0.2500]" in page


def test_rewards_that_could_not_be_measured_do_not_count():
    rows = [{"reward/motion": value, "reward/group_spread": 0.2} for value in (1.0, float("nan"), 3.0)]
    found = summarize({"a": rows, "b": rows}, "motion", 2)
    assert found["b"]["reward"]["mean"] == 2 and found["b"]["difference"]["clips"] == 1


def test_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="holds no log.jsonl"):
        read_log(tmp_path, "motion")
    write_log(tmp_path / "run", [1.0], 0.1)
    with pytest.raises(ValueError, match="reward: 'aesthetic' is in no row"):
        read_log(tmp_path / "run", "aesthetic")
    with pytest.raises(ValueError, match="runs: .* must be name=folder"):
        RunsConfig(runs=["run"])
    with pytest.raises(ValueError, match="window: 1 rollouts"):
        RunsConfig(runs=["a=b"], window=1)
