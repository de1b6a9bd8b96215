"""Trackers: Lucas-Kanade where the truth is known; CoTracker's contract by a stand-in, and itself where installed."""

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch

from ardrag.judges.tracking import COTRACKER_INSTALL, CoTracker, LucasKanadeTracker
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.sprites import make_clip


HEIGHT, WIDTH = 64, 96


def texture(seed=0, size=200):
    """A smooth random picture, large enough to be moved under a window."""
    noise = torch.randn(1, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size=(size, size), mode="bicubic")
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255)[0]


def translated(step, num_frames=9):
    """A window that slides over a texture: everything in it moves by `-step` pixels a frame."""
    picture, (dx, dy) = texture(), step
    frames = []
    for t in range(num_frames):
        x, y = 50 + dx * t, 60 + dy * t
        grid = torch.stack(
            torch.meshgrid(torch.arange(HEIGHT) + float(y), torch.arange(WIDTH) + float(x), indexing="ij")[::-1], -1
        )
        grid = (2 * grid / (picture.shape[1] - 1) - 1)[None].float()
        frames.append(torch.nn.functional.grid_sample(picture[None], grid, align_corners=True)[0])
    return torch.stack(frames).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("step", [(0.0, 0.0), (1.3, -0.7), (-2.5, 2.0), (4.0, 0.5)])
def test_translation_within_half_a_pixel(step):
    queries = torch.tensor([[0, 48, 32], [4, 40, 30], [8, 50, 25.5]])
    xy, visible = LucasKanadeTracker().track(translated(step), queries)
    assert xy.shape == (9, 3, 2) and xy.dtype == np.float32 and visible.dtype == bool
    t = np.arange(9)[:, None, None]
    expected = queries[None, :, 1:].numpy() - (t - queries[None, :, :1].numpy()) * np.array(step)
    assert visible.mean() > 0.9
    assert np.abs(xy - expected)[visible].max() < 0.5


def test_query_frames_are_exact():
    queries = torch.tensor([[3, 20.25, 30.5], [5, 60, 40]])
    xy, visible = LucasKanadeTracker().track(translated((1, 0)), queries)
    for p, (frame, x, y) in enumerate(queries.tolist()):
        assert tuple(xy[int(frame), p]) == (x, y) and visible[int(frame), p]


def test_a_point_that_is_covered_is_lost():
    video = translated((0.5, 0))
    video[5:, :, 20:44, 30:66] = texture(1)[:, :24, :36].to(torch.uint8)
    _, visible = LucasKanadeTracker().track(video, torch.tensor([[0, 48.0, 32.0], [0, 12.0, 12.0]]))
    assert visible[:5, 0].all() and not visible[5:, 0].any() and visible[:, 1].all()


def test_a_point_that_leaves_the_picture_is_lost():
    _, visible = LucasKanadeTracker().track(translated((6, 0)), torch.tensor([[0, 20.0, 32.0]]))
    assert visible[:3, 0].all() and not visible[5:, 0].any()


def test_sprites_are_followed():
    """On true Sprite World video the median distance from the exact path is below a pixel and a half."""
    errors = []
    for index in range(6):
        clip = make_clip("validation", index, 17)
        video = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
        queries = torch.tensor([[0, *point] for point, seen in zip(clip.xy[0], clip.visible[0], strict=True) if seen])
        xy, visible = LucasKanadeTracker().track(video, queries)
        truth = clip.xy[:, clip.visible[0]]
        both = visible & clip.visible[:, clip.visible[0]]
        errors.extend(np.linalg.norm(xy - truth, axis=-1)[both])
    assert clip_tracks(clip).num_frames == 17 and len(errors) > 60
    assert np.median(errors) < 1.5


@pytest.mark.parametrize(
    ("video", "queries", "message"),
    [
        (torch.zeros(4, 3, 8, 8), torch.zeros(1, 3), "video: .* must be .T, 3, H, W. uint8"),
        (torch.zeros(4, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 3), "video: "),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 2), "queries: .* must be .P, 3."),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([[0.0, float("nan"), 1.0]]), "queries: .* finite"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([[4.0, 1.0, 1.0]]), "outside of 4 frames of 8x8"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([[0.0, -1.0, 1.0]]), "outside of 4 frames of 8x8"),
    ],
)
def test_what_cannot_be_tracked(video, queries, message):
    with pytest.raises(ValueError, match=message):
        LucasKanadeTracker().track(video, queries)


class StandIn(torch.nn.Module):
    """Answers as CoTracker does and insists on what CoTracker expects; points move right by one pixel a frame."""

    def __init__(self, checkpoint, window_len, v2):
        super().__init__()
        assert checkpoint is None and v2 is False
        self.window_len = window_len
        self.model = torch.nn.Linear(1, 1)

    @staticmethod
    def check(video):
        assert video.dtype == torch.float32 and video.ndim == 5 and video.shape[2] == 3
        assert 1 < video.max() <= 255 and video.min() >= 0

    @staticmethod
    def answer(queries, frames):
        t = torch.arange(frames)[None, :, None] - queries[:, None, :, 0]
        tracks = queries[:, None, :, 1:] + torch.stack([t, torch.zeros_like(t)], -1)
        return tracks, (tracks[..., 0] < 60)


class Offline(StandIn):
    def forward(self, video, queries, backward_tracking):
        assert self.window_len == 60 and backward_tracking is True
        self.check(video)
        return self.answer(queries, video.shape[1])


class Online(StandIn):
    step = 8

    def forward(self, chunk, is_first_step=False, queries=None):
        assert self.window_len == 16 and chunk.shape[1] == 2 * self.step
        self.check(chunk)
        if is_first_step:
            self.queries, self.seen = queries, self.step
            return None, None
        self.seen += self.step
        tracks, visible = self.answer(self.queries, self.seen)
        return tracks, visible[..., None] if self.seen > 16 else visible


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    package, predictor = types.ModuleType("cotracker"), types.ModuleType("cotracker.predictor")
    predictor.CoTrackerPredictor, predictor.CoTrackerOnlinePredictor = Offline, Online
    package.predictor = predictor
    monkeypatch.setitem(sys.modules, "cotracker", package)
    monkeypatch.setitem(sys.modules, "cotracker.predictor", predictor)
    weights = {"model": {"weight": torch.full((1, 1), 3.0), "bias": torch.zeros(1)}}
    torch.save(weights, tmp_path / "cotracker3.pth")
    return tmp_path / "cotracker3.pth"


@pytest.mark.parametrize("num_frames", [5, 16, 17, 33])
@pytest.mark.parametrize("online", [False, True])
def test_cotracker_is_asked_and_answers_in_pixels(stand_in, online, num_frames, caplog):
    tracker = CoTracker(stand_in, online=online)
    assert tracker.predictor.model.weight.item() == 3 and "CC-BY-NC" in caplog.text
    video = torch.randint(0, 256, (num_frames, 3, 32, 64), dtype=torch.uint8)
    queries = torch.tensor([[0, 10.0, 8.0], [2, 50.0, 20.0]])
    xy, visible = tracker.track(video, queries)
    assert xy.shape == (num_frames, 2, 2) and visible.shape == (num_frames, 2) and visible.dtype == bool
    assert np.allclose(xy[:, 0, 0], 10 + np.arange(num_frames)) and np.allclose(xy[:, 1, 1], 20)
    assert visible[:4].all() and visible[:, 1].tolist() == (xy[:, 1, 0] < 60).tolist()


def test_cotracker_weights_are_never_unpickled(stand_in, tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('unpickled')",))

    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(Exception, match="(?i)weights.only"):
        CoTracker(tmp_path / "evil.pth")


def test_cotracker_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cotracker", None)
    monkeypatch.setitem(sys.modules, "cotracker.predictor", None)
    with pytest.raises(ValueError, match="pip install git") as told:
        CoTracker(tmp_path / "any.pth")
    assert COTRACKER_INSTALL in str(told.value)

    def refuse(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "load", refuse)
    with pytest.raises(ValueError, match="no route.*Lucas-Kanade"):
        CoTracker()


def test_cotracker_checkpoint_that_is_no_file(stand_in, tmp_path):
    with pytest.raises(ValueError, match="checkpoint: .*none.pth is no file"):
        CoTracker(tmp_path / "none.pth")


@pytest.mark.cotracker
@pytest.mark.skipif(importlib.util.find_spec("cotracker") is None, reason=f"needs `{COTRACKER_INSTALL}`")
@pytest.mark.parametrize("online", [False, True])
def test_the_real_package_takes_what_we_give(tmp_path, online):
    """Random weights: shapes, ranges and types only."""
    from cotracker.predictor import CoTrackerOnlinePredictor, CoTrackerPredictor

    kind, window = (CoTrackerOnlinePredictor, 16) if online else (CoTrackerPredictor, 60)
    torch.save(kind(checkpoint=None, window_len=window, v2=False).model.state_dict(), tmp_path / "random.pth")
    video = torch.randint(0, 256, (17, 3, 64, 64), dtype=torch.uint8)
    xy, visible = CoTracker(tmp_path / "random.pth", online=online).track(video, torch.tensor([[0, 20.0, 30.0]]))
    assert xy.shape == (17, 1, 2) and visible.shape == (17, 1)
