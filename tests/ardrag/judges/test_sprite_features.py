"""The feature network: shapes, windows, and that the bundled one is small and standardised."""

import pytest
import torch

from ardrag.judges.sprite_features import BUNDLED_FEATURES, SpriteFeatures, load_features
from ardrag.worlds.sprites import make_clip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SpriteFeatures(width=4, clip_width=4, features=6, window=8).eval()


def video(length, seed=0):
    return torch.randint(0, 256, (length, 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_shapes(network):
    assert network.frame_features(video(5)).shape == (5, 6)
    assert network.window_features(torch.stack([video(8), video(8, 1)])).shape == (2, 6)
    assert network.clip_features(video(8)).shape == (6,)


def test_a_clip_is_the_mean_of_its_last_whole_windows(network):
    clip = video(19)
    windows = [network.window_features(clip[None, start : start + 8])[0] for start in (3, 11)]
    assert torch.allclose(network.clip_features(clip), torch.stack(windows).mean(0), atol=1e-6)
    with pytest.raises(ValueError, match="video: 7 frames; the features of a clip need at least 8"):
        network.clip_features(video(7))


def test_windows_see_order_and_frames_do_not(network):
    clip = video(8)
    mixed = clip[torch.randperm(8, generator=torch.Generator().manual_seed(3))]
    assert not torch.allclose(network.window_features(clip[None]), network.window_features(mixed[None]), atol=1e-3)
    assert torch.allclose(network.frame_features(clip).mean(0), network.frame_features(mixed).mean(0), atol=1e-5)


def test_the_bundled_network():
    network = load_features()
    assert sum(file.stat().st_size for file in BUNDLED_FEATURES.iterdir()) < 2_000_000
    assert not any(parameter.requires_grad for parameter in network.parameters())
    frames = torch.stack([torch.from_numpy(make_clip("train", i, 5).frames[2]).permute(2, 0, 1) for i in range(60)])
    features = network.frame_features(frames)
    assert features.mean(0).abs().max() < 0.6 and features.std(0).mean().item() == pytest.approx(1, abs=0.2)


def test_a_folder_without_a_network(tmp_path):
    with pytest.raises(ValueError, match="features: .* holds no network; make one with python -m training"):
        load_features(tmp_path)
