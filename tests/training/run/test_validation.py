"""Sheets that a run leaves: how many rows they have, and that the error on them is that of the video."""

import imageio
import numpy as np
import pytest
from PIL import Image

from ardrag.judges.template_match import path_errors
from training.run import validation
from training.run.validation import comparison_sheet, validation_clips, validation_sheet


@pytest.fixture
def two_clips(monkeypatch):
    monkeypatch.setattr(validation, "NUM_CLIPS", 2)


@pytest.fixture(scope="module")
def pipeline(make_pipeline):
    """Sprites need more room than the other tests' pictures have."""
    pipeline = make_pipeline()
    pipeline.register_to_config(buckets=[[64, 64]])
    return pipeline


def test_sheet_and_error(pipeline, tmp_path, two_clips):
    error = validation_sheet(pipeline, tmp_path / "a" / "sheet.png", num_latents=3)
    expected = []
    for index, clip, tracks in validation_clips(pipeline, 3):
        parts = pipeline.stream(Image.fromarray(clip.frames[0]), clip.caption, tracks=tracks, seed=index)
        frames = np.stack([frame for part in parts for frame in part])
        expected.append(np.nanmean(path_errors(clip, frames)[1:]))
    assert error == pytest.approx(np.mean(expected))
    assert Image.open(tmp_path / "a" / "sheet.png").size == (3 * 64, 4 * 64)
    video = np.stack(imageio.mimread(tmp_path / "a" / "sheet.mp4"))
    assert video.shape == (9, 2 * 64, 2 * 64, 3)  # truths above results
    shown, made = (
        x.reshape(9, 8, 8, 8, 8, 3).mean((2, 4)) for x in (video[:, 64:, 64:].astype(float), frames.astype(float))
    )
    assert np.abs(shown - made).mean() < 5  # blocks of eight: fine noise does not survive the codec


def test_student_and_teacher_under_the_truth(pipeline, tmp_path, two_clips, monkeypatch):
    monkeypatch.setattr(validation, "TEACHER_STEPS", 2)
    comparison_sheet(pipeline, pipeline, tmp_path / "sheet.png", num_latents=3)
    rows = np.asarray(Image.open(tmp_path / "sheet.png")).reshape(6, 64, 3, 64, 3)
    for truth, student, teacher in (rows[:3], rows[3:]):
        assert np.array_equal(student[:, 0], teacher[:, 0])  # both are given the picture
        assert not np.array_equal(student, teacher) and not np.array_equal(truth, student)
