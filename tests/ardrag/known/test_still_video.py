"""Latents of a video in which nothing moves: those of the whole video, each made once, and at last all alike."""

import pytest
import torch

import ardrag.known.answers as answers
from ardrag.controls.build import CONTROLS, build_control
from ardrag.controls.control import Rows, Scene
from ardrag.known.still_video import StillVideo, grey_after
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.tracks import Tracks
from tests.conftest import SIDE, build_tiny_vae


@pytest.fixture
def vae():
    return build_tiny_vae()


@pytest.fixture
def encoded(monkeypatch):
    """Every call of `encode_next`, by its number of frames."""
    calls, encode = [], StreamingVAE.encode_next
    monkeypatch.setattr(StreamingVAE, "encode_next", lambda self, x: calls.append(x.shape[2]) or encode(self, x))
    return calls


@torch.no_grad()
def whole(vae, picture, latents):
    video = torch.cat([picture[:, None], torch.zeros(3, 4 * (latents - 1), SIDE, SIDE)], dim=1)[None]
    return StreamingVAE(vae).encode(video)


def test_grey_latents_are_those_of_the_whole_video(vae, encoded):
    """In whatever order they are asked for; latent 0 is the picture's."""
    picture = torch.rand(3, SIDE, SIDE) * 2 - 1
    expected, grey = whole(vae, picture, 4), grey_after(vae, picture)
    assert torch.equal(grey(2, 3), expected[:, :, 2:3]) and torch.equal(grey(0, 2), expected[:, :, :2])
    assert torch.equal(grey(1, 4), expected[:, :, 1:4]) and encoded == [1, 4, 4, 4]
    again = grey_after(vae, picture.clone())
    assert torch.equal(again(0, 4), expected) and len(encoded) == 4, "another video of the same frames"
    assert torch.equal(again(4, 5), whole(vae, picture, 5)[:, :, 4:]) and not torch.equal(
        grey_after(vae, -picture)(0, 1), expected[:, :, :1]
    )


def test_an_endless_video_is_encoded_until_the_encoder_remembers_nothing_else(vae, encoded):
    picture = torch.rand(3, SIDE, SIDE) * 2 - 1
    still, last = grey_after(vae, picture), 30
    latents = still(0, last)
    assert torch.equal(latents, whole(vae, picture, last))
    made = len(encoded)
    assert made < last - 4
    assert torch.equal(still(10**6, 10**6 + 2), latents[:, :, -1:].expand(-1, -1, 2, -1, -1)) and len(encoded) == made
    assert still._vae.state().encoder[0] is None, "the memory of the encoder is given back"


def test_latents_that_were_forgotten_are_made_again(vae, encoded, monkeypatch):
    still = grey_after(vae, torch.rand(3, SIDE, SIDE))
    before = still(0, 4)
    vae.encoder.conv_in.weight.data_ptr()
    with torch.no_grad():
        vae.encoder.conv_in.weight += 0  # a change, if one of nothing
    assert torch.equal(still(1, 3), before[:, :, 1:3]) and len(encoded) == 7
    monkeypatch.setattr(answers, "MAX_ANSWER_BYTES", 0)
    ones = torch.ones(3, SIDE, SIDE)
    assert torch.equal(grey_after(vae, ones)(1, 2), whole(vae, ones, 2)[:, :, 1:])


def test_while_the_vae_is_trained_it_is_encoded_every_time(vae):
    still = StillVideo(vae.train(), torch.ones(3, SIDE, SIDE), torch.ones(3, SIDE, SIDE))
    assert torch.equal(still(1, 3), still(0, 3)[:, :, 1:])


@pytest.mark.parametrize("name", sorted(CONTROLS))
@torch.no_grad()
def test_a_blank_control_is_that_of_a_clip_without_tracks(vae, outline, name):
    control, picture = build_control(name), torch.rand(3, SIDE, SIDE) * 2 - 1
    scene = Scene(
        picture, StreamingVAE(vae).encode(picture[None, :, None]), torch.ones(1, SIDE, SIDE), outline=outline
    )
    expected = control.clip(vae, scene, Rows.of(Tracks.empty(13)))
    blank = control.blank(vae, scene)
    assert torch.equal(blank(0, 4), expected) and torch.equal(blank(2, 3), expected[:, :, 2:3])
