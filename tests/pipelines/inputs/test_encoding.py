"""What goes through the encoders goes through them once, and gives the same numbers the second time."""

import numpy as np
import pytest
import torch

import ardrag.known.answers as answers
from ardrag.tracks.tracks import Tracks
from tests.conftest import SIDE


TRACKS = Tracks.from_points([[(0, 0.2, 0.3), (8, 0.8, 0.6)]], num_frames=9)


@pytest.fixture
def asked(monkeypatch):
    """Names of the models that were asked, one for each time."""
    found, keep = [], answers.Answers.keep

    def note(self, question, given):
        found.append(type(given).__name__)
        keep(self, question, given)

    monkeypatch.setattr(answers.Answers, "keep", note)
    return found


def video(pipe, picture, prompt="a red star", seed=3, **options):
    frames = pipe.stream(picture, prompt, tracks=TRACKS, seed=seed, **options)
    return np.concatenate([np.stack(part) for part in frames])


def test_a_second_take_asks_no_encoder_and_shows_the_same(make_pipeline, picture, asked):
    """Text, picture tokens and the picture's latent; another picture or text is asked for itself alone."""
    pipe = make_pipeline()
    first = video(pipe, picture)
    assert asked == ["Tensor"] * 3
    assert np.array_equal(video(pipe, picture.copy()), first) and len(asked) == 3
    video(pipe, picture, seed=4), video(pipe, picture, "a blue circle")
    assert len(asked) == 4
    video(pipe, picture.transpose(0))
    assert len(asked) == 6
    assert np.array_equal(video(pipe, picture), first) and len(asked) == 6
    assert np.array_equal(video(make_pipeline(), picture), first)


def test_a_text_does_not_depend_on_those_beside_it(make_pipeline, asked):
    pipe = make_pipeline()
    with torch.no_grad():
        both, negative = pipe.encode_prompt(["a red star", ""], "blurry")
        alone, empty = pipe.encode_prompt("a red star", "")
    assert torch.equal(both[:1], alone) and torch.equal(both[1:], empty) and len(asked) == 3
    assert torch.equal(negative[:1], negative[1:])


def test_what_is_handed_out_may_be_written_to(make_pipeline, picture):
    pipe = make_pipeline()

    @torch.no_grad()
    def parts():
        return [pipe.encode_prompt("a")[0], pipe.encode_image(picture), pipe.encode_reference(picture)]

    before = [part.clone() for part in parts()]
    for part in parts():
        part.zero_()
    assert all(torch.equal(*pair) for pair in zip(parts(), before, strict=True))


@pytest.mark.parametrize("model", ["text_encoder", "image_encoder", "vae"])
def test_a_model_that_changes_or_is_replaced_is_asked_again(make_pipeline, picture, model):
    pipe, other = make_pipeline(), make_pipeline()
    first = video(pipe, picture)
    for part in (pipe, other):
        with torch.no_grad():
            for parameter in getattr(part, model).parameters():
                parameter.mul_(1.1)
    changed = video(pipe, picture)
    assert np.array_equal(changed, video(other, picture)) and not np.array_equal(changed, first)
    pipe.register_modules(**{model: getattr(make_pipeline(), model)})
    assert np.array_equal(video(pipe, picture), first)


def test_a_blank_control_and_grey_are_made_once_for_all_takes(make_pipeline, picture, monkeypatch):
    """A second take encodes its own control alone: as many latents as it has."""
    from ardrag.streaming_vae import StreamingVAE

    pipe = make_pipeline(transformer={"image_fill": "grey"})
    calls, encode = [], StreamingVAE.encode_next
    monkeypatch.setattr(StreamingVAE, "encode_next", lambda self, x: calls.append(1) or encode(self, x))
    takes = []
    for _ in range(2):
        calls.clear()
        takes.append(video(pipe, picture, motion_guidance_scale=2.0))
        assert len(calls) == (9 if len(takes) == 1 else 3)
    assert np.array_equal(*takes) and takes[0].shape == (9, SIDE, SIDE, 3)


def test_where_models_run_is_what_diffusers_finds(make_pipeline):
    from diffusers import DiffusionPipeline

    pipe = make_pipeline()
    asked = DiffusionPipeline._execution_device.fget
    assert pipe._execution_device == asked(pipe) == torch.device("cpu")
    pipe.to("meta")
    assert pipe._execution_device == asked(pipe) == torch.device("meta")


def test_a_session_asks_once_where_it_runs(make_pipeline, picture, monkeypatch):
    """Each time all modules are asked for hooks."""
    pipe, count = make_pipeline(), []
    found = type(pipe)._execution_device.fget
    monkeypatch.setattr(type(pipe), "_execution_device", property(lambda self: count.append(1) or found(self)))
    pipe.start_session(picture, "a red star").close()
    assert len(count) == 1


def test_the_number_format_of_a_transformer_is_what_diffusers_finds(make_pipeline):
    from diffusers import ModelMixin

    model = make_pipeline().transformer
    asked = ModelMixin.dtype.fget
    for kind in (torch.float32, torch.bfloat16):
        model.to(kind)
        assert model.dtype == asked(model) == kind
    model.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    assert model.dtype == asked(model) == torch.bfloat16
