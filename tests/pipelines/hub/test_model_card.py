"""Cards: generated from what is there, valid to the Hub's own classes, with snippets that run."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from PIL import Image

from pipelines.hub.card_tables import count_parameters, eval_results, follow, parts_table, read_measured
from pipelines.hub.model_card import is_hub_name, model_card, read_facts
from pipelines.hub.repository import complete_repository
from pipelines.record import REPOSITORY, run_record


TINY = REPOSITORY / "checkpoints" / "ardrag-tiny"
RECORD = {"command": "python -m eval.x", "commit": "abcdef0123", "date": "2026-01-02T03:04:05+00:00"}
RECORD |= {"hardware": {"processor": "CPU", "cores": 2, "accelerators": []}}
RECORD |= {"versions": {"torch": "2", "diffusers": "0.42"}}
RESULTS = {"record": RECORD, "summary": {"error": {"mean": 3.14159, "low": 2.5, "high": 4.0}}}
RESULTS |= {"rows": [{"error": 1.0}, {"error": 2.0}, {"error": 9.0}]}
ROWS = [
    {"text": "error", "mean": "summary/error", "unit": "px", "digits": 2, "metric": "error"},
    {"text": "error, median", "median": "rows/error", "unit": "px"},
    {"text": "PSNR", "given": 31, "unit": "dB"},
]


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("card") / "pipeline"
    pipeline.save_pretrained(folder)
    return folder


def snippets(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_the_card_of_the_bundled_checkpoint_is_the_generated_one():
    text = model_card(TINY, "checkpoints/ardrag-tiny", read_facts(TINY))
    assert (TINY / "README.md").read_text(encoding="utf-8") == text, "run python -m pipelines.publish card"


def test_metadata_is_valid_and_its_numbers_are_those_of_the_results():
    card = ModelCard.load(TINY / "README.md")
    results = json.loads((REPOSITORY / "docs" / "results" / "sprites.json").read_text())
    error = results["summary"]["AR-Drag"]["values"]["path_error"]["mean"]
    assert all(isinstance(entry, EvalResult) for entry in card.data.eval_results)
    found = {entry.metric_type: entry.metric_value for entry in card.data.eval_results}
    assert found["path_error"] == pytest.approx(error, abs=1e-4)
    assert card.data.eval_results[0].metric_args["command"] == results["record"]["command"]
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"], data["license"]) == (
        "diffusers",
        "image-to-video",
        "apache-2.0",
    )
    assert card.data.model_name == "ardrag-tiny"


def test_snippets_run_as_written(folder, tmp_path, monkeypatch):
    """The one with this package; the other runs in `test_readme.py` and `test_hub.py`, against a Hub."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40), "red").save("picture.png")
    (snippet,) = snippets(model_card(folder, str(folder), {}))
    exec(compile(snippet, "card", "exec"), {"__name__": "card"})
    assert Path("drag.mp4").stat().st_size > 0


def test_tables_are_read_from_the_files(folder, pipeline):
    expected = sum(parameter.numel() for parameter in pipeline.transformer.parameters())
    assert count_parameters(folder / "transformer") == expected
    rows = {row.split(" | ")[0].strip("| "): row for row in parts_table(folder)}
    assert set(rows) == {"transformer", "vae", "text encoder", "image encoder"}
    assert "2 layers, 2 heads of 12, window of 7 latents, chunk of 1" in rows["transformer"]
    text = model_card(folder, str(folder), {})
    assert (
        "Pictures of 32x32, 16 frames per second, 2 steps per latent at noise levels 1, 0.6, sampler `eta: 1`" in text
    )


def test_what_is_not_the_paper_s_is_said(make_pipeline, folder, tmp_path):
    pipe = make_pipeline(transformer={"sink_frames": 1})
    pipe.register_to_config(control={"name": "coloured"})
    pipe.save_pretrained(tmp_path / "model")
    text = model_card(tmp_path / "model", str(tmp_path / "model"), {})
    assert "window of 7 latents and the first 1, chunk of 1" in text and "each in a colour of its own" in text
    assert "shown as heat maps (`control: heat`), as in" in model_card(folder, str(folder), {})


def test_measured_rows():
    mean, median, given = read_measured(ROWS, RESULTS)
    assert mean.line() == "| error | 3.14 px | 2.50 to 4.00 |"
    assert median.line() == "| error, median | 2.0 px |  |"
    assert given.line() == "| PSNR | 31.0 dB |  |"
    bare = replace(mean, unit="")
    assert bare.line() == "| error | 3.14 | 2.50 to 4.00 |"
    assert [entry.metric_name for entry in eval_results([mean, bare], "x", RECORD)] == ["error (px)", "error"]
    (entry,) = eval_results([mean, median, given], "a benchmark", RECORD)
    assert (entry.metric_type, entry.metric_value, entry.dataset_name) == ("error", 3.1416, "a benchmark")
    assert follow({"a": [{"b": 1}, {"b": 2}]}, "a/b") == [1, 2]


@pytest.mark.parametrize("path", ["summary/nothing", "rows/error", "record/command/mean"])
def test_a_row_without_a_number_is_named(path):
    with pytest.raises(ValueError, match="card: the row 'error' names no number of the results file"):
        read_measured([{"text": "error", "mean": path, "unit": "px"}], RESULTS)


def test_missing_results_are_named(folder):
    facts = {"measured": {"results": "docs/results/none.json", "dataset": "x", "rows": ROWS}}
    with pytest.raises(ValueError, match=r"card: .*none\.json is not there; make it with"):
        model_card(folder, "a/b", facts)


def test_facts_of_a_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "latents").mkdir(parents=True)
    facts = {
        "stages": [{"part": "grpo, 3 of 3 steps", "command": "python -m training.grpo"}],
        "record": run_record("training.grpo", ["--steps", "3"]),
        "base_model": "alice/ardrag-tiny",
        "data": ["alice/latents", "runs/latents"],
        "licence_notes": ["The reward was CoTracker3 (CC-BY-NC 4.0): no commercial use of what it taught."],
    }
    text = model_card(folder, "alice/tuned", facts)
    card = ModelCard(text)
    assert card.data.base_model == "alice/ardrag-tiny" and card.data.datasets == ["alice/latents"]
    for part in (
        "| grpo, 3 of 3 steps | `python -m training.grpo` |",
        "Data: alice/latents, runs/latents.",
        "CC-BY-NC",
    ):
        assert part in text
    assert re.search(r"Command: `python -m training.grpo --steps 3`; commit \w+, \d{4}-\d\d-\d\d, \d+ core", text)
    assert len(snippets(text)) == 2 and 'custom_pipeline="pipeline"' in snippets(text)[1]


def test_samples_are_shown(folder):
    text = model_card(folder, "alice/tiny", {"samples": [{"file": "samples/a.mp4", "text": "a star"}]})
    assert "<Gallery />" in text
    assert yaml.safe_load(text.split("---")[1])["widget"] == [{"text": "a star", "output": {"url": "samples/a.mp4"}}]


def test_an_adapter_and_a_vae_have_cards(pipeline, tmp_path):
    pipeline.vae.save_pretrained(tmp_path / "vae")
    complete_repository(tmp_path / "vae", "alice/vae", {})
    text = (tmp_path / "vae" / "README.md").read_text()
    assert 'AutoencoderKLWan.from_pretrained("alice/vae")' in text and not (tmp_path / "vae" / "pipeline.py").exists()
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"")
    text = model_card(tmp_path / "lora", "alice/lora", {"base_model": "alice/tiny"})
    assert 'pipe.load_lora_weights("alice/lora")' in text and 'from_pretrained("alice/tiny")' in text
    assert "lora" in ModelCard(text).data.tags


def test_names_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    assert is_hub_name("alice/ardrag-tiny")
    assert not any(map(is_hub_name, ["runs/a", "runs/a/pipeline", "tiny", "", "a b/c"]))
