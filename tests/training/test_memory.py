"""The memory plan against real parameters and tensors of a small model, and its scaling."""

import pytest
import torch

from training.losses.gan import Critic, head_layers
from training.memory import GIB, MemoryConfig, build_on_meta, main, plan, trained_bytes
from training.run.optim import MuonAdamW
from training.run.runtime import add_lora


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
    assert trained_bytes(model) == state + masters + masters  # the half copy and its gradient: 2 + 2


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
    assert eight["activations of the replay"] == one["activations of the replay"]
    config.batch_size = 3
    assert plan(config, 1)["activations of the replay"] == pytest.approx(3 * one["activations of the replay"])
    config.gradient_checkpointing = False
    assert plan(config, 1)["activations of the replay"] > 3 * one["activations of the replay"]
    assert one["sum"] == pytest.approx(sum(value for name, value in one.items() if name != "sum"))


def test_the_large_model_is_counted_not_built(capsys):
    model = build_on_meta(MemoryConfig())
    assert all(p.device.type == "meta" for p in model.parameters())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.5644e9, rel=0.001)
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
    assert full["reference, frozen"] * GIB == pytest.approx(2 * count)
    config.lora_rank = 2
    lora = plan(config, 1)
    add_lora(model, 2, alpha=4)
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lora["adapter: weights, gradient, optimizer, average"] * GIB == pytest.approx(20 * adapter)
    assert lora["policy without adapter, frozen (and reference)"] * GIB == pytest.approx(2 * count)
    assert lora["sum"] < full["sum"] and lora["activations of the replay"] == full["activations of the replay"]


@pytest.mark.parametrize(
    ("changes", "message"), [({"stage": "rl"}, "stage: 'rl' is unknown"), ({"lora_rank": 4}, "lora_rank: planned for")]
)
def test_plans_that_nobody_needs(changes, message):
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**changes)
