"""Blocks without their modules give the numbers of the modules, and step back wherever those do something else."""

from contextlib import contextmanager

import pytest
import torch
from peft import LoraConfig

from ardrag.transformer import CausalWanTransformer
from ardrag.unrolled.blocks import UnrolledBlock


MODEL = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 10,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "image_dim": 8,
    "added_kv_proj_dim": 24,
    "image_context": "first",
    "window_frames": 3,
}
SIDE, FRAMES = 4, 6


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(**options):
    return CausalWanTransformer(**{**MODEL, **options}).eval()


@contextmanager
def counted(monkeypatch):
    """Within, the list that it gives grows by an entry for every block that runs without modules."""
    seen, plain = [], UnrolledBlock.__call__

    def call(self, *arguments):
        seen.append(self)
        return plain(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(UnrolledBlock, "__call__", call)
        yield seen


class Stream:
    """A clip against a cache, latent by latent: a noisy pass and the clean one."""

    def __init__(self, model, rows=1):
        chunk = model.config.chunk_frames
        self.model, self.cache = model, model.new_cache(rows, SIDE, SIDE)
        shape = (2, rows, model.config.in_channels, FRAMES * chunk, SIDE, SIDE)
        self.clips = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        self.text, self.image = torch.randn(rows, 5, 10), torch.randn(rows, 3, 8)
        self.levels = torch.full((rows,), 755.0), torch.zeros(rows)

    @torch.no_grad()
    def step(self):
        at, chunk = self.cache.position, self.model.config.chunk_frames
        outputs = []
        for clip, level, clean in zip(self.clips, self.levels, (False, True), strict=True):
            options = {"kv_cache": self.cache, "frame_offset": at, "update_cache": clean}
            part = clip[:, :, at : at + chunk]
            outputs.append(self.model(part, level, self.text, self.image, **options).sample)
        return torch.stack(outputs)

    def run(self, latents=FRAMES):
        return torch.stack([self.step() for _ in range(latents)])


def with_modules(model, run):
    """What ``run()`` gives with the switch off."""
    model.unrolls = False
    try:
        return run()
    finally:
        model.unrolls = True


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation_fn": "gelu"},
        {"sink_frames": 1},
        {"chunk_frames": 2},
        {"in_channels": 8, "input_layout": {"latents": 4, "motion": 4}, "gated_slots": True},
    ],
    ids=["tanh", "erf", "sink", "chunks", "gates"],
)
def test_numbers_are_those_of_the_modules(options, monkeypatch):
    model = make(**options)
    for weight in model.parameters():  # also what begins at nought or one
        torch.nn.init.normal_(weight, std=0.3)
    with counted(monkeypatch) as seen:
        torch.manual_seed(2)
        got = Stream(model).run()
    # Text and picture are read by modules: the two passes of the first latent.
    assert len(seen) == 2 * (FRAMES - 1) * MODEL["num_layers"]
    torch.manual_seed(2)
    assert torch.equal(got, with_modules(model, Stream(model).run))


def test_modules_where_they_do_more(monkeypatch):
    """Several rows, hooks, adapters, one matrix for three, autocast, gradients, another number format."""
    model = make()
    stream = Stream(model)
    stream.run(2)
    block = model.blocks[1]
    with counted(monkeypatch) as seen:
        handle = block.ffn.register_forward_hook(lambda *_: None)
        stream.step()
        handle.remove()
        block.attn1.forward = block.attn1.forward
        stream.step()
        del block.attn1.forward
        Stream(model, rows=2).run(2)
        model.fuse_qkv_projections()
        stream.step()
        model.unfuse_qkv_projections()
        with torch.autocast("cpu", torch.bfloat16):
            Stream(model).run(2)
        half = make().to(torch.bfloat16)
        Stream(half).run(2)
        assert not seen
        stream.step()
        assert seen


@pytest.mark.parametrize("change", ["in_place", "replaced", "data", "module"])
def test_changed_weights_are_heard(change):
    model = make()
    stream = Stream(model)
    stream.run(2)
    layer = model.blocks[0].attn1.to_q
    with torch.no_grad():
        if change == "in_place":
            layer.weight.mul_(2)
        elif change == "replaced":
            layer.weight = torch.nn.Parameter(layer.weight * 2)
        elif change == "data":
            layer.weight.data = layer.weight * 2
        else:
            model.blocks[0].attn1.to_q = torch.nn.Linear(24, 24)
    twin = Stream(model)
    twin.cache, twin.text, twin.image = stream.cache.fork(), stream.text, stream.image
    assert torch.equal(stream.step(), with_modules(model, twin.step))


def test_an_adapter_that_was_merged_is_heard(monkeypatch):
    model = make()
    stream = Stream(model)
    before = stream.run(3)
    model.add_adapter(LoraConfig(target_modules=["to_q", "ffn.net.2"], r=2, init_lora_weights=False))
    model.fuse_lora()
    model.unload_lora()
    stream.cache.reset()
    with counted(monkeypatch) as seen:
        after = stream.run(3)
    assert seen and not torch.allclose(before, after, atol=1e-3)
    stream.cache.reset()
    assert torch.equal(after, with_modules(model, lambda: stream.run(3)))


def test_the_last_of_a_model_takes_its_layout_along():
    from ardrag.unrolled.blocks import _laid_out

    model = make()
    Stream(model).run(2)
    count = len(_laid_out)
    assert model.blocks in _laid_out
    del model
    assert len(_laid_out) == count - 1
