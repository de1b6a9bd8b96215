"""The pipeline on a tiny real model: one engine behind three doors, causality, batches, saving, LoRA, bad input."""

import json
import math

import numpy as np
import pytest
import torch
from diffusers.loaders import WanLoraLoaderMixin
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file

import ardrag
from ardrag.tracks.tracks import Tracks
from pipelines import ARDragPipeline
from pipelines.image_input import as_rgb


FRAMES, SIDE = 9, 32
PATH = [(0, 0.2, 0.3), (4, 0.5, 0.6), (8, 0.8, 0.4)]


def make_tracks(*paths, num_frames=FRAMES):
    return Tracks.from_points(paths or [PATH], num_frames=num_frames)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def call(pipeline, image, tracks=None, seed=0, **options):
    """One clip [T, H, W, 3] in 0..1."""
    options = {"num_frames": FRAMES, "output_type": "np", "generator": seeded(seed), **options}
    return pipeline(image, "a red star", tracks=tracks, **options).frames[0]


def seed_of(generator_seed=0):
    from pipelines.inputs.arguments import draw_seed

    return draw_seed(seeded(generator_seed))


def streamed(pipeline, image, tracks=None, seed=0, **options):
    parts = list(pipeline.stream(image, "a red star", tracks=tracks, num_frames=FRAMES, seed=seed_of(seed), **options))
    assert [len(part) for part in parts] == [1] + [4] * ((FRAMES - 1) // 4)
    return np.stack([frame for part in parts for frame in part]).astype(np.float32) / 255


def test_public_name():
    assert ardrag.ARDragPipeline is ARDragPipeline


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 3.0}, {"num_inference_steps": 3}])
def test_called_is_streamed_bit_for_bit(pipeline, picture, options):
    tracks = make_tracks()
    called = call(pipeline, picture, tracks, **options)
    assert called.shape == (FRAMES, SIDE, SIDE, 3) and called.std() > 0.02
    assert np.array_equal(called, streamed(pipeline, picture, tracks, **options))


@pytest.mark.parametrize(
    "settings",
    [
        {"scheduler": {"first_frame": "generate"}},
        {"scheduler": {"first_frame": "generate", "eta": 0.0}, "transformer": {"chunk_frames": 3}},
        {"transformer": {"window_frames": 1, "sink_frames": 1}},
        {"image_encoder": False, "transformer": {"image_dim": None, "added_kv_proj_dim": None}},
    ],
    ids=["generate", "chunks of 3", "sink", "no image tokens"],
)
def test_other_models_call_as_they_stream(make_pipeline, picture, settings):
    pipe = make_pipeline(**settings)
    tracks = make_tracks()
    called = call(pipe, picture, tracks)
    parts = list(pipe.stream(picture, "a red star", tracks=tracks, num_frames=FRAMES, seed=seed_of()))
    frames = np.stack([frame for part in parts for frame in part])
    assert np.array_equal(called, frames.astype(np.float32) / 255) and len(frames) == FRAMES


def test_seed_prompt_and_tracks_matter(pipeline, picture):
    base = call(pipeline, picture, make_tracks())
    assert np.array_equal(base, call(pipeline, picture, make_tracks()))
    others = [
        call(pipeline, picture, make_tracks(), seed=1),
        call(pipeline, picture, make_tracks([(0, 0.9, 0.9)])),
        pipeline(picture, "blue", tracks=make_tracks(), output_type="np", generator=seeded()).frames[0],
    ]
    for other in others:
        assert np.array_equal(other[0], base[0]) and not np.array_equal(other[1:], base[1:])


def test_global_random_state_does_not_matter(pipeline, picture):
    torch.manual_seed(1)
    first = call(pipeline, picture, make_tracks())
    torch.manual_seed(2)
    assert np.array_equal(first, call(pipeline, picture, make_tracks()))


@pytest.mark.parametrize("tracks", [Tracks.empty(FRAMES), Tracks.empty(1)])
def test_empty_tracks_are_no_control(pipeline, picture, tracks):
    assert np.array_equal(call(pipeline, picture, tracks), call(pipeline, picture, None))


@pytest.mark.parametrize("latent", [1, 2])
def test_a_later_point_never_changes_an_earlier_frame(pipeline, picture, latent):
    """Bit for bit up to the last pixel frame before the change; different from there on."""
    first = 4 * latent - 3
    points = [(f, 0.1 + 0.1 * f, 0.5) for f in range(FRAMES)]
    moved = [(f, x, 0.5 if f < first else 0.9) for f, x, _ in points]
    straight, bent = (Tracks.from_points([p], num_frames=FRAMES, interp="linear") for p in (points, moved))
    one, other = call(pipeline, picture, straight), call(pipeline, picture, bent)
    assert np.array_equal(one[:first], other[:first])
    assert not np.array_equal(one[first:], other[first:])


def test_a_longer_clip_begins_with_the_shorter_one(pipeline, picture):
    longer = call(pipeline, picture, make_tracks(), num_frames=17)
    assert np.array_equal(longer[:FRAMES], call(pipeline, picture, make_tracks()))


def test_a_clip_does_not_depend_on_its_batch(pipeline, picture):
    other = picture.rotate(90)
    tracks = [make_tracks(), make_tracks([(0, 0.7, 0.7)])]
    both = pipeline(
        [picture, other],
        ["a red star", "a blue circle"],
        tracks=tracks,
        generator=[seeded(1), seeded(2)],
        output_type="np",
    )
    first = pipeline(picture, "a red star", tracks=tracks[0], generator=seeded(1), output_type="np")
    second = pipeline(other, "a blue circle", tracks=tracks[1], generator=seeded(2), output_type="np")
    assert np.array_equal(both.frames, np.concatenate([first.frames, second.frames]))
    assert both.tracks == [first.tracks[0], second.tracks[0]]


def test_output_types(pipeline, picture):
    numbers = call(pipeline, picture)
    pictures = call(pipeline, picture, output_type="pil")
    tensors, tracks = pipeline(
        picture, "a red star", num_frames=FRAMES, generator=seeded(), output_type="pt", return_dict=False
    )
    assert isinstance(pictures[0], Image.Image) and len(pictures) == FRAMES
    assert np.array_equal(np.stack([np.asarray(p) for p in pictures]).astype(np.float32) / 255, numbers)
    assert tensors.shape == (1, FRAMES, 3, SIDE, SIDE)
    assert np.array_equal(tensors[0].permute(0, 2, 3, 1).numpy(), numbers)
    assert tracks[0].num_frames == FRAMES


def test_applied_tracks_replay_the_clip(pipeline, picture):
    drawn = make_tracks(PATH, [(2, 0.6, 0.1), (5, 0.2, 0.2, 0.5)])
    output = pipeline(picture, tracks=drawn, generator=seeded(), output_type="np")
    again = pipeline(picture, tracks=output.tracks[0], generator=seeded(), output_type="np")
    assert np.array_equal(output.frames, again.frames)


def test_applied_tracks_replay_points_out_of_sight(pipeline, picture):
    """Camera pins that a zoom drives farther off than a track file may say."""
    keys = [{"f": 0}, {"f": 8, "zoom": 8.0}]
    document = {"schema": "ardrag.tracks/v1", "num_frames": FRAMES, "camera": {"keys": keys}}
    drawn = Tracks.from_json(document)
    output = pipeline(picture, tracks=drawn, generator=seeded(), output_type="np")
    again = pipeline(picture, tracks=output.tracks[0], generator=seeded(), output_type="np")
    assert np.array_equal(output.frames, again.frames)
    assert not np.array_equal(output.frames[0], call(pipeline, picture))


def test_length_follows_tracks_or_33(pipeline, picture):
    assert len(pipeline(picture, tracks=make_tracks()).frames[0]) == FRAMES
    assert sum(len(part) for part in pipeline.stream(picture)) == 33


def test_nearest_bucket_and_asked_size(make_pipeline, picture):
    pipe = make_pipeline()
    pipe.register_to_config(buckets=[[32, 32], [16, 48]])
    assert call(pipe, picture.resize((90, 30))).shape[1:3] == (16, 48)
    assert call(pipe, picture, height=48, width=32).shape[1:3] == (48, 32)


def test_saved_pipeline_makes_the_same_pixels(pipeline, picture, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["transformer"] == ["ardrag.transformer", "CausalWanTransformer"]
    assert not list((tmp_path / "saved").rglob("*.bin"))
    loaded = ARDragPipeline.from_pretrained(tmp_path / "saved")
    loaded.set_progress_bar_config(disable=True)
    assert loaded.scheduler.config.sigmas == pipeline.scheduler.config.sigmas
    assert loaded.config.buckets == pipeline.config.buckets
    for name in ("transformer", "vae", "text_encoder", "image_encoder"):
        ours, theirs = getattr(pipeline, name).state_dict(), getattr(loaded, name).state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    # Equal weights at other places in memory: sums may be rounded in another order.
    difference = call(loaded, picture, make_tracks()) - call(pipeline, picture, make_tracks())
    assert np.abs(difference).max() <= 1.01 / 255


@pytest.mark.parametrize("coloured", [False, True])
def test_checkpoints_from_before_controls_load_as_they_were(make_pipeline, picture, tmp_path, coloured):
    pipeline = make_pipeline()
    pipeline.register_to_config(control={"name": "coloured" if coloured else "heat"})
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    del index["control"]
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "coloured_tracks": coloured}))
    old = ARDragPipeline.from_pretrained(tmp_path)
    assert old.control == pipeline.control
    tracks = make_tracks([(0, 0.2, 0.5), (8, 0.8, 0.5)], [(0, 0.9, 0.1)])
    assert np.abs(call(old, picture, tracks) - call(pipeline, picture, tracks)).max() <= 1.01 / 255
    old.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "model_index.json").read_text())["control"] == pipeline.config.control


def test_a_control_that_this_version_does_not_know_is_named(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "control": {"name": "smell"}}))
    with pytest.raises(ValueError, match="control: 'smell' is unknown.*update this package"):
        ARDragPipeline.from_pretrained(tmp_path)


def test_a_model_without_image_encoder_is_saved_without(make_pipeline, picture, tmp_path):
    pipe = make_pipeline(image_encoder=False, transformer={"image_dim": None, "added_kv_proj_dim": None})
    pipe.save_pretrained(tmp_path)
    loaded = ARDragPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.image_encoder is None
    assert np.abs(call(loaded, picture) - call(pipe, picture)).max() <= 1.01 / 255


def test_what_knows_outlines_is_a_part_like_any_other(make_pipeline, picture, outline, tmp_path):
    pipe = make_pipeline()
    assert pipe.outline is None
    pipe.register_to_config(control={"name": "cutout"})
    with pytest.raises(ValueError, match="outline: the control cutout asks a network .* has none; give it one"):
        call(pipe, picture)
    pipe.register_modules(outline=outline)
    pipe.save_pretrained(tmp_path)
    loaded, other = ARDragPipeline.from_pretrained(tmp_path), ARDragPipeline(**pipe.components)
    assert other.outline is outline and other.control == loaded.control == pipe.control
    made = call(pipe, picture)
    for same in (loaded, other):
        same.set_progress_bar_config(disable=True)
        assert np.abs(call(same, picture) - made).max() <= 1.01 / 255


def test_callback_counts_steps_over_all_latents(pipeline, picture):
    seen = []

    def callback(pipe, step, timestep, tensors):
        assert pipe is pipeline
        seen.append((step, timestep, tuple(tensors["latents"].shape)))
        return {}

    plain = call(pipeline, picture, make_tracks())
    watched = call(pipeline, picture, make_tracks(), callback_on_step_end=callback)
    assert np.array_equal(plain, watched)
    assert seen == [(step, [1000, 600][step % 2], (1, 4, 1, 4, 4)) for step in range(4)]


def test_callback_changes_latents(pipeline, picture):
    def callback(pipe, step, timestep, tensors):
        return {"latents": torch.zeros_like(tensors["latents"])}

    changed = call(pipeline, picture, make_tracks(), callback_on_step_end=callback)
    assert not np.array_equal(changed, call(pipeline, picture, make_tracks()))
    # Zeros whatever the seed: nothing of the noise is left.
    assert np.array_equal(changed, call(pipeline, picture, make_tracks(), seed=5, callback_on_step_end=callback))


def save_lora(transformer, folder):
    """A LoRA file in diffusers' Wan format, from random adapter weights that do something."""
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v", "ffn.net.2"], init_lora_weights=False))
    weights = get_peft_model_state_dict(transformer)
    WanLoraLoaderMixin.save_lora_weights(folder, transformer_lora_layers=weights)


def test_lora_loads_and_unloads(make_pipeline, pipeline, picture, tmp_path):
    save_lora(make_pipeline().transformer, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    pipe, plain = make_pipeline(), call(pipeline, picture, make_tracks())
    pipe.load_lora_weights(tmp_path, adapter_name="drag")
    adapted = call(pipe, picture, make_tracks())
    assert not np.array_equal(adapted[1:], plain[1:])
    pipe.set_adapters("drag", 0.0)
    assert np.abs(call(pipe, picture, make_tracks()) - plain).max() <= 1 / 255
    pipe.set_adapters("drag", 1.0)
    pipe.fuse_lora()
    assert np.abs(call(pipe, picture, make_tracks()) - adapted).max() <= 2 / 255
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    assert np.abs(call(pipe, picture, make_tracks()) - plain).max() <= 2 / 255


def test_pickled_loras_are_not_opened(make_pipeline, tmp_path):
    pipe = make_pipeline()
    save_lora(make_pipeline().transformer, tmp_path)
    good, weights = tmp_path / "pytorch_lora_weights.safetensors", tmp_path / "pytorch_lora_weights.bin"
    torch.save(load_file(good), weights)
    good.unlink()
    ways = [
        ((tmp_path,), {}),
        ((weights,), {}),
        ((tmp_path,), {"weight_name": weights.name}),
        ((tmp_path,), {"weight_name": "x.safetensors"}),
        ((tmp_path,), {"use_safetensors": False}),
    ]
    for arguments, options in ways:
        with pytest.raises(ValueError, match="lora: .*convert"):
            pipe.load_lora_weights(*arguments, **options)
    assert pipe.get_list_adapters() == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="model offload needs an accelerator")
def test_model_offload(make_pipeline, picture):
    pipe = make_pipeline()
    expected = call(pipe, picture, make_tracks())
    pipe.enable_model_cpu_offload()
    assert np.abs(call(pipe, picture, make_tracks()) - expected).mean() < 0.01


def test_half_precision_runs(make_pipeline, picture):
    pipe = make_pipeline().to(torch.bfloat16)
    frames = call(pipe, picture, make_tracks())
    assert np.isfinite(frames).all() and frames.std() > 0.02


def test_one_progress_bar_per_clip(make_pipeline, picture, capsys):
    pipe = make_pipeline()
    pipe.set_progress_bar_config(disable=False)
    call(pipe, picture)
    assert f"{FRAMES}/{FRAMES}" in capsys.readouterr().err


GREY, RGBA, TINY = (Image.new(*args) for args in (("L", (32, 32)), ("RGBA", (32, 32)), ("RGB", (7, 40))))
BAD_CALLS = {
    "not there": ({"image": "cat.png"}, r"image: cat.png cannot be opened"),
    "not a picture": ({"image": 7}, r"image: got int; give a PIL picture, a path, an array or a tensor"),
    "no picture": ({"image": []}, r"image: the list is empty"),
    "another canvas": (
        {"tracks": Tracks.from_points([PATH], num_frames=FRAMES, width=64, height=32)},
        r"canvas: the tracks were drawn on 64 x 32, and the picture has another shape, 32 x 32",
    ),
    "too small": ({"image": TINY}, r"image: 7 x 40 is too small; use at least 8 x 8"),
    "tracks are points": ({"tracks": [[(0, 0.5, 0.5)]]}, r"tracks: list is not what is expected"),
    "tracks longer than clip": (
        {"tracks": make_tracks(num_frames=17)},
        r"tracks: they last 17 frames, the clip only 9; use tracks.retimed\(9\)",
    ),
    "num_frames 10": ({"num_frames": 10}, r"num_frames: 10 is not 4k \+ 1; use 9 or 13"),
    "num_frames 1": ({"num_frames": 1}, r"num_frames: 1 must be a whole number of at least 5"),
    "num_frames 9.0": ({"num_frames": 9.0}, r"num_frames: 9.0 must be a whole number"),
    "num_frames True": ({"num_frames": True}, r"num_frames: True must be a whole number"),
    "height alone": ({"height": 32}, r"height and width: give both or neither"),
    "height 40": ({"height": 40, "width": 32}, r"height: 40 is not a positive multiple of 16; use 32"),
    "width -16": ({"height": 32, "width": -16}, r"width: -16 is not a positive multiple of 16; use 16"),
    "height text": ({"height": "32", "width": 32}, r"height: '32' must be a whole number of pixels"),
    "no steps": ({"num_inference_steps": 0}, r"num_inference_steps: 0 must be a whole number of at least 1"),
    "half a step": ({"num_inference_steps": 2.5}, r"num_inference_steps: 2.5 must be a whole number"),
    "guidance": ({"guidance_scale": math.nan}, r"guidance_scale: nan must be a finite number"),
    "output_type": ({"output_type": "gif"}, r"output_type: 'gif' is unknown; use one of pil, np, pt, latent"),
    "two negatives": ({"negative_prompt": ["a", "b"]}, r"negative_prompt: 2 given for 1 clip\(s\); give one, or one"),
    "no prompts": ({"prompt": []}, r"prompt: the list is empty"),
    "no video": ({"num_videos_per_prompt": 0}, r"num_videos_per_prompt: 0 must be a whole number of at least 1"),
    "text twice": (
        {"prompt": "a", "prompt_embeds": torch.zeros(1, 3, 64)},
        r"prompt and prompt_embeds: both are given; leave one of them out",
    ),
    "narrow tokens": (
        {"prompt_embeds": torch.zeros(1, 3, 8)},
        r"prompt_embeds: shape \[1, 3, 8\] must be \[B, any, ",
    ),
    "tokens of one length": (
        {"prompt_embeds": torch.zeros(1, 3, 64), "negative_prompt_embeds": torch.zeros(1, 4, 64), "guidance_scale": 2},
        r"negative_prompt_embeds: shape \[1, 4, 64\] must be that of the wanted ones, \[1, 3, 64\]",
    ),
    "short noise": (
        {"latents": torch.zeros(1, 4, 2, 4, 4)},
        r"latents: shape \[1, 4, 2, 4, 4\] must be \[B, 4, 3, 4, 4\]; it is the noise to start from",
    ),
    "noise of three": ({"latents": torch.zeros(3, 4, 3, 4, 4)}, r"latents: 3 rows given for 1 clip\(s\)"),
    "sequence": ({"max_sequence_length": True}, r"max_sequence_length: True must be a whole number of at least 1"),
    "prompt number": ({"prompt": 7}, r"prompt: int is not what is expected"),
    "generator": ({"generator": 7}, r"generator: int is not what is expected"),
    "callback tensors": (
        {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]},
        r"unknown \['prompt_embeds'\]; only 'latents' exists",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_name_the_argument_and_the_remedy(pipeline, picture, monkeypatch, name):
    """And nothing has been computed by then."""
    monkeypatch.setattr(ARDragPipeline, "_run", lambda *_: pytest.fail("computed"))
    changes, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        pipeline(**{"image": picture, "num_frames": FRAMES, **changes})


def test_clips_of_several_sizes_are_lists_of_pictures(pipeline, picture):
    lengths = [make_tracks(), make_tracks([(0, 0.5, 0.5)], num_frames=5)]
    with pytest.raises(ValueError, match="output_type: 'np' stacks clips of one length and size; use 'pil'"):
        pipeline([picture, picture], tracks=lengths, output_type="np")
    assert [len(clip) for clip in pipeline([picture, picture], tracks=lengths).frames] == [9, 5]


@pytest.mark.parametrize(
    "changes", [{"num_frames": 10}, {"tracks": "right"}, {"image": TINY}, {"num_inference_steps": -1}, {"seed": -3}]
)
def test_stream_checks_before_its_first_frame(pipeline, picture, changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        pipeline.stream(**{"image": picture, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed: -1 must be a whole number of at least 0"),
        ({"seed": 0.5}, "seed: 0.5 must be a whole number"),
        ({"history_latents": -1}, "history_latents: -1 must be a whole number of at least 0; use 0 for no rewinding"),
        ({"height": 30, "width": 32}, "height: 30 is not a positive multiple of 16; use 32"),
        ({"num_inference_steps": 0}, "num_inference_steps: 0"),
        ({"guidance_scale": math.inf}, "guidance_scale: inf must be a finite number"),
    ],
)
def test_bad_sessions_are_refused(pipeline, picture, changes, message):
    with pytest.raises(ValueError, match=message):
        pipeline.start_session(picture, **changes)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[(0, math.nan, 0.5)]], r"tracks\[0\].points\[0\].x"),
        ([[(0, 0.5, math.inf)]], r"tracks\[0\].points\[0\].y"),
        ([[(0, 320.0, 0.5)]], r"tracks\[0\].points\[0\].x"),
        ([[(12, 0.5, 0.5)]], r"tracks\[0\].points\[0\].f is 12, but the clip ends at frame 8"),
    ],
)
def test_bad_points_never_become_tracks(points, message):
    with pytest.raises(ValueError, match=message):
        Tracks.from_points(points, num_frames=FRAMES)


def test_every_kind_of_picture_is_the_same_picture(pipeline, picture, tmp_path):
    """PIL, path, array, tensor, with alpha, turned by the camera: called and streamed."""
    picture.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    pixels = np.asarray(picture)
    kinds = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        pixels,
        pixels / 255,
        torch.from_numpy(pixels.copy()).movedim(2, 0),
    ]
    kinds += [picture.convert("RGBA"), Image.open(tmp_path / "turned.png")]
    expected = call(pipeline, picture, num_frames=5)
    for kind in kinds:
        assert np.array_equal(call(pipeline, kind, num_frames=5), expected)
        parts = pipeline.stream(kind, "a red star", num_frames=5, seed=seed_of())
        assert np.array_equal(np.stack([f for part in parts for f in part]).astype(np.float32) / 255, expected)
    batch = np.stack([pixels, pixels])
    assert len(pipeline(batch, num_frames=5).frames) == 2
    grey = Image.fromarray(pixels[..., 0])
    assert np.array_equal(call(pipeline, grey, num_frames=5), call(pipeline, as_rgb(grey), num_frames=5))


PORTRAIT = Tracks.from_points([[(0, 0.3, 0.4), (8, 0.7, 0.6)], [(0, 0.5, 0.1)]], num_frames=FRAMES)
MIDDLE = Tracks.from_points([[(0, 0.3, 0.3), (8, 0.7, 0.7)]], num_frames=FRAMES)


@pytest.fixture
def portrait(picture):
    """The picture with as much again above and below, which is cut away."""
    tall = Image.new("RGB", (SIDE, 2 * SIDE), (0, 200, 0))
    tall.paste(picture, (0, SIDE // 2))
    return tall


def test_tracks_go_through_the_crop_of_their_picture(pipeline, picture, portrait):
    """What happens on the portrait is what happens on its middle with tracks moved by hand."""
    expected = call(pipeline, picture, MIDDLE)
    assert not np.array_equal(expected, call(pipeline, picture, None))
    assert np.abs(call(pipeline, portrait, PORTRAIT) - expected).max() < 1e-3
    assert np.abs(streamed(pipeline, portrait, PORTRAIT) - expected).max() < 0.005  # one grey value
    sized = Tracks.from_points(
        [[(0, 0.3 * SIDE, 0.8 * SIDE), (8, 0.7 * SIDE, 1.2 * SIDE)]], num_frames=FRAMES, width=SIDE, height=2 * SIDE
    )
    assert np.abs(call(pipeline, portrait, sized) - expected).max() < 1e-3


def test_sessions_take_and_give_places_of_the_picture(pipeline, picture, portrait):
    one, other = (pipeline.start_session(image, "a red star", seed=3) for image in (portrait, picture))
    for y, cut in ((0.4, 0.3), (0.5, 0.5), (0.6, 0.7)):
        frames = np.stack(one.step([(0.3, y)])), np.stack(other.step([(0.3, cut)]))
        assert np.abs(frames[0].astype(int) - frames[1]).max() <= 1
    tracks = one.tracks
    assert (tracks.canvas.width, tracks.canvas.height) == (SIDE, 2 * SIDE)
    assert tracks.to_array().xy[-1, 0] == pytest.approx([0.3, 0.6])
    parts = pipeline.stream(portrait, "a red star", tracks=tracks, seed=3)
    assert np.array_equal(np.stack([f for part in parts for f in part]), np.stack(list(one.frames)))
    with pytest.raises(ValueError, match="canvas: the tracks were drawn on 32 x 64"):
        other.step(tracks)


def test_negative_prompt_without_guidance_is_mentioned(pipeline, picture, caplog):
    pipeline.start_session(picture, negative_prompt="blurry")
    assert "negative_prompt has no effect while guidance_scale is 1" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-checkpoint", "model: no-such-checkpoint does not exist; give a folder or a Hub name"),
        ("./nowhere/model", "model: ./nowhere/model does not exist"),
        ("{tmp}", "has no model_index.json; give the folder that save_pretrained wrote"),
        ("{tmp}/broken", "cannot be loaded"),
    ],
)
def test_unknown_checkpoints_are_refused(tmp_path, name, message):
    (tmp_path / "broken").mkdir()
    index = {"_class_name": "ARDragPipeline", "transformer": ["ardrag.transformer", "CausalWanTransformer"]}
    (tmp_path / "broken" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        ARDragPipeline.from_pretrained(name.format(tmp=tmp_path))


def test_unknown_hub_repository_offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="model: nobody/no-such-model is not whole in the cache"):
        ARDragPipeline.from_pretrained("nobody/no-such-model", local_files_only=True)
