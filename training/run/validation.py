"""What a run looks like while it trains: generated clips beside the truth, and how far off the path they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ardrag.judges.template_match import path_errors
from ardrag.tracks.tracks import Tracks
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.sprites import SpriteClip, make_clip
from pipelines import ARDragPipeline
from pipelines.bidirectional import generate_bidirectional
from pipelines.video import draw_paths, write_video
from training.run.runtime import contact_sheet


NUM_CLIPS = 4
TEACHER_STEPS = 24


def validation_clips(pipeline: ARDragPipeline, num_latents: int) -> Iterator[tuple[int, SpriteClip, Tracks]]:
    """The first clips of the validation split with their tracks, in the size of ``pipeline``."""
    num_frames = 1 + pipeline.vae.config.scale_factor_temporal * (num_latents - 1)
    for index in range(NUM_CLIPS):
        clip = make_clip("validation", index, num_frames, *pipeline.config.buckets[0])
        yield index, clip, clip_tracks(clip)


@torch.no_grad()
def validation_sheet(pipeline: ARDragPipeline, path: Path, num_latents: int) -> float:
    """Generate the first validation clips and write truth and result as a contact sheet, and as a video beside it.

    Returns the path error in px.
    """
    rows, errors = [], []
    for index, clip, tracks in validation_clips(pipeline, num_latents):
        parts = pipeline.stream(Image.fromarray(clip.frames[0]), clip.caption, tracks=tracks, seed=index)
        frames = np.stack([frame for part in parts for frame in part])
        arrays = tracks.to_array()
        errors.append(np.nanmean(path_errors(clip, frames)[1:]))
        rows.append(np.stack([draw_paths(frame, arrays, t) for t, frame in enumerate(clip.frames)]))
        rows.append(frames)
    contact_sheet(rows, path)
    truths, results = (np.concatenate(part, axis=2) for part in (rows[::2], rows[1::2]))
    write_video(list(np.concatenate([truths, results], axis=1)), path.with_suffix(".mp4"), pipeline.config.fps)
    return float(np.mean(errors))


def comparison_sheet(student: ARDragPipeline, teacher: ARDragPipeline, path: Path, num_latents: int) -> None:
    """The first validation clips three times: the truth, the student in its few steps, the teacher in many."""
    rows = []
    for index, clip, tracks in validation_clips(student, num_latents):
        reference = Image.fromarray(clip.frames[0])
        parts = student.stream(reference, clip.caption, tracks=tracks, seed=index)
        options = {"num_inference_steps": TEACHER_STEPS, "seed": index}
        rows.append(clip.frames)
        rows.append(np.stack([frame for part in parts for frame in part]))
        rows.append(generate_bidirectional(teacher, reference, clip.caption, tracks, len(clip.frames), **options))
    contact_sheet(rows, path)
