"""Feature spaces: packing, lengths, what the sprite network sees, and the standard networks' way of being called."""

import numpy as np
import pytest
import torch

from ardrag.worlds.sprites import make_clip
from eval.metrics.features import FRAMES_PER_CLIP, I3D_SIDE, SpriteSpace, StandardSpace, features_of, pack, unpack
from eval.metrics.frechet import frechet_distance
from eval.metrics.inception import FEATURES, Inception


CLIPS, LENGTH = 12, 17


def test_packing_is_exact():
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    assert (unpack(pack(values)) == values).all() and pack(values)["shape"] == [3, 4]


@pytest.fixture(scope="module")
def clips():
    return [make_clip("test", index, LENGTH).frames for index in range(CLIPS)]


@pytest.fixture(scope="module")
def distances(clips):
    """FID-sprite and FVD-sprite between the clips and what a damage makes of them."""
    space = SpriteSpace()

    def features(videos):
        found = [features_of(space, video) for video in videos]
        frames = np.concatenate([unpack(entry["frames"]) for entry in found])
        return frames, np.stack([unpack(entry["clip"]) for entry in found])

    true = features(clips)

    def measured(damage):
        made = features([damage(video) for video in clips])
        return tuple(frechet_distance(*pair) for pair in zip(made, true, strict=True))

    return measured


def test_nothing_is_no_distance(distances):
    assert distances(lambda video: video) == pytest.approx((0, 0), abs=1e-6)


def test_order_in_time_is_seen_by_clips_and_not_by_frames(distances):
    fid, fvd = distances(lambda video: video[np.random.default_rng(0).permutation(LENGTH)])
    assert fid < 2 and fvd > 50
    fid, fvd = distances(lambda video: np.repeat(video[:1], LENGTH, axis=0))
    assert fvd > 50 > fid


def test_colour_is_seen_by_frames(distances):
    darker, fvd = distances(lambda video: (0.75 * video).astype(np.uint8))
    fid = distances(lambda video: (0.95 * video).astype(np.uint8))[0]
    assert darker > 3 * fid and darker > 5 and fvd < 50


def test_too_short_a_clip_is_told(clips):
    with pytest.raises(ValueError, match="frames: 9; distances between clips need at least 16"):
        features_of(SpriteSpace(), clips[0][:9])


class FakeI3D(torch.nn.Module):
    """Answers as the torchscript does: 400 numbers for each video, after checking how it is asked."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert not rescale and not resize and return_features
        assert x.shape[1] == 3 and x.shape[3] == 224 and x.shape[4] == 224
        return torch.cat([x.mean((2, 3, 4)), x.amax((2, 3, 4)), torch.zeros(x.shape[0], 394)], dim=1)


def test_standard_networks_are_asked_as_they_expect(tmp_path, clips):
    torch.manual_seed(0)
    torch.save(Inception().state_dict(), tmp_path / "inception.pth")
    torch.jit.script(FakeI3D()).save(str(tmp_path / "i3d.pt"))
    space = StandardSpace(tmp_path / "inception.pth", tmp_path / "i3d.pt")
    found = features_of(space, clips[0][:11])
    assert unpack(found["frames"]).shape == (FRAMES_PER_CLIP, FEATURES) and I3D_SIDE == 224
    seen = unpack(found["clip"])
    assert seen.shape == (400,) and seen[3:6].max() <= 1
    assert seen[:3] == pytest.approx(clips[0][:11].mean((0, 1, 2)) / 127.5 - 1, abs=0.02)
    with pytest.raises(ValueError, match="i3d: .*none.pt is no file"):
        StandardSpace(tmp_path / "inception.pth", tmp_path / "none.pt")
