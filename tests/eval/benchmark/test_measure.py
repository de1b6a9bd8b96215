"""Each damage moves the number that should move, and not the others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ardrag.judges.tracking import LucasKanadeTracker
from eval.benchmark.measure import Meter
from eval.metrics.aesthetic import load_scorer
from eval.metrics.features import SpriteSpace
from eval.metrics.latents import LatentError
from eval.suites.case import Case
from eval.suites.photos import PhotoSuite
from eval.suites.sprites import SpriteSuite


FRAMES = 17


@pytest.fixture(scope="module")
def meter():
    return Meter(SpriteSpace(), load_scorer(None), LucasKanadeTracker())


@pytest.fixture(scope="module")
def case():
    return SpriteSuite().case(3, FRAMES)


@pytest.fixture(scope="module")
def truth(meter, case):
    return meter.measure(case, case.truth)["values"]


def test_the_truth_has_no_errors(truth):
    assert truth["path_error"] < 0.3 and truth["colour_error"] < 3 and truth["flicker"] == 0
    assert truth["consistency_template"] > 4.99 and truth["identity"] > 0.95
    assert truth["background_psnr"] > 70 and truth["truth_psnr"] > 70
    assert truth["objmc"] == pytest.approx(truth["path_error"], abs=0.1)


def test_the_latent_error_is_there_where_a_vae_was_named(meter, case, truth, pipeline):
    assert "latent_error" not in truth
    named = replace(meter, latent_error=LatentError(pipeline.vae))
    assert named.measure(case, case.truth)["values"]["latent_error"] == 0
    assert named.measure(case, frozen(case.truth))["values"]["latent_error"] > 0


def moved(values, truth, keys):
    """Which of ``keys`` are worse than the truth by a clear step."""
    steps = {"path_error": 1, "colour_error": 6, "flicker": 1, "background_psnr": -15, "identity": -0.2, "jitter": 2}
    steps |= {"midpoint_smoothness": -0.002, "aesthetic": -0.5}
    found = set()
    for key in keys:
        change = values[key] - truth[key]
        if change / steps[key] >= 1:
            found.add(key)
    return found


WATCHED = ("path_error", "colour_error", "flicker", "background_psnr", "identity", "jitter")
WATCHED += ("midpoint_smoothness", "aesthetic")


def frozen(frames):
    return np.repeat(frames[:1], len(frames), axis=0)


def shuffled(frames):
    return frames[np.random.default_rng(0).permutation(len(frames))]


def recoloured(frames):
    return (frames * np.array([0.75, 0.75, 0.75])).astype(np.uint8)


def blurred(frames):
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    soft = F.avg_pool2d(F.pad(pixels, (4, 4, 4, 4), mode="replicate"), 9, stride=1)
    return soft.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def blinking(frames):
    return (frames.astype(int) + 6 * (np.arange(len(frames)) % 2)[:, None, None, None]).clip(0, 255).astype(np.uint8)


def shifted(frames):
    return np.roll(frames, 3, axis=2)


@pytest.mark.parametrize(
    ("damage", "worse", "spared"),
    [
        (frozen, {"path_error"}, {"flicker", "background_psnr", "midpoint_smoothness", "jitter", "aesthetic"}),
        (shuffled, {"path_error", "jitter", "midpoint_smoothness"}, {"flicker", "background_psnr", "aesthetic"}),
        (recoloured, {"colour_error", "background_psnr"}, {"path_error", "jitter", "flicker", "midpoint_smoothness"}),
        (blurred, {"aesthetic", "background_psnr"}, {"path_error", "jitter", "flicker", "midpoint_smoothness"}),
        (blinking, {"flicker", "background_psnr", "midpoint_smoothness"}, {"path_error", "jitter", "identity"}),
        (shifted, {"path_error", "background_psnr"}, {"jitter", "flicker", "midpoint_smoothness", "identity"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_damage_moves_its_own_numbers(meter, case, truth, damage, worse, spared):
    found = moved(meter.measure(case, damage(case.truth))["values"], truth, WATCHED)
    assert worse <= found, f"{worse - found} should have moved"
    assert not found & spared, f"{found & spared} should have stayed"


def test_a_shift_of_3_px_is_3_px_by_template_and_by_tracker(meter, case):
    found = meter.measure(case, shifted(case.truth))["values"]
    assert found["path_error"] == pytest.approx(3, abs=0.3)
    assert found["path_error_percent"] == pytest.approx(100 * 3 / np.hypot(128, 128), abs=0.2)


def test_latents_and_long_clips_agree(meter, case):
    whole = meter.measure(case, case.truth)
    assert [len(curve) for curve in whole["latents"].values()] == [5] * len(whole["latents"])
    assert {"path_error", "identity", "background_psnr", "aesthetic"} <= set(whole["latents"])
    followed = meter.follow(case, case.truth)
    assert followed == {name: whole["latents"][name] for name in followed} and "path_error" in followed


def test_without_sprites_the_tracker_measures(meter, case):
    plain = Case(0, "plain", case.picture, case.prompt, case.tracks, FRAMES)
    found = meter.measure(plain, case.truth)["values"]
    assert found["path_error"] < 1.5 and "consistency_template" not in found and "truth_psnr" not in found
    still = meter.measure(plain, frozen(case.truth))["values"]
    assert still["path_error"] > found["path_error"] + 5 and still["consistency"] < found["consistency"]


def test_a_video_that_does_not_fit_is_refused(meter, case):
    with pytest.raises(ValueError, match="003: 9 frames instead of 17"):
        meter.measure(case, case.truth[:9])
    with pytest.raises(ValueError, match="frames: shape .* the true video has"):
        meter.measure(case, case.truth[:, ::2])


def test_photo_world_is_measured_by_regions(meter, picture_folder, monkeypatch):
    monkeypatch.setenv("ARDRAG_PHOTOS", picture_folder)
    suite = PhotoSuite()
    cases = (suite.case(index, FRAMES) for index in range(30))
    case = next(c for c in cases if not {"still", "camera"} & set(c.categories) and c.photos.visible.all())
    true = meter.measure(case, case.truth)["values"]
    assert true["path_error"] < 0.4 and true["identity"] > 0.95 and true["flicker"] == 0
    assert min(true[name] for name in ("first_frame_psnr", "piece_psnr", "rest_psnr", "background_psnr")) > 70
    still = meter.measure(case, frozen(case.truth))["values"]
    assert still["first_frame_psnr"] > 70 and still["piece_psnr"] < 25 and still["path_error"] > 2
    assert still["background_psnr"] > 70
