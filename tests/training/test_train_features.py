"""Labels and disturbances are what they claim, and a short training learns to tell them."""

from pathlib import Path

import pytest
import torch

from ardrag.judges.degradations import DEGRADATIONS
from ardrag.judges.sprite_features import load_features
from ardrag.worlds.sprite_drawing import BACKGROUNDS, COLOURS
from ardrag.worlds.sprites import TRAINING_SHAPES, make_clip
from training import train_features
from training.run.runtime import RunLog
from training.train_features import (
    DISTURBANCES,
    FeaturesConfig,
    Heads,
    draw_batch,
    draw_pool,
    labels_of,
    losses,
    main,
    standardize,
)


@pytest.fixture(scope="module")
def pool():
    return draw_pool("train", 6, 17)


def test_labels():
    clip = make_clip("train", 4, 17)
    colours, shapes, background, motion = labels_of(clip)
    assert {name for name, there in zip(COLOURS, colours, strict=True) if there} == {s.colour for s in clip.sprites}
    assert {name for name, there in zip(TRAINING_SHAPES, shapes, strict=True) if there} == {
        s.shape for s in clip.sprites
    }
    assert f"on a {BACKGROUNDS[background]} background" in clip.caption
    assert motion[:2] * 16 == pytest.approx((clip.xy[-1] - clip.xy[0]).mean(0), abs=1e-3)
    assert motion[2] >= motion[:2].norm() - 1e-4 or clip.xy.shape[1] > 1


@pytest.mark.parametrize("name", DISTURBANCES)
def test_disturbances(pool, name):
    video = pool.videos[0]
    made = DISTURBANCES[name](video, torch.Generator().manual_seed(1))
    assert made.shape == video.shape and made.dtype == torch.uint8
    same = [(frame == true).all().item() for frame, true in zip(made, video, strict=True)]
    assert all(same) == (name == "intact")
    kinds = {frame.numpy().tobytes() for frame in made}
    if name == "shuffled":
        assert kinds == {frame.numpy().tobytes() for frame in video}
    if name in ("frozen", "stuttering"):
        assert len(kinds) < len({frame.numpy().tobytes() for frame in video}) and same[0]
    if name == "flickering":
        assert (made.float() - video.float()).abs().amax((1, 2, 3)).max() <= 21.5


def test_batch_and_losses(pool):
    batch = draw_batch(pool, 5, torch.Generator().manual_seed(0))
    assert batch.frames.shape == (10, 3, 128, 128) and batch.videos.shape == (5, 17, 3, 128, 128)
    assert batch.severity.shape == (10, len(DEGRADATIONS)) and (batch.severity > 0).sum(1).max() <= 1
    answers = Heads(8)(torch.zeros(10, 8), torch.zeros(5, 8))
    perfect = {**answers, "frame_colours": 40 * pool.colours[batch.frame_rows] - 20}
    assert losses(perfect, pool, batch)["frame_colours"] < 1e-6 < losses(answers, pool, batch)["frame_colours"]
    moving = {**answers, "clip_motion": pool.motion[batch.rows]}
    assert losses(moving, pool, batch)["clip_motion"] == 0


def test_standardized_features(pool):
    torch.manual_seed(0)
    model = train_features.SpriteFeatures(width=4, clip_width=4)
    standardize(model, pool)
    with torch.no_grad():
        windows = model.window_features(pool.videos)
    assert windows.mean(0).abs().max() < 1e-3 and windows.std(0).sub(1).abs().max() < 1e-3


def test_a_short_training_runs_through(tmp_path):
    main(FeaturesConfig(str(tmp_path), steps=2, batch_size=2, pool_clips=4, validation_clips=4, log_every=1))
    rows = RunLog(Path(tmp_path), 10**6).rows()
    assert rows[0]["loss/clip_disturbance"] > 0 and 0 <= rows[-1]["validation/clip_disturbance"] <= 1
    assert load_features(tmp_path / "network").clip_features(draw_pool("train", 1, 17).videos[0]).shape == (64,)
