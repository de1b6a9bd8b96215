"""A pipeline in chunks of three is the same model, and makes three latents at a time."""

import torch

from eval.model import load_pipeline
from eval.speed.latency_rivals import CHUNK, chunked, time_control


def test_same_weights_three_latents_at_a_time(model_folder, picture):
    pipeline = load_pipeline(str(model_folder))
    twin = chunked(pipeline)
    assert twin.transformer.config.chunk_frames == CHUNK == 3 and pipeline.transformer.config.chunk_frames == 1
    own, others = pipeline.transformer.state_dict(), twin.transformer.state_dict()
    assert own.keys() == others.keys() and all(torch.equal(own[name], others[name]) for name in own)
    assert twin.config.buckets == pipeline.config.buckets and twin.vae is pipeline.vae
    counts = []
    for made in (pipeline, twin):
        session = made.start_session(picture, num_inference_steps=1)
        session.step([(0.5, 0.5)])
        first = session.position
        session.step([(0.5, 0.5)])
        counts.append(session.position - first)
    assert counts == [1, 3]


def test_control_is_timed_with_a_full_cache(model_folder, picture):
    session = load_pipeline(str(model_folder)).start_session(picture, num_inference_steps=1)
    seconds = time_control(session, [(0.5, 0.5)], window=2, count=3)
    assert len(seconds) == 3 and min(seconds) > 0 and session.position == 6
