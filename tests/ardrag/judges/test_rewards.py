"""Rewards where their value is known: exact tracks, far ones, hidden points, other resolutions; the aesthetic head."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from ardrag.judges.rewards import (
    AestheticHead,
    LaionAesthetic,
    MotionReward,
    combine,
    first_queries,
    latent_of_frame,
    load_head,
    mean_per_latent,
    motion_reward,
    pixel_trajectories,
)
from ardrag.judges.tracking import Trajectories
from ardrag.tracks.tracks import Tracks


def paths(num_frames=9, points=2, offset=0.0):
    xy = np.linspace(10, 50, num_frames)[:, None, None] + np.arange(points)[None, :, None] * 7 + np.zeros((1, 1, 2))
    return Trajectories((xy + offset).astype(np.float32), np.ones((num_frames, points), bool))


def test_frames_of_a_latent():
    assert latent_of_frame(9).tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    values = np.array([[1.0, 2, 4, 6, np.nan, 1, 1, 1, 5], [0, np.nan, np.nan, np.nan, np.nan, 0, 0, 0, 0]])
    np.testing.assert_allclose(mean_per_latent(values), [[1, 4, 2], [0, np.nan, 0]])


def test_an_exact_track_gets_everything():
    np.testing.assert_allclose(motion_reward(paths(), paths(), alpha=5, scale=2), 10)


def test_it_falls_with_the_squared_distance_in_latent_pixels():
    """Eight pixels in each of x and y are sqrt(2) latent pixels: 5 - 2."""
    np.testing.assert_allclose(motion_reward(paths(offset=8), paths()), 3, rtol=1e-6)
    np.testing.assert_allclose(motion_reward(paths(offset=8), paths(), unit=16), 4.5, rtol=1e-6)
    assert (motion_reward(paths(offset=13), paths()) == 0).all()  # beyond sqrt(5) latent pixels


def test_hidden_points_do_not_count():
    wanted, found = paths(), paths()
    found.xy[:, 1] += 100
    wanted.visible[:, 1] = False
    np.testing.assert_allclose(motion_reward(found, wanted), 5)
    wanted.visible[3] = False
    reward = motion_reward(found, wanted)
    assert np.isnan(reward[3]) and np.isfinite(np.delete(reward, 3)).all()


def test_a_point_that_the_tracker_lost():
    found = paths()
    found.visible[:, 0] = False
    np.testing.assert_allclose(motion_reward(found, paths()), 2.5)  # one of two is as far off as pays nothing
    np.testing.assert_allclose(motion_reward(found, paths(), lost="mask"), 5)


class Follows:
    """A tracker that finds every point where its path, times `scale` plus `offset` pixels, lies."""

    def __init__(self, trajectories):
        self.trajectories, self.asked = trajectories, []

    def track(self, video, queries):
        self.asked.append(queries)
        return self.trajectories


@pytest.mark.parametrize("side", [64, 256])
def test_the_reward_does_not_depend_on_the_resolution(side):
    """A path that is off by 1/16 of the picture in latents of 8 of 128 pixels, at any size with its own unit."""
    tracks = Tracks.from_points([[(0, 0.2, 0.5), (8, 0.6, 0.5)]], num_frames=9)
    wanted = pixel_trajectories(tracks, 9, side, side)
    shifted = Trajectories(wanted.xy + np.float32(side / 16), wanted.visible)
    one = motion_reward(shifted, wanted, unit=side / 16)
    np.testing.assert_allclose(one, 3, rtol=1e-5)


def test_motion_reward_asks_where_a_track_begins():
    tracks = Tracks.from_points([[(0, 0.25, 0.5), (8, 0.5, 0.5)], [(4, 0.75, 0.25), (8, 0.75, 0.5)]], num_frames=9)
    wanted = pixel_trajectories(tracks, 9, 32, 64)
    queries, rows = first_queries(wanted)
    assert rows.tolist() == [0, 1] and queries[0].tolist() == [0, 16, 16]
    assert queries[1, 0] == wanted.visible[:, 1].argmax()
    tracker = Follows(Trajectories(wanted.xy, np.ones_like(wanted.visible)))
    reward = MotionReward(tracker)(torch.zeros(3, 9, 3, 32, 64, dtype=torch.uint8), tracks)
    assert reward.shape == (3, 3) and len(tracker.asked) == 3
    np.testing.assert_allclose(reward, 5)


def test_no_track_gives_nothing_to_measure():
    reward = MotionReward(Follows(None))(torch.zeros(2, 5, 3, 32, 32, dtype=torch.uint8), Tracks.empty(5))
    assert reward.shape == (2, 2) and np.isnan(reward).all()


def test_the_head_is_as_published():
    head = AestheticHead()
    names = {f"layers.{i}.{part}" for i in (0, 2, 4, 6, 7) for part in ("weight", "bias")}
    assert set(head.state_dict()) == names
    assert [tuple(head.state_dict()[f"layers.{i}.weight"].shape) for i in (0, 2, 4, 6, 7)] == [
        (1024, 768), (128, 1024), (64, 128), (16, 64), (1, 16)
    ]  # fmt: skip
    head.eval()
    embeddings = torch.randn(3, 768)
    torch.testing.assert_close(head(embeddings), head(5 * embeddings))  # normalised first
    one, other = torch.nn.functional.normalize(torch.randn(2, 1, 768), dim=-1)
    linear = head.layers(one) + head.layers(other) - head.layers(torch.zeros(1, 768))
    torch.testing.assert_close(head.layers(one + other), linear, rtol=1e-4, atol=1e-4)  # affine: no activations


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_head_from_a_file(tmp_path, suffix):
    head, path = AestheticHead(16), tmp_path / f"head{suffix}"
    save_file(head.state_dict(), path) if suffix == ".safetensors" else torch.save(head.state_dict(), path)
    loaded = load_head(path, 16)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in head.state_dict().items())
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(ValueError, match="does not hold the five linear layers"):
        load_head(path, 24)
    with pytest.raises(ValueError, match="head: .*none is no file"):
        load_head(tmp_path / "none", 16)


def test_aesthetic_score_of_videos(tmp_path):
    """Real CLIP classes, small: every frame is scored as it is alone, and averaged per latent."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=24,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(tmp_path)
    save_file(AestheticHead(24).state_dict(), tmp_path / "head.safetensors")
    scorer = LaionAesthetic(tmp_path / "head.safetensors", str(tmp_path), batch_size=4)
    videos = torch.randint(0, 256, (2, 5, 3, 40, 48), dtype=torch.uint8)
    scores = torch.stack([scorer.score_frames(frame[None])[0] for frame in videos.flatten(0, 1)]).view(2, 5)
    found = scorer(videos, Tracks.empty(5))
    expected = torch.stack([scores[:, 0], scores[:, 1:].mean(1)], dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4)


def test_combinations():
    rewards = {"motion": np.array([[1.0], [3.0]]), "quality": np.array([[500.0], [300.0]])}
    summed = combine(rewards, {"motion": 1.0, "quality": 0.01})
    np.testing.assert_allclose(summed, [[6.0], [6.0]])
    each = combine(rewards, {"motion": 2.0, "quality": 1.0}, "normalize_then_sum")
    np.testing.assert_allclose(each, [[-1.0], [1.0]], rtol=1e-3)
    with pytest.raises(ValueError, match="weights: given for"):
        combine(rewards, {"motion": 1.0})
    with pytest.raises(ValueError, match="order: 'mean' is unknown"):
        combine(rewards, {"motion": 1.0, "quality": 1.0}, "mean")
