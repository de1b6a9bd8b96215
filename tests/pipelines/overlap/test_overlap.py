"""Side by side or one after the other: the same pixels, whatever happens in between; off where it gains nothing."""

import threading
import time

import numpy as np
import pytest
import torch

import pipelines.overlap.maker as maker
from ardrag.tracks.tracks import Tracks
from pipelines.overlap.second_core import on_two_cores, one_thread, pays_off, submit
from pipelines.session import Session


FRAMES = 33
TRACKS = Tracks.from_points([[(0, 0.2, 0.3), (32, 0.8, 0.6)]], num_frames=FRAMES)
LATE = Tracks.from_points([[(0, 0.2, 0.3), (32, 0.8, 0.6)], [(14, 0.5, 0.5), (30, 0.1, 0.9)]], num_frames=FRAMES)


def start(pipe, picture, overlap, **options):
    return pipe.start_session(picture, "a red star", **{"seed": 5, "overlap": overlap, **options})


def pixels(session):
    return np.stack(list(session.frames))


def finish(session, tracks=TRACKS):
    """All frames [T, H, W, 3] once `tracks` were followed to their end."""
    for _ in session.follow(tracks, FRAMES):
        pass
    return pixels(session)


@pytest.fixture(scope="module")
def sliding(make_pipeline):
    """A model whose window slides early, with a sink."""
    return make_pipeline(transformer={"window_frames": 2, "sink_frames": 1})


@pytest.fixture(scope="module")
def plain(sliding, picture):
    session = start(sliding, picture, False)
    for _ in range(9):
        session.step(TRACKS)
    return pixels(session), session.tracks


@pytest.mark.parametrize("history", [0, 3])
def test_followed_side_by_side(sliding, picture, plain, history):
    session = start(sliding, picture, True, history_latents=history)
    parts = [len(frames) for frames in session.follow(TRACKS, FRAMES)]
    assert parts == [1] + [4] * 8 and session.position == 9 and session.tracks == plain[1]
    assert np.array_equal(pixels(session), plain[0])


@pytest.mark.parametrize("overlap", [True, False])
def test_stepped_and_settled(sliding, picture, plain, overlap):
    session = start(sliding, picture, overlap)
    for latent in range(9):
        session.step(TRACKS)
        if latent % 3 == 0:
            session.settle()
            assert session._maker.cache.position == session.position
    assert np.array_equal(pixels(session), plain[0]) and session.tracks == plain[1]


def test_pixels_come_before_the_cache_pass(sliding, picture):
    session = start(sliding, picture, False)
    session.step(TRACKS)
    assert session.position == 1 and session._maker.cache.position == 0
    session.settle()
    assert session._maker.cache.position == 1


@pytest.mark.parametrize(
    ("control", "guided"),
    [("carried", {}), ("heat", {"guidance_scale": 2.0}), ("heat", {"motion_guidance_scale": 3.0})],
)
def test_controls_and_guidance(make_pipeline, picture, control, guided):
    """What is carried along may have to be cut from the frame that is being decoded."""
    pipe = make_pipeline()
    pipe.register_to_config(control=control)
    one, two = (start(pipe, picture, overlap, **guided) for overlap in (False, True))
    assert np.array_equal(finish(one, LATE), finish(two, LATE))


def test_chunks_of_three(make_pipeline, picture):
    pipe = make_pipeline(transformer={"chunk_frames": 3, "window_frames": 3})
    one, two = (start(pipe, picture, overlap) for overlap in (False, True))
    assert np.array_equal(finish(one), finish(two))


def test_calls_and_streams(sliding, picture, plain):
    streams = [
        sliding.stream(picture, "a red star", tracks=TRACKS, seed=5, overlap=overlap) for overlap in (True, False)
    ]
    for stream in streams:
        assert np.array_equal(np.concatenate([np.stack(part) for part in stream]), plain[0])


@pytest.mark.parametrize(
    "turn",
    [
        lambda session: session.step([(0.9, 0.9)]),
        lambda session: session.rewind(session.position - 2),
        lambda session: session.settle(),
        lambda session: session.fork().step([(0.1, 0.1)]),
        lambda session: session.close(),
    ],
    ids=["another drag", "rewind", "settle", "fork", "close"],
)
def test_turns_in_the_middle(sliding, picture, turn):
    """After four latents, with the fifth already in the making: as if it had not been."""
    one, two = (start(sliding, picture, overlap, history_latents=4) for overlap in (False, True))
    for session in (one, two):
        ways = session.follow(TRACKS, FRAMES)
        for _ in range(4):
            next(ways)
        turn(session)
    if one.frames._file.closed:
        assert two.frames._file.closed and two._maker._ahead is None
        return
    assert one.position == two.position and np.array_equal(finish(one), finish(two)) and one.tracks == two.tracks
    one.rewind(6), two.rewind(6)
    assert np.array_equal(finish(one), finish(two))


def test_guidance_that_changes_counts_from_the_next_latent(sliding, picture):
    made = []
    for overlap in (False, True):
        session = start(sliding, picture, overlap, guidance_scale=2.0)
        for frames in session.follow(TRACKS, FRAMES):
            session.guidance_scale += 0.5 * (len(frames) > 1)
        made.append(pixels(session))
    assert np.array_equal(*made)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("history", [0, 4])
def test_a_latent_that_cannot_be_shown_can_be_repeated(sliding, picture, plain, monkeypatch, error, history):
    """The next one is in the making, and has already written over what left the window."""
    session = start(sliding, picture, True, history_latents=history)
    ways = session.follow(TRACKS, FRAMES)
    for _ in range(5):
        next(ways)
    reach = session._maker.cache.earliest

    def fail(*_):
        session._maker._ahead.job.result(timeout=60)
        raise error

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr("pipelines.session.to_frames", fail)
        next(ways)
    assert session.position == 5 and len(session.frames) == 17 and session._maker.cache.position == 5
    assert history == 0 or session._maker.cache.earliest <= reach + 1 <= 2
    assert np.array_equal(finish(session), plain[0]) and session.tracks == plain[1]


@pytest.mark.parametrize("place", ["write_cache", "generate_chunk"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_fails_ahead_fails_in_its_own_step_or_not_at_all(sliding, picture, plain, monkeypatch, place, times):
    session, calls, real = start(sliding, picture, True), [], getattr(maker, place)

    def fail(*arguments, **options):
        calls.append(threading.current_thread().name)
        if 5 <= len(calls) < 5 + times:
            raise OSError("no memory")
        return real(*arguments, **options)

    monkeypatch.setattr(maker, place, fail)
    if times == 1:
        assert np.array_equal(finish(session), plain[0])
    else:
        with pytest.raises(OSError, match="no memory"):
            finish(session)
        count = session.position
        assert 4 <= count <= 6 and len(session.frames) == 4 * count - 3
        assert np.array_equal(finish(session), plain[0])
    assert any(name.startswith("ardrag-core") for name in calls)


def test_each_core_has_half_of_the_work(sliding, picture, monkeypatch):
    """A chunk is denoised on the second core, while the one before becomes context and pixels in the caller's."""
    session, calls = start(sliding, picture, True), []
    for place in ("write_cache", "generate_chunk"):
        real = getattr(maker, place)

        def note(*arguments, place=place, real=real, **options):
            calls.append((place, threading.current_thread() is threading.main_thread()))
            return real(*arguments, **options)

        monkeypatch.setattr(maker, place, note)
    ways = session.follow(TRACKS, FRAMES)
    for _ in range(5):
        next(ways)
    session._maker._ahead.job.result(timeout=60)
    assert set(calls) == {("write_cache", True), ("generate_chunk", False)} and len(calls) == 10
    session.close()


def test_an_interrupt_in_the_cache_pass_ends_the_step(sliding, picture, plain, monkeypatch):
    session, calls, real = start(sliding, picture, True), [], maker.write_cache

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(maker, "write_cache", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finish(session)
    assert session.position == 3 and session._maker.cache.position == 3 and session._maker._ahead is None
    assert np.array_equal(finish(session), plain[0])


def test_the_encoding_fails_beside_the_cache_pass(sliding, picture, plain, monkeypatch):
    session = start(sliding, picture, True)
    for _ in range(4):
        session.step(TRACKS)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(session._maker, "conditions", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        session.step(TRACKS)
    assert session.position == 4 and session._maker.cache.position == 4  # the cache pass is of the step before
    assert np.array_equal(finish(session), plain[0])


def test_a_callback_is_told_in_time_and_in_the_callers_thread(sliding, picture, plain):
    told = []

    def tell(latent, step, latents):
        told.append((latent, threading.current_thread() is threading.main_thread(), len(session.frames)))
        return latents

    session = start(sliding, picture, True, callback=tell)
    assert np.array_equal(finish(session), plain[0])
    assert all(mine and shown == 4 * latent - 3 for latent, mine, shown in told) and told[-1][0] == 8


def test_a_stream_that_nobody_reads_on_leaves_nothing_behind(sliding, picture):
    stream = sliding.stream(picture, tracks=TRACKS, seed=5, overlap=True)
    next(stream), next(stream)
    session = stream.gi_frame.f_locals["session"]
    stream.close()
    assert session.frames._file.closed and session._maker._ahead is None


def test_on_where_two_threads_are_given(sliding, picture):
    assert not pays_off(torch.device("cpu")) and not pays_off(torch.device("cuda"))
    assert not start(sliding, picture, None)._maker.overlaps
    torch.set_num_threads(2)
    try:
        assert pays_off(torch.device("cpu")) and not pays_off(torch.device("cuda"))
        session = start(sliding, picture, None)
        assert session._maker.overlaps
        with torch.autocast("cpu"):
            assert not session._maker.overlaps
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_the_second_core_works_alone_and_without_gradients():
    seen = submit(lambda: (torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
    assert seen.result() == (1, False, False) and torch.is_grad_enabled()
    with torch.inference_mode():
        assert submit(torch.is_inference_mode_enabled).result()
    with pytest.raises(ZeroDivisionError):
        submit(lambda: 1 / 0).result()


def test_two_sessions_take_turns_at_the_second_core(sliding, picture, plain):
    sessions = [start(sliding, picture, True) for _ in range(2)]
    ways = [session.follow(TRACKS, FRAMES) for session in sessions]
    for _ in range(9):
        for way in ways:
            next(way)
    assert all(isinstance(s, Session) and np.array_equal(pixels(s), plain[0]) for s in sessions)


def test_side_by_side_or_in_turn():
    def names(is_on):
        return on_two_cores(*[lambda: threading.current_thread().name] * 2, is_on)

    main = threading.current_thread().name
    assert names(True) == ("ardrag-core_0", main) and names(False) == (main, main)
    with torch.autocast("cpu"):
        assert names(True) == (main, main)


@pytest.mark.parametrize("fails", ["other", "own", "both"])
def test_whichever_fails_both_are_over(fails):
    over = []

    def part(name):
        time.sleep(0.02 * (name == "other"))
        over.append(name)
        if fails in (name, "both"):
            raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError, match="own" if fails == "both" else fails):
        on_two_cores(lambda: part("other"), lambda: part("own"), True)
    assert sorted(over) == ["other", "own"]


@pytest.mark.parametrize("place", ["pipelines.session.to_frames", "pipelines.overlap.maker.image_slot"])
def test_the_first_latent_fails_whole_and_can_be_repeated(sliding, picture, plain, monkeypatch, place):
    """Its picture is decoded beside the encoding of its control."""
    session = start(sliding, picture, True)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no memory"):
        patch.setattr(place, lambda *_: (_ for _ in ()).throw(OSError("no memory")))
        session.step(TRACKS)
    assert session.position == 0 and len(session.frames) == 0 and session._vae.state().decoder[0] is None
    session.step(TRACKS)
    session.rewind(0)
    for _ in range(9):
        session.step(TRACKS)
    assert np.array_equal(pixels(session), plain[0]) and session.tracks == plain[1]


def test_what_is_wrong_with_a_text_is_said_from_the_second_core_too(sliding, picture):
    for overlap in (True, False):
        with pytest.raises(ValueError, match="prompt_embeds: "):
            start(sliding, picture, overlap, prompt_embeds=torch.zeros(1, 2, 3))
