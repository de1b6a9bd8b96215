"""The loss, the measure, and a short training that learns where a thing of one colour ends."""

import math

import numpy as np
import pytest
import torch

from ardrag.outlines.network import Outline
from tests.worlds_library import write_made_up
from training.outlines import train
from training.outlines.things import Grab, Shown
from training.outlines.train import USUAL, OutlineConfig, draw_brush, loss_of, main, overlap, stack, validate
from training.run.runtime import read_rows


def test_the_usual_brush_is_that_of_the_control():
    from ardrag.controls.carried import Cutout

    brushes = [draw_brush(np.random.default_rng(seed)) for seed in range(200)]
    assert Cutout().radius == USUAL and 70 < brushes.count(USUAL) < 130
    assert 0.05 <= min(brushes) < 0.07 and 0.18 < max(brushes) <= 0.3


def test_overlap_is_intersection_over_union():
    one, other = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    one[0, :2], other[0, 1:3] = 1, 0.9
    one[1], other[1] = 1, 1
    assert overlap(one, other) == pytest.approx((4 / 12 + 1) / 2)


def test_the_loss_is_least_for_the_mask_itself():
    masks = (torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    right, wrong = (masks - 0.5) * 20, (0.5 - masks) * 20
    assert loss_of(right, masks) < 0.01 < 1 < loss_of(torch.zeros_like(masks), masks) < loss_of(wrong, masks)
    zero = loss_of(torch.zeros_like(masks), masks)
    dice = 1 - (masks.sum((1, 2)) + 1) / (128 + masks.sum((1, 2)) + 1)
    assert float(zero) == pytest.approx(float(2 * math.log(2) + dice.mean()), abs=1e-5)


def test_beside_things_the_disc_is_to_be_given():
    picture, mask = np.zeros((24, 32, 3), np.float32), np.zeros((24, 32), np.float32)
    mask[3:9, 4:20] = 1
    samples = [
        (picture, Grab(mask, np.array([8, 6], np.float32))),
        (picture, Grab(None, np.array([16, 12], np.float32))),
    ]
    batch = stack(samples, lambda pictures: pictures, np.random.default_rng(0))
    assert batch.things.tolist() == [True, False] and torch.equal(batch.masks[0], torch.from_numpy(mask))
    torch.testing.assert_close(batch.xy, torch.tensor([[0.25, 0.25], [0.5, 0.5]]))
    s = float(batch.brushes[1]) * math.sqrt(24 * 32)
    assert float(batch.masks[1, 12, 20]) == pytest.approx(
        math.exp(-(((4.5**2 + 0.5**2) / (2 * s * s)) ** 2)), abs=1e-4
    )
    assert batch.pictures.shape == (2, 3, 24, 32) and (batch.pictures == -1).all()


def blocks(split, start, count):
    """Red things of any width on blue grounds."""
    for number in range(start, start + count):
        rng = np.random.default_rng(number)
        owner = np.zeros((32, 32), np.uint8)
        top, left, height, width = *rng.integers(2, 12, 2), *rng.integers(8, 18, 2)
        owner[top : top + height, left : left + width] = 1
        picture = np.where(owner[..., None] == 1, [220, 40, 40], [30, 30, 200]).astype(np.uint8)
        empty = np.full((32, 32, 3), [30, 30, 200], np.uint8)
        yield Shown(picture, owner, empty, np.array([[left + width / 2, top + height / 2]], np.float32))


@pytest.mark.slow
def test_a_short_training_learns_outlines(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "shown_photos", blocks)
    monkeypatch.setattr(train, "shown_sprites", blocks)
    torch.manual_seed(0)
    Outline(widths=(8, 16), side=32).save_pretrained(tmp_path / "new")
    sizes = {"photos": 60, "sprites": 20, "steps": 120, "validation_grabs": 40, "save_every": 60, "side": 32}
    config = OutlineConfig(str(tmp_path), init_from=str(tmp_path / "new"), **sizes)
    main(config)
    told = [row for row in read_rows(tmp_path / "log.jsonl") if "validation/overlap" in row]
    assert [row["step"] for row in told] == [59, 119]
    assert told[-1]["validation/overlap"] > 0.7 > told[-1]["validation/overlap_of_the_disc"]
    model = Outline.from_pretrained(tmp_path / "outline")
    found = validate(model, train.held_out(config, model.brought))
    assert found["validation/overlap"] == pytest.approx(told[-1]["validation/overlap"], abs=1e-3)


@pytest.mark.slow
def test_the_worlds_themselves_can_be_learnt_from(tmp_path, monkeypatch):
    write_made_up(tmp_path / "pictures")
    monkeypatch.setenv("ARDRAG_PHOTOS", str(tmp_path / "pictures"))
    few = {"photos": 3, "sprites": 2, "steps": 2, "batch_size": 2, "validation_grabs": 12}
    main(OutlineConfig(str(tmp_path / "run"), widths=[4, 8], **few))
    begun = Outline.from_pretrained(tmp_path / "run" / "outline")
    main(OutlineConfig(str(tmp_path / "on"), init_from=str(tmp_path / "run" / "outline"), **few))
    after = Outline.from_pretrained(tmp_path / "on" / "outline")
    assert list(begun.config.widths) == list(after.config.widths) == [4, 8]
    moved = [float((a - b).abs().max()) for a, b in zip(begun.parameters(), after.parameters(), strict=True)]
    assert 0 < max(moved) < 0.2, "it went on from there"
