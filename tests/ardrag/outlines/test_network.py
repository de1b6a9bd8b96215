"""The network of outlines: what it sees, at any size, alone as in a batch, saved and loaded."""

import math
from pathlib import Path

import pytest
import torch

from ardrag.outlines.network import LEAN, Outline, disc, squared_distances


def noise(count: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_distances_are_those_of_pixel_centres() -> None:
    found = squared_distances(torch.tensor([[0.25, 0.5]]), noise(1))
    assert found.shape == (1, 32, 48) and found[0, 16, 12] == 0.5
    assert found[0, 0, 47] == pytest.approx((47.5 - 12) ** 2 + (0.5 - 16) ** 2)


def test_the_disc_is_the_edge_of_a_brush() -> None:
    distances, s = torch.tensor([0.0, 3.0, 7.0]), torch.tensor(4.0)
    wanted = [math.exp(-((d * d / (2 * 4 * 4)) ** 2)) for d in (0, 3, 7)]
    torch.testing.assert_close(disc(distances**2, s), torch.tensor(wanted))


def test_it_sees_the_brush_and_how_far_away_colours_are(outline: Outline) -> None:
    pictures = torch.full((1, 3, 32, 32), -0.5)
    pictures[:, :, :, 16:] = 0.7
    seen = outline.see(pictures, torch.tensor([[0.1, 0.5]]), torch.tensor([0.2]))
    assert seen.shape == (1, 7, 32, 32) and torch.equal(seen[:, :3], pictures)
    torch.testing.assert_close(seen[0, 5, :, 16:], torch.full((32, 16), 1.2), rtol=0, atol=1e-3)
    assert seen[0, 5, :, :16].max() < 1e-3
    squared = squared_distances(torch.tensor([[0.1, 0.5]]), pictures)
    torch.testing.assert_close(seen[:, 3], disc(squared, torch.tensor(0.2 * 32)))
    torch.testing.assert_close(seen[:, 6], squared.sqrt() / 32)
    assert seen[0, 4].amax() == seen[0, 4, 15:17, 3].amax() > 0.5


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (128, 160), (30, 50), (5, 300)])
def test_a_mask_of_any_size(outline: Outline, height: int, width: int) -> None:
    mask = outline.mask(noise(1, height, width)[0], (0.3, 0.6), 0.11, lean=0)
    assert mask.shape == (height, width) and mask.min() >= 0 and mask.max() <= 1 and mask.std() > 0


def test_a_picture_is_seen_at_the_size_that_was_learnt(outline: Outline) -> None:
    """Twice the size gives the same mask twice as large."""
    small = torch.nn.functional.avg_pool2d(noise(1), 4)[0].repeat_interleave(4, 1).repeat_interleave(4, 2)
    large = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    ours, theirs = (outline.mask(picture, (0.25, 0.5), 0.11, lean=0) for picture in (small, large))
    shrunk = torch.nn.functional.avg_pool2d(theirs[None], 2)[0]
    assert (ours - shrunk).abs().mean() < 0.2 * ours.std()


def test_a_mirrored_picture_has_the_mirrored_mask(outline: Outline) -> None:
    picture = noise(1, 32, 40)[0]
    ours = outline.mask(picture, (0.2, 0.4), 0.11, lean=0)
    theirs = outline.mask(picture.flip(2), (0.8, 0.4), 0.11, lean=0)
    torch.testing.assert_close(theirs.flip(1), ours, rtol=0, atol=1e-5)
    assert ours.std() > 0.01 and not torch.allclose(ours, ours.flip(1), atol=0.01)


@pytest.mark.parametrize(
    ("height", "width", "wanted"), [(128, 128, (32, 32)), (160, 96, (40, 24)), (5, 300, (4, 248))]
)
def test_it_brings_pictures_to_a_size_that_all_halvings_divide(
    outline: Outline, height: int, width: int, wanted: tuple[int, int]
) -> None:
    brought = outline.brought(torch.full((2, 3, height, width), 0.3))
    assert brought.shape == (2, 3, *wanted) and torch.allclose(brought, torch.tensor(0.3), atol=1e-6)


@torch.no_grad()
def test_alone_as_in_a_batch(outline: Outline) -> None:
    pictures, xy, brushes = noise(), torch.tensor([[0.2, 0.3], [0.7, 0.9]]), torch.tensor([0.11, 0.3])
    both = outline(pictures, xy, brushes)
    alone = [outline(pictures[i : i + 1], xy[i : i + 1], brushes[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(torch.cat(alone), both, rtol=0, atol=1e-5)
    assert both.shape == (2, 32, 48) and not torch.allclose(both[0], both[1], atol=1e-3)


def test_saved_and_loaded_it_says_the_same(outline: Outline, tmp_path: Path) -> None:
    outline.save_pretrained(tmp_path)
    loaded = Outline.from_pretrained(tmp_path)
    picture = noise(1)[0]
    ours, theirs = (network.mask(picture, (0.5, 0.5), 0.11, lean=0) for network in (outline, loaded))
    assert torch.equal(ours, theirs) and ours.std() > 0
    assert loaded.config.side == 32 and loaded.config.widths == [4, 8]


def test_a_mask_leans_towards_more_and_ends(outline: Outline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of logits far below, at and above what it leans by: nothing at all, a half, all of it."""
    logits = torch.tensor([-LEAN - 4, -LEAN, 3.0, 3.0]).repeat_interleave(8)[None, None].expand(1, 32, 32)
    twice = torch.cat([logits, logits.flip(2)])
    monkeypatch.setattr(Outline, "forward", lambda self, pictures, xy, brushes: twice)
    mask = outline.mask(noise(1, 32, 32)[0], (0.5, 0.5), 0.11)
    assert torch.allclose(mask[:, ::8], torch.tensor([0.0, 0.5, 1.0, 1.0]))
    assert torch.equal(mask, mask[:, ::8].repeat_interleave(8, 1))
