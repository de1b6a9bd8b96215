"""The speed benchmark runs, fills its tables, and compares like with like; no test looks at an absolute time."""

import json
from pathlib import Path

import pytest
import torch

from eval.latency import LatencyConfig, decode_diffusers, decode_streamed, main, make_subject
from eval.model import load_pipeline
from eval.speed.latency_report import DECODERS, FIRST, PARTS, STEADY
from eval.speed.wan_baseline import chunk_partition


def test_runs_with_the_least(model_folder: Path, tmp_path: Path) -> None:
    arguments = ["--latents", "2", "--threads", "1", "--steps", "1", "--rounds", "1", "--num_frames", "5"]
    arguments += ["--default_steps", "1"]
    main(["--model", str(model_folder), "--output_dir", str(tmp_path), *arguments])
    results = json.loads((tmp_path / "latency.json").read_text())
    found = results["threads"]["1"]
    assert set(found) == {*FIRST, *STEADY, *DECODERS, "frames_per_second"}
    assert all(spread["median"] > 0 for spread in found.values())
    assert found["latent"]["count"] == 2 and found["diffusers_cold"]["count"] == 1
    assert found["first_generated_cold"]["median"] > found["first_frame_cold"]["median"]
    assert results["decode_difference"] < 1e-4
    page = (tmp_path / "latency.md").read_text()
    assert "| ms per latent | 1 thread |" in page and results["record"]["command"] in page


def test_controls_have_a_page_of_their_own(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(model_folder), "--output_dir", str(tmp_path), "--latents", "1", "--threads", "1"]
    main([*arguments, "--controls", "coloured,carried"])
    page = (tmp_path / "latency_controls.md").read_text()
    assert "| control | a latent, ms | in pairs with coloured |" in page and page.strip() in capsys.readouterr().out
    assert not (tmp_path / "latency.md").exists()


def test_compares_like_with_like(model_folder: Path) -> None:
    pipeline = load_pipeline(str(model_folder))
    subject = make_subject(pipeline, LatencyConfig(model=str(model_folder), num_frames=9))
    ours, theirs = pipeline.transformer, subject.baselines["diffusers"].transformer
    for name in ("num_layers", "num_attention_heads", "attention_head_dim", "ffn_dim", "text_dim", "image_dim"):
        assert ours.config[name] == theirs.config[name]
    assert theirs.config.in_channels == 2 * pipeline.vae.config.z_dim + 4
    plain, folded = (baseline.vae for baseline in subject.baselines.values())
    kinds = [{type(module).__name__ for module in vae.modules()} for vae in (plain, folded)]
    assert "FoldedCausalConv3d" not in kinds[0] and "WanCausalConv3d" not in kinds[1]
    causal = subject.anyflow.transformer
    for name in ("num_layers", "num_attention_heads", "attention_head_dim", "ffn_dim", "text_dim"):
        assert ours.config[name] == causal.config[name]
    with torch.no_grad():
        assert (decode_streamed(subject) - decode_diffusers(subject)).abs().max() < 1e-4


@pytest.mark.slow
def test_profile_has_a_page(model_folder: Path, tmp_path: Path) -> None:
    main(["--model", str(model_folder), "--output_dir", str(tmp_path), "--profile", "true", "--latents", "1"])
    page = (tmp_path / "latency_profile.md").read_text()
    assert all(f"| {name} | " in page for name in (*PARTS, "between", "all")) and "- command: " in page


def test_chunks_of_anyflow() -> None:
    assert chunk_partition(21) == [1, 3, 3, 3, 3, 3, 3, 2] and chunk_partition(7) == [1, 3, 3]
    assert chunk_partition(2) == [1, 1] and chunk_partition(1) == [1]


@pytest.mark.parametrize(
    "field",
    [
        {"threads": "0"},
        {"threads": "two"},
        {"threads": ""},
        {"latents": 0},
        {"rounds": 0},
        {"bidirectional_steps": 0},
        {"default_steps": 0},
        {"num_frames": 6},
    ],
    ids=str,
)
def test_refuses_bad_settings(field: dict[str, str | int]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        LatencyConfig(**field)
