"""What each rival's control shows, against its definition, and what it changes in a transformer."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ardrag.controls.boxes import Boxes
from ardrag.controls.control import Rows, Scene
from ardrag.controls.copied import Copied
from ardrag.controls.entity import Entity
from ardrag.controls.flow import Flow
from ardrag.controls.fused_flow import FusedFlow
from ardrag.controls.masks import Masks
from ardrag.controls.track_ids import TrackHead, TrackIds, sinusoids, track_numbers
from ardrag.tracks.tracks import Tracks
from ardrag.transformer import CausalWanTransformer


def still(height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.zeros(3, height, width)


def scene(masks: torch.Tensor | None = None) -> Scene:
    """A picture of 64x64 whose latent, 8x8 cells of five channels, is noise."""
    reference = torch.randn(1, 5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Scene(still(64, 64), reference, masks, seed=7)


RIGHT = Tracks.from_points([[(0, 0.2, 0.3), (4, 0.6, 0.3)]], num_frames=5, interp="linear")


def test_flow_is_the_step_at_the_place_where_it_starts() -> None:
    video, memory = Flow().paint(Rows.of(RIGHT), still)
    assert not video[:, 0].any(), "nothing has moved in frame 0"
    step = 0.1 / Flow().full
    y, x = round(0.3 * 32 - 0.5), round(0.3 * 32 - 0.5)
    peak = math.exp(-2 * 0.1**2 / (2 * (Flow().spread * 32) ** 2))
    assert video[0, 2, y, x] == pytest.approx(min(step * peak, 1), abs=0.02) and not video[1:, 2].any()
    held = Tracks.from_points([[(0, 0.6, 0.3)]], num_frames=5)
    after, _ = Flow().paint(Rows.of(held, range(4)), still, memory)
    assert after.abs().max() < 1e-5, "a track that rests is no track"


def test_fused_flow_is_white_at_rest_and_coloured_by_direction() -> None:
    ways = {"right": (0.8, 0.5), "left": (0.2, 0.5), "down": (0.5, 0.8)}
    seen = {}
    for name, (x, y) in ways.items():
        tracks = Tracks.from_points([[(0, 0.5, 0.5), (4, x, y)]], num_frames=5, interp="linear")
        video, _ = FusedFlow().paint(Rows.of(tracks), still)
        assert (video[:, 0] == 1).all()
        seen[name] = video[:, 1, 16, 16]
    assert (
        seen["right"][0] == pytest.approx(1, abs=1e-4)
        and seen["right"][1] == pytest.approx(float(seen["right"][2]), abs=1e-4)
        and seen["right"][1] < 0.5
    )
    assert seen["left"][0] < seen["left"][1] and not torch.allclose(seen["down"], seen["left"], atol=0.1)


def test_copied_moves_the_vector_of_the_first_place() -> None:
    known = scene()
    slot, held = Copied().mark(Rows.of(RIGHT, range(1)), known)
    source = known.reference[0, :, 0, 2, 1]
    assert torch.equal(slot[:, 2, 1], source) and slot.count_nonzero() == 5
    rows = Rows.of(RIGHT, range(1, 5))
    slot, _ = Copied().mark(rows, known, held)
    mean = rows.arrays.xy[:, 0].mean(0)
    assert torch.equal(slot[:, int(mean[1] * 8), int(mean[0] * 8)], source) and slot.count_nonzero() == 5
    crossing = Tracks.from_points([[(0, 0.5, 0.5)], [(0, 0.51, 0.51, 0.5)]], num_frames=5)
    slot, _ = Copied().mark(Rows.of(crossing, range(1)), known)
    assert torch.equal(slot[:, 4, 4], 0.5 * known.reference[0, :, 0, 4, 4]), "the later one lies on top, at its force"


def test_entity_is_the_mean_of_what_was_grabbed() -> None:
    masks = torch.zeros(1, 64, 64)
    masks[0, 16:32, 8:24] = 1  # cells 2..3 x 1..2
    known = scene(masks)
    slot, _ = Entity().mark(Rows.of(RIGHT, range(1)), known)
    feature = known.reference[0, :, 0, 2:4, 1:3].mean((1, 2))
    spread = Entity().radius * 8
    x, y = 1.5 - 0.2 * 8, 2.5 - 0.3 * 8
    bell = math.exp(-(x * x + y * y) / (2 * spread**2))
    torch.testing.assert_close(slot[:, 2, 1], bell * feature, rtol=0, atol=1e-5)
    small, _ = Entity(0.01).mark(Rows.of(RIGHT, range(1)), scene())
    torch.testing.assert_close(
        small[:, 2, 1] / small[0, 2, 1], scene().reference[0, :, 0, 2, 1] / scene().reference[0, 0, 0, 2, 1]
    )


def test_boxes_are_squares_in_the_colour_of_their_track() -> None:
    two = Tracks.from_points([[(0, 0.25, 0.5)], [(0, 0.75, 0.5, 0.5)]], num_frames=1, sigma=0.125)
    video, _ = Boxes().paint(Rows.of(two), still)
    assert (video[:, 0, 12:20, 4:12] == 1).all() and (video[:, 0, :11] == -1).all()
    torch.testing.assert_close(video[:, 0, 16, 24], torch.tensor([1.0, 0.4, 0.4]) - 1)
    assert (video[0] > -1).sum() == pytest.approx(2 * 64, abs=2)


def test_masks_move_with_their_track_and_are_asked_for() -> None:
    masks = torch.zeros(1, 32, 32)
    masks[0, 8:12, 4:9] = 1
    way = Tracks.from_points([[(0, 0.2, 0.3), (4, 0.2 + 8 / 32, 0.3 + 4 / 32)]], num_frames=5)
    video = Masks().paint_clip(Rows.of(way), Scene(still(), still(), masks))
    moved = masks.roll((4, 8), (1, 2))
    torch.testing.assert_close(video[:, 4], moved.expand(3, -1, -1) * 2 - 1, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"masks: .* none were given; give masks=\[P, H, W\]"):
        Masks().begin(scene())
    two = Tracks.from_points([[(0, 0.2, 0.3)], [(0, 0.7, 0.3)]], num_frames=5)
    with pytest.raises(ValueError, match="masks: 1 given, but there is a track 1; give one for each"):
        Masks().paint_clip(Rows.of(two), Scene(still(), still(), masks))


def test_masks_of_another_size_are_refused(pipeline: Any, picture: Any) -> None:
    with pytest.raises(ValueError, match=r"masks: \[1, 5, 5\] must be \[P, 32, 32\], one for each track"):
        pipeline.scene(picture, torch.zeros(1, 5, 5))


def test_identities_lie_in_the_track_s_cell_and_add_up() -> None:
    control, known = TrackIds(id_dim=6, channels=4), scene()
    numbers = track_numbers(known.seed, 2, control.max_id)
    assert torch.equal(numbers[:1], track_numbers(known.seed, 1, control.max_id)), "more tracks, the same first ones"
    waves = sinusoids(numbers, 6)
    both = Tracks.from_points([[(0, 0.5, 0.5)], [(0, 0.5, 0.5, 0.5)]], num_frames=5)
    slot, _ = control.mark(Rows.of(both, range(1)), known)
    assert slot.shape == (24, 8, 8) and not slot[:18].any(), "latent 0 has one frame, the last of four"
    torch.testing.assert_close(slot[18:, 4, 4], waves[0] + 0.5 * waves[1])
    assert slot.count_nonzero() <= 6
    assert not torch.equal(track_numbers(8, 2, 10**5), numbers)


def test_the_head_is_a_strided_convolution_in_time() -> None:
    """As Track-v0 computes it on the frames in line, three empty ones first."""
    head = TrackHead(6, 4, 4, bias=True)
    frames = torch.randn(2, 6, 9, 3, 3)
    line = nn.functional.pad(frames, (0, 0, 0, 0, 3, 0))
    folded = line.unflatten(2, (3, 4)).permute(0, 3, 1, 2, 4, 5).flatten(1, 2)
    torch.testing.assert_close(head(folded), head.proj(head.temporal_conv(line)))
    assert {name: tuple(value.shape) for name, value in TrackHead(64, 16, 4, False).state_dict().items()} == {
        "temporal_conv.weight": (16, 64, 4, 1, 1),
        "proj.weight": (16, 16, 1, 1, 1),
    }


def build(module: dict[str, Any] | None, motion: int = 4) -> CausalWanTransformer:
    torch.manual_seed(0)
    layout = {"latents": 4, "motion": motion, "image": 4}
    return CausalWanTransformer(
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=12,
        ffn_dim=32,
        freq_dim=16,
        in_channels=8 + motion,
        out_channels=4,
        text_dim=8,
        input_layout=layout,
        control_module=module,
    ).eval()


def inputs(motion: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(2, 8 + motion, 5, 4, 4), torch.rand(2, 5) * 1000, torch.randn(2, 3, 8)


@pytest.mark.parametrize("name", ["track_ids", "fused_flow"])
@torch.no_grad()
def test_a_transformer_with_a_module_is_saved_and_streams_as_it_runs_at_once(name: str, tmp_path: Any) -> None:
    control: Any = TrackIds(id_dim=6, channels=4) if name == "track_ids" else FusedFlow()
    width = control.width(4)
    model = build(control.module(), width)
    for block in model.blocks:
        if name == "fused_flow":
            nn.init.normal_(block.fuse.weight, std=0.3)
    hidden, timestep, text = inputs(width)
    packed = model(hidden, timestep, text, causal=True).sample
    moved = hidden.clone()
    moved[:, 4 : 4 + width, 3:] += 1
    assert not torch.allclose(model(moved, timestep, text, causal=True).sample, packed, atol=1e-4)
    model.save_pretrained(tmp_path)
    again = CausalWanTransformer.from_pretrained(tmp_path)
    torch.testing.assert_close(again(hidden, timestep, text, causal=True).sample, packed)
    cache = model.new_cache(2, 4, 4)
    none = torch.zeros(2)
    model(hidden[:, :, :1], none, text, kv_cache=cache, update_cache=True)
    clean = torch.zeros_like(timestep)
    clean[:, 1] = timestep[:, 1]
    one = model(hidden[:, :, 1:2], timestep[:, 1], text, kv_cache=cache, frame_offset=1).sample
    whole = model(hidden[:, :, :2], clean[:, :2], text, causal=True).sample
    torch.testing.assert_close(one, whole[:, :, 1:], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_fresh_fuser_ignores_its_motion_and_the_plain_model_is_untouched() -> None:
    model, (hidden, timestep, text) = build(FusedFlow().module()), inputs(4)
    moved = hidden.clone()
    moved[:, 4:8] = torch.randn_like(moved[:, 4:8])
    assert torch.equal(model(hidden, timestep, text).sample, model(moved, timestep, text).sample)
    plain = build(None)
    assert type(plain.patch_embedding) is nn.Conv3d and plain.config.control_module is None
    assert not any("fuse" in name or "head" in name for name in plain.state_dict())


def test_gradients_reach_what_was_attached() -> None:
    model, (hidden, timestep, text) = build(FusedFlow().module()), inputs(4)
    model(hidden, timestep, text).sample.square().mean().backward()
    assert all(block.fuse.weight.grad.abs().sum() > 0 for block in model.blocks)
    model, (hidden, timestep, text) = build(TrackIds(id_dim=6, channels=4).module(), 24), inputs(24)
    model(hidden, timestep, text).sample.square().mean().backward()
    assert model.patch_embedding.head.temporal_conv.weight.grad.abs().sum() > 0


def test_modules_and_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="control_module: 'smell' is unknown; use one of track_ids, fused_flow"):
        build({"name": "smell"})
    with pytest.raises(ValueError, match="control_module: fused_flow needs a slot motion"):
        CausalWanTransformer(num_layers=1, num_attention_heads=1, ffn_dim=8, control_module={"name": "fused_flow"})
    for kind in (Entity, Boxes):
        with pytest.raises(ValueError, match=r"control\.radius: 0 must be above 0"):
            kind(0)
    with pytest.raises(ValueError, match=r"control\.full: 2 must be"):
        Flow(full=2)
    with pytest.raises(ValueError, match=r"control\.id_dim: 0 must be a positive"):
        TrackIds(id_dim=0)
    assert np.isfinite(sinusoids(torch.tensor([0, 99_999]), 7).numpy()).all()
