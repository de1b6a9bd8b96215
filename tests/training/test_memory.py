"""The memory plan against real parameters and tensors of a small model, and its scaling."""

import copy
import re
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from training.losses.gan import Critic, head_layers
from training.memory import (
    GIB,
    WAN_ENCODERS,
    MemoryConfig,
    build_on_meta,
    main,
    of_preset,
    plan,
    require_memory,
    require_room,
    trained_bytes,
)
from training.run.optim import MuonAdamW
from training.run.runtime import add_average, add_lora, halve_base


CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.fixture
def saved(make_transformer, tmp_path):
    model = make_transformer()
    model.save_pretrained(tmp_path)
    return model, MemoryConfig(transformer=str(tmp_path), height=64, width=64, num_latents=4, gpus=[1])


def test_trained_bytes_are_those_of_the_optimizer(saved):
    model, _ = saved
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = MuonAdamW(model.named_parameters())
    optimizer.step()
    state = sum(v.nbytes for s in optimizer.state.values() for n, v in s.items() if n != "step")
    masters = sum(p.nbytes for p in model.parameters())
    assert trained_bytes(model) == state + masters + masters  # and their gradients
    adamw = torch.optim.AdamW(model.parameters())
    adamw.step()
    state = sum(v.nbytes for s in adamw.state.values() for n, v in s.items() if n != "step")
    assert trained_bytes(model, "adamw") == state + masters + masters


def test_history_is_what_a_history_holds(saved):
    model, config = saved
    from ardrag.kv_cache import ClipHistory

    history = ClipHistory()
    joined, text = torch.zeros(1, 12, 4, 8, 8), torch.zeros(1, 5, 8)
    model(joined, torch.zeros(1), text, causal=True, history=history, record_history=True)
    held = sum(x.nbytes for layer in range(2) for x in history.layer(layer)) / 2  # the plan is in half precision
    assert plan(config, 1)["history of the clip (keys, values)"] * GIB == pytest.approx(held)


def test_shards_and_batches(saved):
    _, config = saved
    one, eight = plan(config, 1), plan(config, 8)
    for part in ("student: weights, gradient, optimizer", "teacher, frozen"):
        assert eight[part] == pytest.approx(one[part] / 8)
    assert eight["activations of the pass"] == one["activations of the pass"]
    config.batch_size = 3
    assert plan(config, 1)["activations of the pass"] == pytest.approx(3 * one["activations of the pass"])
    config.gradient_checkpointing = False
    assert plan(config, 1)["activations of the pass"] > 3 * one["activations of the pass"]
    assert one["sum"] == pytest.approx(sum(value for name, value in one.items() if name != "sum"))


def test_the_large_model_is_counted_not_built(capsys):
    model = build_on_meta(MemoryConfig())
    assert all(p.device.type == "meta" for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == 1_564_502_336
    critic = Critic(model, head_layers(30))
    assert sum(p.numel() for p in critic.heads.parameters()) < 0.03 * 1.5644e9
    main(MemoryConfig())
    page = capsys.readouterr().out
    assert "distill, 1.3B: 156" in page and "| sum |" in page and "| 8 GPU |" in page


def test_stage_3_trains_all_weights_or_an_adapter(saved):
    model, config = saved
    count = sum(p.numel() for p in model.parameters())
    config.stage = "grpo"
    full = plan(config, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    state = sum(v.nbytes for s in optimizer.state.values() for n, v in s.items() if n != "step")
    assert full["policy: weights, gradient, optimizer"] * GIB == pytest.approx(state + 2 * 4 * count)
    assert full["reference, frozen"] * GIB == pytest.approx(4 * count)
    config.lora_rank = 2
    lora = plan(config, 1)
    add_lora(model, 2, alpha=4)
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lora["adapter: weights, gradient, optimizer, average"] * GIB == pytest.approx(20 * adapter)
    assert lora["model without adapter, frozen (and reference)"] * GIB == pytest.approx(4 * count)
    assert lora["sum"] < full["sum"] and lora["activations of the pass"] == full["activations of the pass"]


CARDS = {"lora": (1, 24), "": (8, 80)}
"""GPUs, and GiB on each, that presets of the large model are for."""


LARGE = sorted(CONFIGS.glob("*_1_3b*.yaml"))


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_presets_of_the_large_model_fit_what_they_are_for(path):
    config = of_preset(MemoryConfig(preset=str(path)))
    gpus, gib = next(card for word, card in CARDS.items() if word in path.stem)
    model = build_on_meta(config)
    assert sum(p.numel() for p in model.parameters()) == 1_564_502_336 and model.config.in_channels == 48
    require_memory(config, model, WAN_ENCODERS, gpus, gib)
    with pytest.raises(ValueError, match=rf"batch_size: {config.stage} needs about \d+ GiB on each of 1 GPU"):
        require_memory(config, model, WAN_ENCODERS, 1, 12)
    sums = [plan(config, gpus, encoders=WAN_ENCODERS)["sum"] for gpus in (1, 8, 16)]
    if config.lora_rank and config.stage in ("consistency", "distill"):
        assert len(set(sums)) == 1  # the adapter is switched on and off, in models that are whole
    else:
        assert sums[0] > sums[1] > sums[2]


def number(pattern, text):
    found = re.search(pattern, text)
    assert found, pattern
    return float(found[1])


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_presets_of_the_large_model_say_what_they_are(path):
    """Batch, schedule, memory and gate stand above the settings, and are those of the settings."""
    text = path.read_text()
    head, settings = "".join(takewhile(lambda line: line[0] == "#", text.splitlines(True))), yaml.safe_load(text)
    gpus = next(card for word, card in CARDS.items() if word in path.stem)[0]
    clips = gpus * settings.get("batch_size", 1) * settings["gradient_accumulation_steps"]
    assert number(r"Global batch (\d+)", head) == clips and f": {gpus} GPU" in head
    assert number(r"Schedule: (\d+) updates", head) == settings["steps"]
    assert "at one rate" in head or number(r"(\d+) of warm-up", head) == settings["warmup"]
    need = plan(of_preset(MemoryConfig(preset=str(path))), gpus, encoders=WAN_ENCODERS)["sum"]
    assert number(r"Expected memory: ([\d.]+) GiB on ", head) == pytest.approx(need, abs=0.06)
    assert f"--preset training/configs/{path.name}" in head and "# Gate before the next stage: " in head


def test_a_preset_is_planned_as_it_says(capsys):
    main(MemoryConfig(preset=str(CONFIGS / "causal_1_3b.yaml"), gpus=[1, 8, 16]))
    page = capsys.readouterr().out
    assert "finetune, 1.3B: 1564.5 M parameters, all weights, 21 latents of 480x368, 1 clips a GPU" in page
    assert "| 16 GPU |" in page
    config = of_preset(MemoryConfig(preset=str(CONFIGS / "grpo_1_3b_lora.yaml")))
    assert (config.stage, config.batch_size, config.lora_rank) == ("grpo", 2, 16)


def test_the_encoders_are_counted():
    text = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)
    vision = CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14
    )
    with torch.device("meta"):
        models = UMT5EncoderModel(text), CLIPVisionModel(vision)
    assert sum(p.numel() for model in models for p in model.parameters()) == WAN_ENCODERS


def test_only_gpus_are_asked_for_room(monkeypatch, make_pipeline):
    pipeline = make_pipeline()
    settings = SimpleNamespace(num_latents=5, batch_size=2, gradient_checkpointing=True, shard=False)
    require_room("consistency", settings, pipeline, (32, 32), SimpleNamespace(device=torch.device("cpu")))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=2**20))
    gpu = SimpleNamespace(device=torch.device("cuda"), num_processes=1)
    with pytest.raises(ValueError, match="batch_size: consistency needs about 0 GiB on each of 1 GPU"):
        require_room("consistency", settings, pipeline, (32, 32), gpu)


def test_plans_that_nobody_needs():
    with pytest.raises(ValueError, match="stage: 'rl' is unknown"):
        MemoryConfig(stage="rl")


def test_adapters_of_stage_2_are_counted_as_they_are_held(saved):
    model, config = saved
    config.lora_rank, critic = 2, Critic(copy.deepcopy(model), head_layers(2))
    count = sum(p.numel() for p in model.parameters())
    found = plan(replace(config, stage="consistency"), 1)
    add_lora(model, 2, alpha=2)
    add_average(model)
    own, average = (
        sum(p.numel() for n, p in model.named_parameters() if f".{kind}." in n) for kind in ("default", "average")
    )
    assert found["adapter: weights, gradient, optimizer, average"] * GIB == pytest.approx(16 * own + 4 * average)
    assert found["model without adapter, frozen (and reference)"] * GIB == pytest.approx(4 * count)
    add_lora(critic.transformer, 2, alpha=2)
    halve_base(critic.transformer)
    held = sum(p.nbytes for p in critic.parameters() if not p.requires_grad)
    heads = sum(p.numel() for p in critic.heads.parameters())
    found = plan(config, 1)
    assert found["teacher and critic without adapter, frozen, matrices in half"] * GIB == pytest.approx(held)
    assert 2 * count < held < 4 * count
    total = found["adapters and heads: weights, gradient, optimizer, average"] * GIB
    assert total == pytest.approx(16 * (2 * own + heads) + 4 * own)


def test_generating_with_the_true_model_from_shapes_alone(capsys):
    """Offloading model by model leaves the largest one: the text encoder, 5.7 billion numbers of two bytes."""
    main(MemoryConfig(stage="inference", height=128, width=128, num_latents=3))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Wan 1.3B: 3 latents of 128x128, bfloat16, guidance over 1 rows")
    cells = {line.split(" | ")[0]: line for line in lines[4:]}
    assert len(cells) == 8
    everything, one, layer = (float(cell) for cell in cells["| text_encoder"].strip("| ").split(" | ")[1:])
    assert one == pytest.approx(2 * 5_680_910_336 / GIB, abs=0.1) and layer < one / 4 and everything > one
    with pytest.raises(ValueError, match="dtype: 'float8' is unknown; use bfloat16 or float32"):
        MemoryConfig(stage="inference", dtype="float8")


def test_generating_with_a_pipeline_of_ones_own(make_pipeline, tmp_path, capsys):
    make_pipeline().save_pretrained(tmp_path)
    main(MemoryConfig(stage="inference", pipeline=str(tmp_path), height=32, width=32, dtype="float32"))
    assert "| transformer, whole clip |" in capsys.readouterr().out
