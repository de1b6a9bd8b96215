"""Arguments of a call: numbers as users have them, numpy's too; everything else is refused by name."""

import numpy as np
import pytest
import torch

from ardrag.flow import FewStepScheduler
from pipelines.inputs.arguments import (
    check_attention_kwargs,
    check_fps,
    check_frame_count,
    check_guidance,
    check_image_embeds,
    check_size,
    check_steps,
    check_streams,
    chosen_mode,
    one_each,
    whole_number,
)


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint8])
def test_whole_numbers_of_numpy_are_numbers(kind):
    assert whole_number(kind(3), "seed", 0) == 3 and type(whole_number(kind(3), "seed", 0)) is int
    assert check_frame_count(kind(9), 4) == 9 and check_size(kind(32), kind(16), 16) == (32, 16)
    check_steps(kind(3))
    assert check_guidance(kind(2)) == check_guidance(np.float32(2)) == 2.0
    assert check_fps(kind(8)) == check_fps(np.float32(8)) == 8.0 and type(check_fps(kind(8))) is float


@pytest.mark.parametrize("value", [True, np.True_, 3.0, "3", None, -1])
def test_what_is_no_whole_number(value):
    with pytest.raises(ValueError, match="seed: .* must be a whole number of at least 0; draw one"):
        whole_number(value, "seed", 0, "; draw one")


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (lambda v: check_frame_count(v, 4), 10, "num_frames: 10 is not 4k \\+ 1; use 9 or 13"),
        (lambda v: check_frame_count(v, 4), True, "num_frames: True must be a whole number of at least 5"),
        (lambda v: check_size(v, 32, 16), True, "height: True must be a whole number of pixels, a multiple of 16"),
        (lambda v: check_size(32, v, 16), 8, "width: 8 is not a positive multiple of 16; use 16"),
        (check_steps, True, "num_inference_steps: True must be a whole number of at least 1; use 3"),
        (check_guidance, True, "guidance_scale: True must be a finite number"),
        (check_guidance, "2", "guidance_scale: 2 must be a finite number"),
        (check_fps, True, "fps: True must be a positive number of frames per second; use 16"),
        (check_fps, "16", "fps: '16' must be a positive number"),
        (check_fps, float("inf"), "fps: inf must be a positive number"),
        (check_fps, 0, "fps: 0 must be a positive number"),
        (check_attention_kwargs, 0.5, "attention_kwargs: float is no dict; {'scale': 0.5} weakens adapters"),
        (check_guidance, float("inf"), "guidance_scale: inf must be a finite number"),
    ],
)
def test_refused_by_name(check, value, message):
    with pytest.raises(ValueError, match=message):
        check(value)


def test_one_for_all_or_one_for_each():
    assert one_each("a", 2, "prompt", str) == ["a", "a"] and one_each(["a", "b"], 2, "prompt", str) == ["a", "b"]
    with pytest.raises(ValueError, match="prompt: 2 given for 3"):
        one_each(["a", "b"], 3, "prompt", str)
    with pytest.raises(ValueError, match="prompt: int is not"):
        one_each(["a", 1], 2, "prompt", str)


def test_mode_is_the_checkpoints_own_unless_said():
    assert chosen_mode(None, FewStepScheduler()) == "causal"
    assert chosen_mode("bidirectional", FewStepScheduler()) == "bidirectional"
    at_once = FewStepScheduler(mode="bidirectional")
    assert chosen_mode(None, at_once) == "bidirectional"
    with pytest.raises(ValueError, match="mode: 'fast' is unknown; use 'causal' or 'bidirectional', or leave it out"):
        chosen_mode("fast", at_once)
    with pytest.raises(ValueError, match="mode: this checkpoint is bidirectional and makes a clip at once"):
        chosen_mode("causal", at_once)


def test_image_tokens_fit_the_model():
    check_image_embeds(None, None)
    check_image_embeds(torch.zeros(1, 3, 8), 8)
    with pytest.raises(ValueError, match="image_embeds: this model reads no image tokens"):
        check_image_embeds(torch.zeros(1, 3, 8), None)
    with pytest.raises(ValueError, match=r"image_embeds: shape \[1, 3, 7\] must be \[B, any, 8\]"):
        check_image_embeds(torch.zeros(1, 3, 7), 8)


def test_a_checkpoint_that_makes_clips_at_once_is_not_streamed():
    check_streams(FewStepScheduler())
    with pytest.raises(ValueError, match="mode: this checkpoint is bidirectional .* train a causal student from it"):
        check_streams(FewStepScheduler(mode="bidirectional"))
