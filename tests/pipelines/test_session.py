"""The session: stepped, rewound, replayed and forked to the same pixels; bounded; a refused step changes nothing."""

import math

import numpy as np
import pytest
import torch

import pipelines.overlap.maker as maker
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.schema import GROUND
from ardrag.tracks.tracks import Tracks
from pipelines.past.frame_store import FrameStore


WAY = [[(0.2, 0.3)], [(0.5, 0.5)], [(0.6, 0.6), (0.1, 0.9, 0.5)], [None, (0.3, 0.9)], [], [(0.4, 0.2)], [(0.5, 0.2)]]


def start(pipeline, picture, **options):
    return pipeline.start_session(picture, "a red star", **{"seed": 5, **options})


def walk(session, way):
    """Step through `way`; all frames of the session [T, H, W, 3]."""
    for points in way:
        session.step(points)
    return np.stack(list(session.frames))


@pytest.fixture(scope="module")
def reference(pipeline, picture):
    """Frames and applied tracks of one walk from start to end."""
    session = start(pipeline, picture)
    return walk(session, WAY), session.tracks


def test_frames_come_one_then_four(pipeline, picture):
    session = start(pipeline, picture)
    for latent in range(3):
        assert session.position == latent
        expected = session.next_frames
        frames = session.step(WAY[latent])
        assert len(frames) == len(expected) == (4 if latent else 1)
        assert expected == range(len(session.frames) - len(frames), len(session.frames))
        assert np.array_equal(frames[-1], session.frames[-1]) and frames[0].dtype == np.uint8
    assert set(session.seconds) == {"encode", "denoise", "cache", "decode"}
    assert (session.fps, session.seed) == (16.0, 5)


def test_same_seed_and_points_same_pixels(pipeline, picture, reference):
    assert np.array_equal(walk(start(pipeline, picture), WAY), reference[0])
    assert not np.array_equal(walk(start(pipeline, picture, seed=6), WAY)[1:], reference[0][1:])


def test_a_late_grab_carries_what_is_there_then(make_pipeline, picture):
    """Rewound, forked and replayed from its tracks to the same pixels; a brush that fits no picture is refused."""
    pipeline = make_pipeline()
    pipeline.register_to_config(control={"name": "carried"})
    way = [[], [(0.5, 0.5)], [(0.6, 0.6), (0.2, 0.8, 0.5)], [None, (0.3, 0.9)], [(0.4, 0.2), (0.3, 0.9)]]
    session = start(pipeline, picture)
    frames = walk(session, way)
    replay = start(pipeline, picture)
    tracks = session.tracks
    assert np.array_equal(np.concatenate([replay.step(tracks) for _ in way]), frames)
    session.rewind(2)
    twin = session.fork()
    for player in (session, twin):
        assert np.array_equal(walk(player, way[2:]), frames)
    with pytest.raises(ValueError, match=r"brushes\[1\]: 1.5 is outside 0.001..1"):
        session.step([(0.5, 0.5)], [None, 1.5])
    wide = start(pipeline, picture)
    wide.step([(0.5, 0.5)], [0.4])
    assert wide.tracks.brushes() == (0.4,) and wide.position == 1
    pin = start(pipeline, picture)
    pin.step([(0.5, 0.5)], [GROUND])
    assert Tracks.from_json(pin.tracks.to_json()).brushes() == (GROUND,)


def test_rows_for_each_frame_are_applied_as_they_are(pipeline, picture):
    """Sampled by hand or by the session: the same pixels; a track may be added, its spread may differ."""
    tracks = Tracks.from_points([[(0, 0.2, 0.3), (8, 0.7, 0.6)]], num_frames=9, sigma=0.05)
    by_tracks, by_rows = start(pipeline, picture), start(pipeline, picture)
    for _ in range(3):
        rows = tracks.to_array(frames=by_rows.next_frames)
        assert np.array_equal(by_tracks.step(tracks), by_rows.step(rows, tracks.sigmas()))
    assert by_rows.tracks == by_tracks.tracks


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r._replace(xy=r.xy[:2]), "shapes .* T = 4 new frames"),
        (lambda r: r._replace(force=r.force[:, :1]), "shapes"),
        (lambda r: TrackArrays(*(column[:, :1] for column in r)), "1 tracks where there were 2"),
        (lambda r: r._replace(xy=r.xy * np.nan), "finite"),
        (lambda r: r._replace(force=r.force + 1), "force within 0..1"),
    ],
)
def test_rows_that_do_not_fit_change_nothing(pipeline, picture, change, reason):
    session = start(pipeline, picture)
    session.step([(0.5, 0.5), (0.2, 0.2)])
    good = TrackArrays(np.full((4, 2, 2), 0.5, np.float32), np.ones((4, 2), bool), np.ones((4, 2), np.float32))
    with pytest.raises(ValueError, match=f"points: .*{reason}"):
        session.step(change(good))
    assert session.position == 1 and len(session.frames) == 1
    session.step(good)


def test_applied_tracks_replay_everywhere(pipeline, picture, reference):
    """Step by step with points, then its tracks as a stream and as a stepped session: the same pixels."""
    frames, tracks = reference
    parts = pipeline.stream(picture, "a red star", tracks=tracks, num_frames=len(frames), seed=5)
    assert np.array_equal(np.stack([frame for part in parts for frame in part]), frames)
    again = start(pipeline, picture)
    assert np.array_equal(walk(again, [Tracks.from_json(tracks.to_json())] * len(WAY)), frames)
    assert all(np.array_equal(a, b) for a, b in zip(again.tracks.to_array(), tracks.to_array(), strict=True))


@pytest.mark.parametrize("latent", [0, 1, 3, 6])
def test_rewound_and_replayed(pipeline, picture, reference, latent):
    """Also after another way was taken in between."""
    session = start(pipeline, picture)
    walk(session, WAY)
    session.rewind(latent)
    kept = 0 if latent == 0 else 4 * latent - 3
    assert session.position == latent and len(session.frames) == kept
    other = walk(session, [[(0.9, 0.9)]] * (len(WAY) - latent))
    assert np.array_equal(other[:kept], reference[0][:kept])
    assert latent == 6 or not np.array_equal(other, reference[0])
    session.rewind(latent)
    assert np.array_equal(walk(session, WAY[latent:]), reference[0])
    assert session.tracks == reference[1]


def test_rewound_after_the_window_slid(make_pipeline, picture):
    pipe = make_pipeline(transformer={"window_frames": 2})
    way = [[(0.1 * m, 0.5)] for m in range(10)]
    session = start(pipe, picture)
    frames = walk(session, way)
    for latent in (9, 4, 1):
        session.rewind(latent)
        assert np.array_equal(walk(session, way[latent:]), frames)


def test_rewind_forgets_the_width_of_drawn_tracks(pipeline, picture, reference):
    """Points after a rewind are spots of the default size, whatever tracks were followed in between."""
    session = start(pipeline, picture)
    wide = Tracks.from_points([[(0, 0.5, 0.5)]] * 2, num_frames=9, sigma=0.2)
    walk(session, [wide, wide])
    session.step([(0.5, 0.5)] * 3)  # more points than the tracks had
    session.rewind(0)
    assert np.array_equal(walk(session, WAY), reference[0])


@pytest.mark.parametrize("latent", [-1, 8, 2.5, 0])
def test_rewind_out_of_reach(pipeline, picture, reference, latent):
    session = start(pipeline, picture, history_latents=3)
    frames = walk(session, WAY)
    with pytest.raises(ValueError, match=f"latent: cannot rewind to {latent}; possible are 4, 5, 6"):
        session.rewind(latent)
    assert session.position == 7 and np.array_equal(frames, np.stack(list(session.frames)))


@pytest.mark.parametrize("window", [2, 7])
def test_no_history_no_rewind(make_pipeline, picture, window):
    """Refused before anything has changed: the session goes on as if nobody had asked."""
    pipe = make_pipeline(transformer={"window_frames": window})
    session, other = (start(pipe, picture, history_latents=0) for _ in range(2))
    walk(session, WAY[:5])
    with pytest.raises(ValueError, match="latent: cannot rewind to 4; possible are none"):
        session.rewind(4)
    session.rewind(5)  # where it stands
    assert np.array_equal(walk(session, WAY[5:]), walk(other, WAY))


def test_history_counts_latents_with_chunks_of_three(make_pipeline, picture):
    pipe = make_pipeline(transformer={"chunk_frames": 3, "window_frames": 3})
    way = [[(0.1 * m, 0.5)] for m in range(6)]
    session = start(pipe, picture, history_latents=6)
    frames = walk(session, way)
    assert len(frames) == 1 + 5 * 12 and session.position == 16
    with pytest.raises(ValueError, match="possible are 10, 13 "):
        session.rewind(1)
    with pytest.raises(ValueError, match="cannot rewind to 11"):
        session.rewind(11)
    session.rewind(10)
    assert np.array_equal(walk(session, way[4:]), frames)


def test_forks_go_their_own_ways(pipeline, picture, reference):
    session = start(pipeline, picture)
    walk(session, WAY[:3])
    twin = session.fork()
    assert np.array_equal(np.stack(list(twin.frames)), np.stack(list(session.frames)))
    away = walk(twin, [[(0.9, 0.9)]] * 2)
    assert np.array_equal(walk(session, WAY[3:]), reference[0]) and session.tracks == reference[1]
    assert not np.array_equal(away, reference[0][: len(away)])
    twin.rewind(3)
    assert np.array_equal(walk(twin, WAY[3:]), reference[0])
    session.close()
    assert len(list(twin.frames)) == len(reference[0])


BAD_POINTS = {
    "nan": ([(0.5, 0.5), (math.nan, 0.5)], r"points\[1\]: \(nan, 0.5\) must be \(x, y\) or \(x, y, force\)"),
    "infinite": ([(0.5, math.inf)], r"points\[0\]: .* all finite numbers"),
    "far off": ([(320.0, 20.0)], r"points\[0\]: \(320.0, 20.0\) is far off the picture; .* divide pixels by size"),
    "one number": ([(0.5,)], r"points\[0\]"),
    "four numbers": ([(0.5, 0.5, 1.0, 1.0)], r"points\[0\]"),
    "force": ([(0.5, 0.5, 1.5)], r"points\[0\].force: 1.5 is outside 0..1"),
    "nan force": ([(0.5, 0.5, math.nan)], r"points\[0\]"),
}


@pytest.mark.parametrize("name", BAD_POINTS)
def test_a_refused_step_changes_nothing(pipeline, picture, reference, name):
    points, message = BAD_POINTS[name]
    session = start(pipeline, picture)
    walk(session, WAY[:3])
    with pytest.raises(ValueError, match=message):
        session.step(points)
    assert session.position == 3 and len(session.frames) == 9
    assert np.array_equal(walk(session, WAY[3:]), reference[0])


def test_a_broken_step_can_be_repeated(pipeline, picture, reference, monkeypatch):
    session = start(pipeline, picture)
    walk(session, WAY[:3])
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.overlap.maker.write_cache", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            session.step([(0.9, 0.9)])
    assert np.array_equal(walk(session, WAY[3:]), reference[0])


BREAKS = {
    "pixels": "pipelines.session.to_frames",
    "cache pass": "pipelines.overlap.maker.write_cache",
    "cache archive": "ardrag.kv_cache.KVCache._archive",
}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("place", [*BREAKS, "second frame", "cache sink"])
@pytest.mark.parametrize("history", [0, 4])
def test_a_step_happens_whole_or_not_at_all(make_pipeline, picture, monkeypatch, place, error, history):
    """Wherever it breaks off, between frame store, cache and log: the session goes on as if nothing had been."""
    pipe = make_pipeline(transformer={"window_frames": 2, "sink_frames": 1})
    session, other = (start(pipe, picture, history_latents=history) for _ in range(2))
    walk(session, WAY[:5]), walk(other, WAY[:5])
    with monkeypatch.context() as patch:
        break_off(patch, session, place, error)
        with pytest.raises(error):
            session.step([(0.9, 0.9)])
    assert session.position == 5 and len(session.frames) == 17 and session.tracks == other.tracks
    assert np.array_equal(walk(session, WAY[5:]), walk(other, WAY[5:])) and session.tracks == other.tracks
    if history:
        session.rewind(5), other.rewind(5)
        assert np.array_equal(walk(session, WAY[3:]), walk(other, WAY[3:]))


def break_off(patch, session, place, error):
    """Make a step of ``session`` fail at the beginning of ``place``, or half way through frames and the sink."""

    def fail(*_, **__):
        raise error

    if place == "second frame":
        real, calls = FrameStore.append, []
        patch.setattr(FrameStore, "append", lambda *args: fail() if len(calls) == 1 else calls.append(real(*args)))
    elif place == "cache sink":
        calls, turn = [], session._maker.cache._shift_keys
        patch.setattr(
            session._maker.cache, "_shift_keys", lambda *a: fail() if calls.append(1) or len(calls) == 2 else turn(*a)
        )
    else:
        patch.setattr(BREAKS[place], fail)


def autocast(is_on=True):
    return torch.autocast("cpu", torch.bfloat16, enabled=is_on)


@pytest.mark.parametrize("begun", [True, False])
def test_a_session_goes_on_in_the_precision_that_it_was_begun_in(pipeline, picture, reference, begun):
    """Whatever the caller is under when it is stepped, settled, rewound, forked or followed."""
    with autocast(begun):
        same, other = (start(pipeline, picture, history_latents=4) for _ in range(2))
        expected = walk(same, WAY)
    assert np.array_equal(expected, reference[0]) != begun
    with autocast(not begun):
        walk(other, WAY[:5])
        other.rewind(3)
        twin = other.fork()
        other.settle()
    assert np.array_equal(walk(other, WAY[3:]), expected) and np.array_equal(walk(twin, WAY[3:]), expected)
    stream, plain = (pipeline.stream(picture, tracks=reference[1]) for _ in range(2))
    first = next(stream)
    with autocast():
        rest = [frame for part in stream for frame in part]
    assert np.array_equal(np.stack([*first, *rest]), np.stack([frame for part in plain for frame in part]))


def test_save_video(pipeline, picture, tmp_path):
    session = start(pipeline, picture)
    with pytest.raises(ValueError, match="nothing to write yet"):
        session.save_video(tmp_path / "clip.mp4")
    walk(session, WAY[:3])
    session.save_video(tmp_path / "clip.mp4")
    session.save_video(tmp_path / "paths.mp4", draw_paths=True)
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "paths.mp4"}


def test_sixty_latents_are_bounded(pipeline, picture):
    session = start(pipeline, picture, history_latents=4)
    sizes = set()
    for latent in range(60):
        session.step([(0.5 + 0.4 * math.sin(latent / 5), 0.5)])
        sizes.add(session._maker.cache.nbytes)
        assert len(session._states) <= 4
    assert len(sizes) == 1 and len(session.frames) == 1 + 4 * 59
    session.settle()
    assert session._maker.cache.earliest == 56


@pytest.mark.parametrize("null", ["blank", "zeros"])
def test_guidance_over_the_motion(make_pipeline, picture, null):
    """It leads away from the control of no tracks, which is where a clip without tracks already is."""
    pipe = make_pipeline(scheduler={"motion_null": null})
    tracks = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.8, 0.5)]], num_frames=9)

    def clip(drawn, scale, rewound=False):
        session = pipe.start_session(picture, "a star", guidance_scale=2.0, motion_guidance_scale=scale)
        for _ in range(3):
            session.step(drawn)
        if rewound:
            session.rewind(1)
            session = session.fork()
            for _ in range(2):
                session.step(drawn)
        return np.stack(list(session.frames))

    guided = clip(tracks, 3.0)
    assert not np.array_equal(guided[1:], clip(tracks, 1.0)[1:])
    assert np.array_equal(guided, clip(tracks, 3.0, rewound=True))
    same = np.abs(clip(None, 3.0).astype(int) - clip(None, 1.0)).max() <= 1
    assert same == (null == "blank")


def test_what_a_session_hands_out_may_go_through_autograd(pipeline, picture, reference, monkeypatch):
    """It works in inference mode where nobody sees; callbacks and offloaded models meet plain tensors, same pixels."""
    modes, kinds, velocity = [], [], maker.generate_chunk

    def note(*arguments, **options):
        modes.append(torch.is_inference_mode_enabled())
        return velocity(*arguments, **options)

    monkeypatch.setattr(maker, "generate_chunk", note)

    def tell(latent, step, latents):
        kinds.append(latents.is_inference())
        return latents

    plain, told = start(pipeline, picture), start(pipeline, picture, callback=tell)
    with monkeypatch.context() as offloaded:
        offloaded.setattr(pipeline.transformer, "_hf_hook", object(), raising=False)
        moved = start(pipeline, picture)
    for session, mode in ((plain, True), (told, False), (moved, False)):
        modes.clear()
        assert np.array_equal(walk(session, WAY), reference[0])
        assert set(modes) == {mode and not torch.accelerator.is_available()}
        weight = torch.ones(1, requires_grad=True)
        (session.latents * weight).square().sum().backward()
        assert weight.grad > 0 and session.latents.shape == (1, 4, 1, 4, 4)
        session.latents.zero_()  # nobody else's
    assert kinds and not any(kinds)
    assert np.array_equal(plain.step([(0.1, 0.1)])[0], told.step([(0.1, 0.1)])[0])
    assert not any(part.is_inference() for part in pipeline.transformer.parameters())


def test_a_vae_that_a_session_ran_can_be_trained_after_it(make_pipeline, picture):
    """What is remembered of its kernels was made in inference mode."""
    pipe = make_pipeline()
    walk(start(pipe, picture), WAY[:4])
    stream = StreamingVAE(pipe.vae.requires_grad_(True))
    pixels = torch.rand(1, 3, 9, 32, 32)
    stream.decode(stream.encode(pixels)).square().mean().backward()
    assert pipe.vae.encoder.conv_in.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert torch.isfinite(StreamingVAE(pipe.vae).encode(pixels)).all()
