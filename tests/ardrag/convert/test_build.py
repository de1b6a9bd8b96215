"""Converted models against the original computation, row by row of the table of sources."""

import math
from dataclasses import replace

import pytest
import torch

from ardrag.controls.control import Rows, Scene
from ardrag.controls.track_ids import track_numbers
from ardrag.convert.build import control_of, convert, original_state
from ardrag.convert.reading import open_weights
from ardrag.convert.recipes import (
    CAUSAL_TRACKS,
    FUN_CONTROL,
    FUN_INP,
    STUDENTS,
    TEXT_TO_VIDEO,
    TRACKS,
    few_steps,
    recognise,
    student_recipe,
)
from ardrag.tracks.tracks import Tracks
from tests import wan_files


ROWS = {"fun-control": (48, True, FUN_CONTROL), "fun-inp": (36, True, FUN_INP), "t2v": (16, False, TEXT_TO_VIDEO)}


def opened(state, tmp_path, name="diffusion_pytorch_model"):
    return open_weights(wan_files.save(state, tmp_path / f"{name}.safetensors"))


def arguments_for(model):
    return wan_files.inputs_for(model.config.in_channels, model.config.image_dim)


def both(state, model, image):
    """Answers of the original and of ours, whose new channels hold something arbitrary."""
    ours = arguments_for(model)
    theirs = {**ours, "hidden_states": ours["hidden_states"][:, : state["patch_embedding.weight"].shape[1]]}
    if not image:
        del theirs["encoder_hidden_states_image"]
    with torch.no_grad():
        return wan_files.diffusers_model(state)(**theirs).sample, model(**ours).sample


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("keys", ["original", "diffusers"])
def test_each_source_computes_what_it_computed(row, keys, tmp_path):
    channels, image, recipe = ROWS[row]
    state = wan_files.original_state(channels, image)
    saved = state if keys == "original" else wan_files.diffusers_state(state)
    weights = opened(saved, tmp_path)
    assert recognise(weights) is recipe
    model = convert(weights, recipe)
    theirs, ours = both(state, model, image)
    assert (theirs - ours).abs().max() < 1e-5
    assert theirs.abs().max() > 0.01


def test_students_and_track_models_are_the_same_computation(tmp_path):
    state = wan_files.original_state(16, image=False)
    torch.save({"generator_ema": {f"model.{key}": value for key, value in state.items()}}, tmp_path / "student.pt")
    model = convert(open_weights(tmp_path / "student.pt"), student_recipe("self-forcing"))
    theirs, ours = both(state, model, image=False)
    assert (theirs - ours).abs().max() < 1e-5


def track_state(bias):
    """Track-v0's layout: 52 channels, the last 16 of a head that reads identities of tracks."""
    state = wan_files.original_state(52, image=True)
    torch.manual_seed(4)
    head = {"temporal_conv.weight": (16, 64, 4, 1, 1), "proj.weight": (16, 16, 1, 1, 1)}
    head |= {"temporal_conv.bias": (16,), "proj.bias": (16,)} if bias else {}
    return state, {f"track_encoder.{key}": 0.2 * torch.randn(shape) for key, shape in head.items()}


def literal_identities(tracks, numbers, frames, height, width, dim=64):
    """Their encoding as it is described, cell by cell: ``[1, dim, frames, height, width]``."""
    xy, visible, force = tracks.to_array(frames=range(frames))
    grid = torch.zeros(1, dim, frames, height, width)
    for t in range(frames):
        for p, number in enumerate(numbers.tolist()):
            if not visible[t, p]:
                continue
            row, column = round(float(xy[t, p, 1]) * (height - 1)), round(float(xy[t, p, 0]) * (width - 1))
            for k in range(dim // 2):
                angle = number * math.exp(-math.log(10_000) * k / (dim // 2))
                grid[0, k, t, row, column] += float(force[t, p]) * math.cos(angle)
                grid[0, dim // 2 + k, t, row, column] += float(force[t, p]) * math.sin(angle)
    return grid


@pytest.mark.parametrize("bias", [False, True])
def test_track_models_are_the_same_computation(bias, tmp_path):
    """From tracks to the answer: our control and model against their encoding, head and transformer."""
    state, head = track_state(bias)
    weights = opened({**wan_files.diffusers_state(state), **head}, tmp_path)
    assert recognise(weights) is TRACKS and recognise(weights, causal=True) is CAUSAL_TRACKS
    model = convert(weights, CAUSAL_TRACKS)
    assert model.config.input_order == ["latents", "mask", "image", "motion"]
    tracks = Tracks.from_points([[(0, 0.1, 0.2), (8, 0.9, 0.6)], [(2, 0.5, 0.5), (8, 0.5, 0.9)]], num_frames=9)
    control = replace(control_of(weights, TRACKS), max_id=50)  # large ones lose digits in float32
    scene = Scene(torch.zeros(3, 32, 32), torch.zeros(1, 16, 1, 4, 4), seed=7)
    vae = wan_files.small_vae()
    motion = control.clip(vae, scene, Rows.of(tracks))
    stream, parts = control.stream(vae, scene), []
    for frames in (range(1), range(1, 5), range(5, 9)):
        parts.append(stream.next(Rows.of(tracks, frames), lambda: scene.picture))
    assert torch.equal(torch.cat(parts, dim=2), motion)  # windowed is whole
    grid = literal_identities(tracks, track_numbers(7, 2, control.max_id), 9, 4, 4)
    line = torch.nn.functional.pad(grid, (0, 0, 0, 0, 3, 0))
    for layer, stride in (("temporal_conv", (4, 1, 1)), ("proj", 1)):
        kernel, shift = head[f"track_encoder.{layer}.weight"], head.get(f"track_encoder.{layer}.bias")
        line = torch.nn.functional.conv3d(line, kernel, shift, stride)
    arguments = wan_files.inputs_for(36, wan_files.IMAGE)
    given = arguments.pop("hidden_states")
    with torch.no_grad():
        theirs = wan_files.diffusers_model(state)(torch.cat([given, line], dim=1), **arguments).sample
        ours = model(torch.cat([given, motion], dim=1), **arguments).sample
    assert (theirs - ours).abs().max() < 1e-5 and theirs.abs().max() > 0.01
    again = dict(original_state(model))
    assert set(again) == {*state, *head} and all(torch.equal(again[key], {**state, **head}[key]) for key in again)


def test_a_track_head_of_another_size(tmp_path):
    state, head = track_state(False)
    head["track_encoder.temporal_conv.weight"] = torch.zeros(8, 64, 4, 1, 1)
    with pytest.raises(ValueError, match=r"track_encoder.temporal_conv.weight is \[8, 64, 4, 1, 1\], should be \[16"):
        convert(opened({**state, **head}, tmp_path), TRACKS)


@pytest.mark.parametrize("row", ["fun-inp", "t2v"])
def test_new_channels_are_not_seen_whatever_they_hold(row, tmp_path):
    channels, image, recipe = ROWS[row]
    model = convert(opened(wan_files.original_state(channels, image), tmp_path), recipe)
    arguments = arguments_for(model)
    other = arguments["hidden_states"].clone()
    other[:, channels:] = 1e4
    with torch.no_grad():
        one, two = model(**arguments).sample, model(**{**arguments, "hidden_states": other}).sample
    assert torch.allclose(one, two, atol=1e-6)


def test_motion_columns_of_another_checkpoint(tmp_path):
    control = wan_files.original_state(48, image=True, seed=3)
    inp = wan_files.original_state(36, image=True)
    weights, motion = opened(inp, tmp_path, "inp"), opened(control, tmp_path, "control")
    model = convert(weights, FUN_INP, motion)
    patches = model.patch_embedding.weight
    assert torch.equal(patches[:, :36], inp["patch_embedding.weight"])
    assert torch.equal(patches[:, 36:], control["patch_embedding.weight"][:, 16:32])
    with pytest.raises(ValueError, match="motion_from: Wan2.1-Fun-1.3B-Control has a trained motion slot of its own"):
        convert(motion, FUN_CONTROL, motion)
    with pytest.raises(ValueError, match=r"motion_from: .*patch_embedding of \[256, 36\], not \[256, 48\]"):
        convert(weights, FUN_INP, weights)


def test_a_new_image_branch_adds_nothing_but_can_learn(tmp_path):
    model = convert(opened(wan_files.original_state(16, image=False), tmp_path), TEXT_TO_VIDEO)
    arguments = arguments_for(model)
    with torch.no_grad():
        without = model(**{**arguments, "encoder_hidden_states_image": None}).sample
        assert torch.equal(model(**arguments).sample, without)
    model.requires_grad_(True)
    model(**arguments).sample.square().mean().backward()
    for block in model.blocks:
        assert block.attn2.add_v_proj.weight.grad.abs().max() > 0
    again = convert(opened(wan_files.original_state(16, image=False), tmp_path), TEXT_TO_VIDEO)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_back_to_the_original_loses_nothing(dtype, tmp_path):
    state = wan_files.original_state(48, image=True, dtype=dtype)
    model = convert(opened(state, tmp_path), FUN_CONTROL)
    back = dict(original_state(model))
    assert set(back) == set(state)
    assert all(torch.equal(back[key], state[key]) and back[key].dtype == dtype for key in state)
    assert model.dtype == dtype
    wider = convert(opened(state, tmp_path), FUN_CONTROL, dtype=torch.float32)
    assert wider.dtype == torch.float32


def test_what_is_saved_in_the_configuration(tmp_path):
    model = convert(opened(wan_files.original_state(48, image=True), tmp_path), FUN_CONTROL)
    config = model.config
    assert dict(config.input_layout) == {"latents": 16, "motion": 16, "image": 16}
    assert list(config.input_order) == ["latents", "motion", "image"]
    assert (config.image_fill, config.image_context) == ("zeros", "all")
    assert config.num_attention_heads == 2 and config.num_layers == 2 and config.ffn_dim == 96
    assert list(TRACKS.layout) == ["latents", "mask", "image", "motion"]
    student = student_recipe("causvid").transformer
    assert student == {"chunk_frames": 3, "window_frames": 18}


def test_schedules_of_students_are_the_published_ones():
    assert few_steps(5.0, 1.0, 0.75, 0.5, 0.25)["sigmas"] == pytest.approx([1, 0.9375, 0.83333, 0.625, 0], abs=1e-5)
    assert STUDENTS["causvid"][1]["sigmas"] == [1.0, 0.757, 0.522, 0.0]
    assert CAUSAL_TRACKS.scheduler["sigmas"] == pytest.approx([1, 18 / 19, 6 / 7, 2 / 3, 0], abs=1e-5)
    with pytest.raises(ValueError, match="student: 'self forcing' is unknown; use one of self-forcing"):
        student_recipe("self forcing")


REFUSED = {
    "ref_conv.weight": (48, {}, "holds ref_conv.weight: it puts the tokens of a reference picture"),
    "control_adapter.conv.weight": (32, {}, "steered by camera poses"),
    "vace_patch_embedding.weight": (16, {}, "it is a VACE model"),
    "14B": (36, {"dim": 5120}, r"14B file \(width 5120\)"),
    "40": (40, {}, "reads 40 channels; known are 16"),
    "no heads": (48, {"dim": 192}, "192 wide, not a multiple of 128"),
    "5B": (48, {"out_dim": 48}, "makes latents of 48 channels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_checkpoints_of_another_kind(case, tmp_path):
    channels, sizes, message = REFUSED[case]
    sizes = dict(sizes)
    state = wan_files.original_state(channels, True, torch.bfloat16, **{k: v for k, v in sizes.items() if v < 5000})
    if sizes.get("dim", 0) > 5000:
        state["patch_embedding.weight"] = torch.zeros(5120, channels, 1, 2, 2, dtype=torch.bfloat16)
    if "." in case:
        state[case] = torch.zeros(4, 4, dtype=torch.bfloat16)
    weights = opened(state, tmp_path)
    with pytest.raises(ValueError, match=message):
        convert(weights, recognise(weights))


def test_keys_and_shapes_are_checked_before_numbers_are_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("read")

    state = wan_files.original_state(48, image=True)
    changes = {
        "holds blocks.0.extra.weight, which Wan2.1": {"blocks.0.extra.weight": torch.zeros(2)},
        "lacks blocks.1.ffn.2.weight; it is not whole": {"blocks.1.ffn.2.weight": None},
        "lacks text_embedding.0.weight": {"text_embedding.0.weight": None},
        r"blocks.1.ffn.2.weight is \[2, 2\], should be \[256, 96\]": {"blocks.1.ffn.2.weight": torch.zeros(2, 2)},
        "holds blocks.0.norm3.bias, which its other shapes leave no room for": {"blocks.0.norm3.weight": None},
    }
    for message, change in changes.items():
        changed = {key: value for key, value in {**state, **change}.items() if value is not None}
        weights = opened(changed, tmp_path)
        monkeypatch.setattr(type(weights), "__getitem__", refuse)
        with pytest.raises(ValueError, match=message):
            convert(weights, recognise(weights))
        monkeypatch.undo()
    with pytest.raises(ValueError, match="holds no patch_embedding.weight; it is no Wan transformer"):
        recognise(opened({"x": torch.zeros(1)}, tmp_path))
