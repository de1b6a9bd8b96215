"""Converted checkpoints run as their authors' pipelines run them: compared with diffusers' own, number by number."""

import json

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline
from PIL import Image

from ardrag.convert.recipes import WAN_NEGATIVE
from ardrag.tracks.tracks import Tracks
from pipelines import convert
from pipelines.pipeline_ardrag import ARDragPipeline
from tests import wan_files


SIDE, FRAMES, STEPS = 32, 9, 3
TEXT_TOKENS = 512
"""As many as Wan's tokenizer gives, and as diffusers counts on."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return wan_files.save_originals(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def made(parts):
    """Gives the pipeline of a converted checkpoint with so many channels, and the checkpoint."""
    known = {}

    def make(channels, image):
        if channels not in known:
            state = wan_files.original_state(channels, image)
            source = wan_files.save(state, parts.parent / f"{channels}.safetensors")
            folder = parts.parent / f"out{channels}"
            assert convert.main([str(source), "--output_dir", str(folder), "--components", str(parts)]) == 0
            pipe = ARDragPipeline.from_pretrained(folder)
            pipe.set_progress_bar_config(disable=True)
            pipe.register_to_config(buckets=[[SIDE, SIDE]])
            known[channels] = pipe, state
        return known[channels]

    return make


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def options(pipe, seed=0):
    """Noise, tokens and steps that both pipelines are given."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(2, TEXT_TOKENS, pipe.transformer.config.text_dim, generator=generator)
    noise = torch.randn(1, 16, 1 + (FRAMES - 1) // 4, SIDE // 8, SIDE // 8, generator=generator)
    tokens = {"prompt_embeds": text[:1], "negative_prompt_embeds": text[1:]}
    return {**tokens, "latents": noise, "num_frames": FRAMES, "num_inference_steps": STEPS, "output_type": "latent"}


def unipc():
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)


def ours(pipe, picture, **changes):
    return pipe(picture, None, **{**options(pipe), **changes}).frames


@pytest.mark.slow
def test_image_to_video_is_diffusers_pipeline(made, picture):
    """InP with grey after the picture, mask, image tokens, UniPC and text guidance: the whole computation."""
    pipe, state = made(36, True)
    theirs = WanImageToVideoPipeline(
        transformer=wan_files.diffusers_model(state),
        vae=pipe.vae,
        text_encoder=None,
        tokenizer=None,
        image_encoder=pipe.image_encoder,
        image_processor=pipe.image_processor,
        scheduler=unipc(),
    )
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(picture, height=SIDE, width=SIDE, guidance_scale=6.0, **options(pipe)).frames
    torch.testing.assert_close(ours(pipe, picture), expected, rtol=1e-4, atol=1e-4)
    # The motion slot is new and its columns are zero: no track says anything yet.
    tracks = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.8, 0.5)]], num_frames=FRAMES)
    torch.testing.assert_close(ours(pipe, picture, tracks=tracks), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_text_to_video_is_diffusers_pipeline(made, picture):
    """T2V without a first latent that is given: its image branch and its new columns say nothing."""
    pipe, state = made(16, False)
    parts = {"text_encoder": None, "tokenizer": None, "scheduler": unipc(), "vae": pipe.vae}
    theirs = WanPipeline(transformer=wan_files.diffusers_model(state), **parts)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(height=SIDE, width=SIDE, guidance_scale=6.0, **options(pipe)).frames
    pipe.scheduler.register_to_config(first_frame="generate")
    tokens = {"image_embeds": torch.randn(1, 257, 1280)}  # CLIP ViT-H's, which is wider than the small one
    torch.testing.assert_close(ours(pipe, picture, **tokens), expected, rtol=1e-4, atol=1e-4)
    pipe.scheduler.register_to_config(first_frame="encode")
    given = ours(pipe, picture, **tokens)
    assert torch.equal(given[:, :, :1], pipe.encode_reference(picture))
    assert not torch.allclose(given[:, :, 1:], expected[:, :, 1:], atol=1e-3)


def test_both_guidances_of_a_control_checkpoint(made, picture):
    """Fun-Control: one Euler step from pure noise by hand, over text and motion, with zeros in the dropped slot."""
    pipe, state = made(48, True)
    pipe.scheduler.register_to_config(solver="euler")
    tracks = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.8, 0.5)]], num_frames=FRAMES)
    given = {**options(pipe), "num_inference_steps": 1, "tracks": tracks}
    made_by = pipe(picture, None, guidance_scale=4.0, motion_guidance_scale=2.5, **given).frames
    pipe.scheduler.register_to_config(solver="unipc")
    model, noise = wan_files.diffusers_model(state), given["latents"]
    from ardrag.controls.control import Rows

    scene = pipe.scene(picture)
    motion = pipe.control.clip(pipe.vae, scene, Rows.of(tracks))
    image = torch.zeros_like(noise)
    image[:, :, :1] = scene.reference
    tokens = pipe.encode_image(picture)

    def answer(slot, text):
        joined = torch.cat([noise, slot, image], dim=1)
        with torch.no_grad():
            return model(joined, torch.tensor([1000.0]), text, tokens, return_dict=False)[0]

    wanted = answer(motion, given["prompt_embeds"])
    silent = answer(motion, given["negative_prompt_embeds"])
    still = answer(torch.zeros_like(motion), given["prompt_embeds"])
    velocity = wanted + 3.0 * (wanted - silent) + 1.5 * (wanted - still)
    torch.testing.assert_close(made_by, noise - velocity, rtol=1e-4, atol=1e-4)


def test_a_call_without_options_is_what_the_checkpoint_says(made, picture):
    pipe, _ = made(48, True)
    seen = []
    clip = pipe.start_clip(picture, "a cat", num_frames=5)
    assert clip.steps == 50 and not clip.done and clip.fps == 16.0
    assert json.loads(pipe.to_json_string())["negative_prompt"] == WAN_NEGATIVE
    pipe.scheduler.register_to_config(num_inference_steps=2)
    video = pipe(
        picture,
        "a cat",
        num_frames=5,
        output_type="np",
        generator=torch.Generator().manual_seed(1),
        callback_on_step_end=lambda pipe, step, t, kept: seen.append((step, t, pipe.num_timesteps)) or {},
    ).frames
    assert video.shape == (1, 5, SIDE, SIDE, 3) and np.isfinite(video).all()
    assert [step for step, *_ in seen] == [0, 1] and seen[0][1] == 999 and seen[0][2] == 2
    assert pipe.guidance_scale == 6.0 and pipe.current_timestep is None
    pipe.scheduler.register_to_config(num_inference_steps=50)


def test_it_is_not_streamed(made, picture):
    pipe, _ = made(48, True)
    for start in (pipe.start_session, pipe.stream):
        with pytest.raises(ValueError, match="mode: this checkpoint is bidirectional and makes a clip at once: call"):
            start(picture)
    with pytest.raises(ValueError, match="mode: this checkpoint is bidirectional"):
        pipe(picture, mode="causal")


@pytest.mark.slow
def test_a_converted_folder_goes_through_the_hub_in_shards(made, parts, picture, hub_process, tmp_path):
    """Pushed in shards, loaded by name: the same numbers, and what it says of itself."""
    pipe, _ = made(48, True)
    folder = parts.parent / "out48"
    said = hub_process.run(f"""
        import torch
        from pipelines.pipeline_ardrag import ARDragPipeline
        pipe = ARDragPipeline.from_pretrained({str(folder)!r})
        pipe.push_to_hub("alice/converted", max_shard_size="1MB")
        again = ARDragPipeline.from_pretrained("alice/converted")
        assert again.scheduler.config.mode == "bidirectional" and again.config.negative_prompt
        for name in ("transformer", "vae", "text_encoder", "image_encoder"):
            one, two = getattr(pipe, name).state_dict(), getattr(again, name).state_dict()
            assert set(one) == set(two) and all(torch.equal(one[key], two[key]) for key in one)
        from huggingface_hub import list_repo_files
        print(sum(file.startswith("transformer/") and file.endswith(".safetensors")
                  for file in list_repo_files("alice/converted")))
    """)
    assert int(said.split()[-1]) > 1


@pytest.mark.slow
def test_a_causal_track_checkpoint_streams(parts, picture, tmp_path):
    """Track-v0's layout: its first chunk is one latent, the others three; tracks go through its own head."""
    generator = torch.Generator().manual_seed(1)
    head = {"temporal_conv.weight": (16, 64, 4, 1, 1), "proj.weight": (16, 16, 1, 1, 1)}
    state = wan_files.original_state(52, True)
    state |= {f"track_encoder.{key}": torch.randn(shape, generator=generator) for key, shape in head.items()}
    wan_files.save(state, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text('{"_class_name": "CausalWanTrackTransformer"}')
    command = [str(tmp_path), "--output_dir", str(tmp_path / "out"), "--components", str(parts)]
    assert convert.main(command) == 0
    pipe = ARDragPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    pipe.register_to_config(buckets=[[SIDE, SIDE]])
    assert pipe.control.name == "track_ids" and pipe.control.module() == pipe.transformer.config.control_module
    tracks = Tracks.from_points([[(0, 0.2, 0.5), (12, 0.8, 0.5)]], num_frames=13)
    assert [len(part) for part in pipe.stream(picture, "a cat", tracks=tracks, seed=3)] == [1, 12]
    steps, clips = [], []
    for drawn in (tracks, None):
        options = {"generator": torch.Generator().manual_seed(3), "num_frames": 13, "output_type": "np"}
        told = {"callback_on_step_end": lambda pipe, step, *_: steps.append((step, pipe.num_timesteps)) or {}}
        clips.append(pipe(picture, "a cat", tracks=drawn, **options, **told).frames)
    assert steps[:8] == [(step, 8) for step in range(8)]
    assert not np.array_equal(clips[0], clips[1]) and np.isfinite(clips[0]).all()
