"""A call as users of diffusers make it: several clips of a picture, own tokens and noise, latents, a stop."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from peft import LoraConfig

from ardrag.controls.build import build_control
from ardrag.tracks.tracks import Tracks
from pipelines import ARDragPipeline


FRAMES = 9
TRACKS = Tracks.from_points([[(0, 0.2, 0.3), (8, 0.8, 0.4)]], num_frames=FRAMES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def call(pipeline, picture, prompt="a red star", **options):
    defaults = {"tracks": TRACKS, "num_frames": FRAMES, "output_type": "np", "generator": seeded()}
    return pipeline(picture, prompt, **{**defaults, **options}).frames


def test_several_prompts_and_videos_of_one_picture(pipeline, picture):
    prompts = ["a red star", "a blue circle"]
    generators = [seeded(seed) for seed in range(4)]
    clips = call(pipeline, picture, prompts, num_videos_per_prompt=2, generator=generators)
    assert clips.shape[0] == 4
    for i, clip in enumerate(clips):
        assert np.array_equal(clip, call(pipeline, picture, prompts[i // 2], generator=seeded(i))[0])
    both = call(pipeline, [picture, picture], prompts, num_videos_per_prompt=np.int64(2), generator=seeded())
    assert both.shape[0] == 4 and not np.array_equal(both[0], both[1])  # one generator goes on from clip to clip


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_tokens_instead_of_texts(pipeline, picture, guidance_scale):
    wanted, negative = pipeline.encode_prompt("a red star", "blurry", guidance_scale != 1)
    assert (negative is None) == (guidance_scale == 1)
    options = {"guidance_scale": guidance_scale}
    by_text = call(pipeline, picture, negative_prompt="blurry", **options)
    by_tokens = call(pipeline, picture, None, prompt_embeds=wanted, negative_prompt_embeds=negative, **options)
    assert np.array_equal(by_text, by_tokens)


def test_no_prompt_is_an_empty_one(pipeline, picture):
    assert np.array_equal(call(pipeline, picture, None, negative_prompt=None), call(pipeline, picture, ""))


def test_encode_prompt_repeats_and_cuts(pipeline):
    rows, negatives = pipeline.encode_prompt(["a", "b"], "c", num_videos_per_prompt=2, max_sequence_length=5)
    assert rows.shape == negatives.shape == (4, 5, 64) and torch.equal(rows[0], rows[1])
    assert torch.equal(negatives[0], negatives[3]) and not torch.equal(rows[1], rows[2])
    assert (
        pipeline.encode_prompt("a", do_classifier_free_guidance=False, dtype=torch.float64)[0].dtype == torch.float64
    )


def test_without_a_text_encoder(make_pipeline, picture):
    pipe = make_pipeline()
    tokens, _ = pipe.encode_prompt("a red star")
    expected = call(pipe, picture)
    pipe.text_encoder = pipe.tokenizer = None
    assert np.array_equal(call(pipe, picture, None, prompt_embeds=tokens), expected)
    with pytest.raises(ValueError, match="prompt: this pipeline has no text encoder; give prompt_embeds"):
        call(pipe, picture)


def test_noise_of_ones_own(make_pipeline, pipeline, picture):
    """In the place of the seed's, for all latents that are not given; nothing else of the seed changes."""
    noise = torch.randn(1, 4, 3, 4, 4)
    ours = call(pipeline, picture, latents=noise)
    assert np.array_equal(ours, call(pipeline, picture, latents=noise.clone()))
    assert not np.array_equal(ours[:, 1:], call(pipeline, picture)[:, 1:])
    changed = noise.clone()
    changed[:, :, 2] += 1
    other = call(pipeline, picture, latents=changed)
    assert np.array_equal(other[:, :5], ours[:, :5]) and not np.array_equal(other[:, 5:], ours[:, 5:])
    ode = make_pipeline(scheduler={"eta": 0.0})
    seen = []
    call(ode, picture, latents=noise, callback_on_step_end=lambda *args: seen.append(args[3]["latents"]) or {})
    first = noise[:, :, 1:2] + (seen[1] - noise[:, :, 1:2])
    assert len(seen) == 4 and torch.isfinite(first).all()


@pytest.mark.parametrize("settings", [{}, {"transformer": {"chunk_frames": 3}}], ids=["one by one", "threes"])
def test_latents_are_what_is_decoded(make_pipeline, picture, settings):
    from ardrag.streaming_vae import StreamingVAE
    from pipelines.video import to_frames

    pipe = make_pipeline(**settings)
    latents = call(pipe, picture, output_type="latent", num_videos_per_prompt=2)
    assert latents.shape == (2, 4, 3, 4, 4)
    frames = to_frames(StreamingVAE(pipe.vae).decode(latents[:1])[0])
    assert np.abs(frames.astype(np.float32) / 255 - call(pipe, picture)[0]).max() <= 1.01 / 255


def test_what_a_call_tells(pipeline, picture):
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, pipe.num_timesteps, pipe.current_timestep, pipe.guidance_scale, pipe.attention_kwargs))
        return {}

    call(pipeline, picture, guidance_scale=2, callback_on_step_end=callback, attention_kwargs={"scale": 1.0})
    assert seen == [(i, 4, [1000, 600][i % 2], 2, {"scale": 1.0}) for i in range(4)]
    assert pipeline.current_timestep is None and pipeline.do_classifier_free_guidance and not pipeline.interrupt


def test_a_callback_changes_the_guidance(pipeline, picture):
    def double(pipe, step, timestep, tensors):
        pipe._guidance_scale = 4.0
        return {}

    changed = call(pipeline, picture, guidance_scale=2.0, callback_on_step_end=double)
    plain = call(pipeline, picture, guidance_scale=2.0)
    assert np.array_equal(changed[:, :5], plain[:, :5]) and not np.array_equal(changed[:, 5:], plain[:, 5:])

    def off(pipe, step, timestep, tensors):
        pipe._guidance_scale = 1.0

    with pytest.raises(ValueError, match="guidance_scale: 1.0 would turn guidance on or off in mid-video"):
        call(pipeline, picture, guidance_scale=2.0, callback_on_step_end=off)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_an_interrupted_call_gives_what_there_is(pipeline, picture, output_type):
    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = True

    clips = call(pipeline, [picture, picture], callback_on_step_end=stop, output_type=output_type)
    whole = call(pipeline, picture, output_type=output_type)
    assert len(clips) == 1 and not isinstance(clips, list) or len(clips[0]) == 5
    if output_type in ("np", "pt"):
        assert clips.shape[1] == 5 and (clips == whole[:, :5]).all()
    if output_type == "latent":
        assert torch.equal(clips, whole[:, :, :2])
    assert call(pipeline, picture).shape[1] == FRAMES  # and the next call is not interrupted


def test_an_interrupted_clip_that_is_made_at_once(pipeline, picture):
    """It is there as noisy as it was then, in full length."""
    seen = []

    def stop(pipe, step, timestep, tensors):
        seen.append(step)
        pipe._interrupt = True

    options = {"mode": "bidirectional", "num_inference_steps": 3}
    stopped = call(pipeline, picture, callback_on_step_end=stop, **options)
    whole = call(pipeline, picture, **options)
    assert seen == [0] and stopped.shape == whole.shape and not np.array_equal(stopped, whole)


MODES = ["causal", "bidirectional"]


@pytest.mark.parametrize("mode", MODES)
def test_several_clips_are_what_each_is_alone(pipeline, picture, mode):
    options = {"mode": mode, "generator": [seeded(seed) for seed in range(2)]}
    clips = call(pipeline, picture, "a red star", num_videos_per_prompt=2, **options)
    for i, clip in enumerate(clips):
        assert np.array_equal(clip, call(pipeline, picture, mode=mode, generator=seeded(i))[0])
    assert not np.array_equal(*clips)


@pytest.mark.parametrize("mode", MODES)
def test_scale_weakens_an_adapter(make_pipeline, pipeline, picture, mode):
    pipe = make_pipeline()
    targets = ["to_q", "to_v", "ffn.net.2"]
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False), "drag")
    half, none, whole = (
        call(pipe, picture, mode=mode, attention_kwargs=kwargs) for kwargs in ({"scale": 0.5}, {"scale": 0.0}, None)
    )
    assert np.abs(none - call(pipeline, picture, mode=mode)).max() <= 1.01 / 255
    pipe.transformer.set_adapters("drag", 0.5)
    assert np.abs(half - call(pipe, picture, mode=mode)).max() <= 1.01 / 255 < np.abs(half - whole).max()


@pytest.mark.parametrize("mode", MODES)
def test_a_long_text_is_cut_where_it_is_asked(pipeline, picture, mode):
    long = "a red star moves right on a noise background"
    cut = call(pipeline, picture, long, mode=mode, max_sequence_length=3)
    tokens, _ = pipeline.encode_prompt(long, do_classifier_free_guidance=False, max_sequence_length=3)
    assert tokens.shape[1] == 3
    assert np.array_equal(cut, call(pipeline, picture, None, mode=mode, prompt_embeds=tokens))
    assert not np.array_equal(cut, call(pipeline, picture, long, mode=mode))


NUMBERS = {
    "height": np.int32(32),
    "width": np.uint8(32),
    "num_inference_steps": np.int64(2),
    "guidance_scale": np.float32(1),
    "motion_guidance_scale": np.float64(1),
    "max_sequence_length": np.int64(5),
}
DOORS = {
    "__call__": {"num_frames": np.int64(9), "num_videos_per_prompt": np.int16(1)},
    "stream": {"num_frames": np.int64(9), "seed": np.uint64(3), "history_latents": np.int8(2)},
    "start_session": {"seed": np.uint64(3), "history_latents": np.int8(2)},
    "start_clip": {"num_frames": np.int64(9), "seed": np.uint64(3)},
}


@pytest.mark.parametrize("door", DOORS)
def test_numbers_of_numpy_at_every_door_and_true_is_none(pipeline, picture, monkeypatch, door):
    numbers = {**NUMBERS, **DOORS[door]}
    plain = {name: value.item() for name, value in numbers.items()}
    results = [getattr(pipeline, door)(picture, "a red star", **given) for given in (numbers, plain)]
    if door == "stream":
        streams = [np.stack([frame for part in result for frame in part]) for result in results]
        assert np.array_equal(*streams)
    monkeypatch.setattr(ARDragPipeline, "_encode_texts", lambda *_: pytest.fail("computed"))
    for name in numbers.keys() - {"max_sequence_length"}:
        for wrong in (True, np.True_, "2"):
            with pytest.raises(ValueError, match=f"^{name}: .* must be"):
                getattr(pipeline, door)(picture, "a red star", **{**numbers, name: wrong})


def test_what_goes_to_attention_has_names(pipeline, picture):
    for door in ("__call__", "stream", "start_session", "start_clip"):
        with pytest.raises(ValueError, match="attention_kwargs: float is no dict"):
            getattr(pipeline, door)(picture, attention_kwargs=0.5)


def test_settings_stay_with_the_components(make_pipeline):
    pipe = make_pipeline()
    control = build_control("coloured").config()
    pipe.register_to_config(fps=8.0, control=control, buckets=[[16, 48]])
    for other in (ARDragPipeline(**pipe.components), ARDragPipeline.from_pipe(pipe)):
        kept = {name: other.config[name] for name in ("fps", "control", "buckets")}
        assert kept == {"fps": 8.0, "control": control, "buckets": [[16, 48]]}
    assert ARDragPipeline(**pipe.components, fps=np.float32(4)).config.fps == 4.0
    with pytest.raises(ValueError, match="fps: True must be a positive number"):
        ARDragPipeline(**pipe.components, fps=True)
    assert make_pipeline().config.fps == 16.0


def test_another_scheduler_is_refused(make_pipeline, picture):
    pipe = make_pipeline()
    other = FlowMatchEulerDiscreteScheduler()
    message = "scheduler: FlowMatchEulerDiscreteScheduler cannot run here, .* use FewStepScheduler"
    with pytest.raises(ValueError, match=message):
        ARDragPipeline(**{**pipe.components, "scheduler": other})
    pipe.scheduler = other
    with pytest.raises(ValueError, match=message):
        call(pipe, picture)


@pytest.mark.parametrize("half", [("vae",), ("transformer",), ("transformer", "text_encoder", "image_encoder")])
def test_two_precisions(make_pipeline, pipeline, picture, half):
    """The usual recipe of Wan, a float32 VAE with the rest in half precision, and the reverse."""
    pipe = make_pipeline()
    for name in half:
        getattr(pipe, name).to(torch.bfloat16)
    frames = call(pipe, picture, guidance_scale=2.0)
    assert np.isfinite(frames).all()
    assert np.abs(frames - call(pipeline, picture, guidance_scale=2.0)).mean() < 0.05


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 2.0}, {"mode": "bidirectional"}], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(pipeline, picture, options, dtype):
    with torch.autocast("cpu", dtype):
        frames = call(pipeline, picture, **options)
    plain = call(pipeline, picture, **options)
    assert np.isfinite(frames).all() and 0 < np.abs(frames - plain).mean() < 0.05


def test_to_half_precision_and_back(make_pipeline, pipeline, picture):
    pipe = make_pipeline()
    pipe.transformer.to(torch.bfloat16)
    rounded = call(pipe, picture)
    assert pipe.transformer.dtype == torch.bfloat16 and np.abs(rounded - call(pipeline, picture)).mean() < 0.05
    pipe.transformer.to(torch.float32)
    again = call(pipe, picture)
    assert np.isfinite(again).all() and not np.array_equal(again, rounded)


def test_offloading_to_the_cpu_itself(make_pipeline, pipeline, picture):
    """The other ways are tested on the stand-in device: accelerate cannot go from the CPU to the CPU leaf by leaf."""
    pipe = make_pipeline()
    pipe.enable_model_cpu_offload(device="cpu")
    assert np.abs(call(pipe, picture) - call(pipeline, picture)).max() <= 1.01 / 255
