"""Everything that is measured of one clip, by name: the one place where metrics meet a case.

Where the case is a clip of one of our worlds, what moves is found by template match, which is exact and was in no
reward; elsewhere a point tracker finds the points. Values are None where there was nothing to measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ardrag.judges.photo_match import piece_offsets, region_psnr
from ardrag.judges.rewards import first_queries, pixel_trajectories
from ardrag.judges.template_match import background_psnr, colour_errors, psnr
from ardrag.judges.tracking import PointTracker, Trajectories
from ardrag.worlds.photos import PhotoClip
from ardrag.worlds.sprites import SpriteClip
from eval.benchmark.passers import moved_centres
from eval.metrics.aesthetic import FrameScorer, frame_scores
from eval.metrics.background import flicker
from eval.metrics.consistency import motion_consistency
from eval.metrics.drift import per_latent, slope
from eval.metrics.features import FeatureSpace, features_of
from eval.metrics.identity import Float, identity
from eval.metrics.latents import LatentError
from eval.metrics.paths import epe, jitter, lost_share, mean_of, objmc, percent_of_diagonal, track_errors
from eval.metrics.smoothness import Interpolator, interpolation_smoothness
from eval.suites.case import Case, Pixels


PATCH_REACH = 8
"""Half the side of the patch whose identity is asked where the size of the thing is unknown, pixels."""
Values = dict[str, float | None]
Latents = dict[str, list[float | None]]


@dataclass
class Meter:
    """The networks and the tracker of an evaluation.

    Args:
        space: features of the distribution distances.
        scorer: aesthetic score of frames.
        tracker: finds points in any video.
        interpolate: network of VBench's motion smoothness; None leaves that metric out.
        temporal_factor: pixel frames of a latent.
        latent_error: of a VAE; None leaves that metric out.
    """

    space: FeatureSpace
    scorer: FrameScorer
    tracker: PointTracker
    interpolate: Interpolator | None = None
    temporal_factor: int = 4
    latent_error: LatentError | None = None

    def measure(self, case: Case, frames: Pixels) -> dict[str, Any]:
        """``values`` by metric, ``latents`` (measures per latent frame) and ``features`` of one video of a case.

        Raises:
            ValueError: if the video does not have the length of the case, or the size of its true video.
        """
        if len(frames) != case.num_frames:
            raise ValueError(f"{case.name}: {len(frames)} frames instead of {case.num_frames}")
        values, curves = self._followed(case, frames)
        scores = frame_scores(self.scorer, frames)
        values["aesthetic"], curves["aesthetic"] = mean_of(scores[1:]), scores
        values["midpoint_smoothness"] = interpolation_smoothness(frames)
        if self.interpolate is not None:
            values["smoothness"] = interpolation_smoothness(frames, self.interpolate)
        if case.truth is not None:
            values["truth_psnr"] = mean_of(psnr(frames, case.truth[: len(frames)])[1:])
            if self.latent_error is not None:
                values["latent_error"] = self.latent_error(frames, case.truth, case.tracks)
        latents = {name: per_latent(curve, self.temporal_factor) for name, curve in curves.items()}
        values["drift"] = slope(latents["path_error"])
        return {"values": values, "latents": latents, "features": features_of(self.space, frames)}

    def follow(self, case: Case, frames: Pixels) -> Latents:
        """Only what changes along a clip, per latent: for long clips."""
        curves = self._followed(case, frames, whole=False)[1]
        return {name: per_latent(curve, self.temporal_factor) for name, curve in curves.items()}

    def _followed(self, case: Case, frames: Pixels, whole: bool = True) -> tuple[Values, dict[str, Any]]:
        """Metrics of motion, identity and background, and those of them that are known frame by frame."""
        values: Values = {}
        if case.sprites is not None:
            found, wanted, curves = sprite_curves(case.sprites, frames)
            values["flicker"] = flicker(frames, case.sprites.untouched)
        elif case.photos is not None:
            found, wanted, curves = photo_curves(case.photos, frames)
            values["flicker"] = flicker(frames, case.photos.untouched)
            values["first_frame_psnr"] = float(psnr(frames[:1], case.photos.frames[:1])[0])
        else:
            found, wanted = self._tracked(case, frames)
            start = np.repeat(case.picture[None], len(frames), axis=0)
            first = wanted.xy[wanted.visible.argmax(0), np.arange(wanted.xy.shape[1])]
            places = np.broadcast_to(first, wanted.xy.shape)
            alike = identity(frames, found.xy, wanted.visible & found.visible, start, places, PATCH_REACH)
            curves = {"identity": alike}
        errors = track_errors(found, wanted)
        curves["path_error"] = errors
        values |= {"path_error": epe(errors), "objmc": objmc(errors), "jitter": jitter(found, wanted)}
        values["path_error_percent"] = percent_of_diagonal(values["path_error"], *frames.shape[1:3])
        values |= {name: mean_of(curve[1:]) for name, curve in curves.items() if name != "path_error"}
        if whole:
            exact = case.sprites is not None or case.photos is not None
            by_tracker = self._tracked(case, frames) if exact else (found, wanted)
            values["lost"] = lost_share(*by_tracker)
            values["consistency"] = motion_consistency(*by_tracker, self.temporal_factor)
            if exact:
                values["consistency_template"] = motion_consistency(found, wanted, self.temporal_factor)
        return values, curves

    def _tracked(self, case: Case, frames: Pixels) -> tuple[Trajectories, Trajectories]:
        """Where the tracker finds the points of the tracks that are ever visible, and where they should be."""
        height, width = frames.shape[1:3]
        wanted = pixel_trajectories(case.tracks, len(frames), height, width)
        queries, rows = first_queries(wanted)
        wanted = Trajectories(wanted.xy[:, rows], wanted.visible[:, rows])
        if not len(rows):
            return wanted, wanted
        return self.tracker.track(torch.from_numpy(frames).permute(0, 3, 1, 2), queries), wanted


def sprite_curves(clip: SpriteClip, frames: Pixels) -> tuple[Trajectories, Trajectories, dict[str, Any]]:
    """Where the moved sprites are and should be, and ``[T]`` or ``[T, P]`` of what is known of them by frame."""
    if frames.shape != clip.frames.shape:
        raise ValueError(f"frames: shape {frames.shape}; the true video has {clip.frames.shape}")
    centres = moved_centres(clip, frames)
    grabs = np.array([clip.sprites[mover].grab for mover in clip.movers], np.float32)
    found = Trajectories((centres + grabs).astype(np.float32), np.ones(clip.visible.shape, bool))
    wanted = Trajectories(clip.xy.astype(np.float32), clip.visible)
    curves = {
        "identity": sprite_identity(clip, frames, centres),
        "colour_error": colour_errors(clip, frames, centres),
        "background_psnr": background_psnr(clip, frames),
    }
    return found, wanted, curves


def photo_curves(clip: PhotoClip, frames: Pixels) -> tuple[Trajectories, Trajectories, dict[str, Any]]:
    """As `sprite_curves`, of a clip of Photo World."""
    if frames.shape != clip.frames.shape:
        raise ValueError(f"frames: shape {frames.shape}; the true video has {clip.frames.shape}")
    true = clip.xy[:, : len(clip.movers)].astype(np.float32)
    offsets = piece_offsets(clip, frames)
    known = clip.visible[:, : len(clip.movers)] & np.isfinite(offsets).all(-1)
    found = np.where(known[..., None], true + offsets, 0).astype(np.float32)
    regions = region_psnr(clip, frames)
    curves = {
        "identity": identity(frames, found, known, clip.frames, true, PATCH_REACH),
        "background_psnr": psnr(frames, clip.background, clip.untouched),
        "piece_psnr": regions["piece"],
        "rest_psnr": regions["rest"],
    }
    return Trajectories(found, np.ones(known.shape, bool)), Trajectories(true, known), curves


def sprite_identity(clip: SpriteClip, frames: Pixels, centres: np.ndarray) -> Float:
    """Alikeness ``[T, P]`` of each moved sprite where it was found with the true one where it should be."""
    columns = []
    for p, mover in enumerate(clip.movers):
        sprite = clip.sprites[mover]
        one = slice(p, p + 1)
        places = sprite.xy[:, None]
        reach = sprite.size // 2
        columns.append(identity(frames, centres[:, one], clip.visible[:, one], clip.frames, places, reach))
    return np.concatenate(columns, axis=1)
