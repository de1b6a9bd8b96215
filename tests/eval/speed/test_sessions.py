"""The plain way makes the same video, part after part."""

import numpy as np

import ardrag.known.answers as answers
from ardrag.convolutions.causal import FoldedCausalConv3d
from ardrag.unrolled.blocks import UnrolledBlocks
from eval.latency import LatencyConfig, make_subject
from eval.model import load_pipeline
from eval.speed.sessions import all_taps, plain_step, pointer, time_steady


def test_the_plain_way_has_every_switch_off_and_the_same_pixels(model_folder, picture, monkeypatch):
    pipe, taken = load_pipeline(str(model_folder)), []
    chosen = FoldedCausalConv3d._takes_products

    def note(self, num_frames):
        taken.append(chosen(self, num_frames))
        return taken[-1]

    unrolled, run = [], UnrolledBlocks.__call__
    monkeypatch.setattr(UnrolledBlocks, "__call__", lambda self, *given: unrolled.append(1) or run(self, *given))
    monkeypatch.setattr(FoldedCausalConv3d, "_takes_products", note)
    now, plain = (pipe.start_session(picture, num_inference_steps=1, overlap=False) for _ in range(2))
    for latent in range(3):
        now.step(pointer(latent))
    assert any(taken) and unrolled
    taken.clear(), unrolled.clear()
    for _ in range(3):
        plain_step(plain)
        assert plain._maker.cache.position == plain.position
    assert not taken and FoldedCausalConv3d._takes_products is note
    assert not unrolled and pipe.transformer.unrolls
    apart = np.stack(list(now.frames)).astype(int) - np.stack(list(plain.frames))
    assert np.abs(apart).max() <= 1
    with all_taps():
        assert not FoldedCausalConv3d._takes_products(pipe.vae.encoder.conv_in, 4)


def test_both_ways_are_timed_latent_by_latent(model_folder, picture):
    pipe = load_pipeline(str(model_folder))
    now, plain = (pipe.start_session(picture, num_inference_steps=1, overlap=False) for _ in range(2))
    samples = time_steady(now, plain, 2, window=1)
    assert {len(samples[name]) for name in ("plain", "latent", "settled", "decode")} == {2}
    assert plain.position == 4 and now.frames._file.closed and plain.frames._file.closed


def test_every_new_session_asks_the_encoders(model_folder, monkeypatch):
    """A pipeline that knows the picture again would answer faster than a visitor's first one."""
    asked, keep = [], answers.Answers.keep
    monkeypatch.setattr(answers.Answers, "keep", lambda self, *given: asked.append(1) or keep(self, *given))
    subject = make_subject(load_pipeline(str(model_folder)), LatencyConfig(model=str(model_folder), num_frames=5))
    counts = []
    for open_session in (subject.session, subject.chunk_session, subject.known_session, subject.known_session):
        asked.clear()
        open_session().close()
        counts.append(len(asked))
    assert counts == [3, 3, 3, 0]
