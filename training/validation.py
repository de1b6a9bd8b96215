"""What a run looks like while it trains: generated clips beside the truth, and how far off the path they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ardrag.sprite_tracks import clip_tracks
from ardrag.sprites import make_clip
from ardrag.template_match import path_errors
from pipelines import ARDragPipeline
from pipelines.video import draw_paths
from training.runtime import contact_sheet


NUM_CLIPS = 4


@torch.no_grad()
def validation_sheet(pipeline: ARDragPipeline, path: Path, num_latents: int) -> float:
    """Generate the first validation clips, write truth and result as a contact sheet; returns the path error in px."""
    factor = pipeline.vae.config.scale_factor_temporal
    num_frames = 1 + factor * (num_latents - 1)
    rows, errors = [], []
    for index in range(NUM_CLIPS):
        clip = make_clip("validation", index, num_frames, *pipeline.config.buckets[0])
        tracks = clip_tracks(clip)
        parts = pipeline.stream(Image.fromarray(clip.frames[0]), clip.caption, tracks=tracks, seed=index)
        frames = np.stack([frame for part in parts for frame in part])
        arrays = tracks.to_array()
        errors.append(np.nanmean(path_errors(clip, frames)[1:]))
        rows.append(np.stack([draw_paths(frame, arrays, t) for t, frame in enumerate(clip.frames)]))
        rows.append(frames)
    contact_sheet(rows, path)
    return float(np.mean(errors))
