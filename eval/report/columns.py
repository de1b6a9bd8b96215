"""Names, units and directions of all metrics, in the order of the tables."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """One column: key of a row's value, heading, which way is better, digits after the point, and its definition."""

    key: str
    label: str
    better: str
    digits: int
    meaning: str


METRICS = (
    Metric(
        "path_error",
        "path error, px",
        "lower",
        2,
        "mean distance between where a point is found and where its track shows it, over all shown points and frames "
        "after the first (EPE); in our worlds found by template match, elsewhere by the tracker",
    ),
    Metric("path_error_percent", "path error, % of diagonal", "lower", 2, "the same over the picture's diagonal"),
    Metric("objmc", "ObjMC, px", "lower", 2, "the same, averaged within each track first"),
    Metric(
        "consistency",
        "motion consistency, tracker",
        "higher",
        2,
        "the paper's reward (Eq. 16) with the named tracker: 5 minus the mean squared distance in latent-grid pixels, "
        "0 at least, over the latents after the first",
    ),
    Metric("consistency_template", "motion consistency, template", "higher", 2, "the same with the template match"),
    Metric("lost", "points lost", "lower", 2, "share of shown points and frames where the tracker had lost the point"),
    Metric("jitter", "jitter, px", "lower", 2, "mean length of the second difference in time of found minus drawn"),
    Metric("drift", "drift, px per latent", "lower", 2, "slope of the path error over latents"),
    Metric("identity", "identity", "higher", 3, "correlation of the patch around a found point with the true one"),
    Metric("colour_error", "colour error, of 255", "lower", 1, "5x5 pixels at the sprite's centre against the truth"),
    Metric("background_psnr", "background PSNR, dB", "higher", 2, "over pixels that no sprite touches"),
    Metric(
        "first_frame_psnr",
        "first frame, dB",
        "higher",
        2,
        "PSNR of frame 0, which the VAE alone decides (photos)",
    ),
    Metric(
        "piece_psnr",
        "moved piece, dB",
        "higher",
        2,
        "PSNR at the places where the moved things truly are, after the first frame (photos)",
    ),
    Metric("rest_psnr", "rest of the picture, dB", "higher", 2, "PSNR of all other pixels (photos)"),
    Metric("flicker", "flicker, of 255", "lower", 2, "mean change from frame to frame of the same pixels"),
    Metric("latent_error", "latent error near tracks", "lower", 3, "to the true video's, by the VAE that was named"),
    Metric("truth_psnr", "PSNR to truth, dB", "higher", 2, "over all pixels, against the true video"),
    Metric(
        "midpoint_smoothness",
        "midpoint smoothness",
        "higher",
        4,
        "VBench's formula with the mean of two frames for the interpolated one; not comparable with VBench",
    ),
    Metric("smoothness", "motion smoothness", "higher", 4, "VBench's, with AMT-S"),
    Metric("aesthetic", "aesthetic", "higher", 2, "mean score of the frames after the first"),
)
HISTORIES = (
    Metric(
        "passer_sharpness",
        "passers-by, sharpness",
        "higher",
        3,
        "how much of the edges of a sprite that no track moves is there where it is found, by projection",
    ),
    Metric(
        "passer_off",
        "passers-by, off any valid path, px",
        "lower",
        2,
        "its distance to the nearest path that the world allows from its place in frame 0, over headings and speeds",
    ),
    Metric(
        "passer_coverage",
        "passers-by, coverage of directions",
        "nearer to 1",
        2,
        "mean angle between the headings of several videos of one picture, over that of uniform headings",
    ),
    Metric(
        "latent_distance",
        "Fréchet distance of latents",
        "lower",
        3,
        "of what latents are and become at each place, between several videos of one picture and other true futures "
        "of it, these through the VAE once more",
    ),
)
"""Of several videos of one picture (`eval.benchmark.histories`)."""
LATE = tuple(
    metric._replace(
        key=f"late_{metric.key}", label=f"late, {metric.label}", meaning="the same at the end of long clips"
    )
    for metric in HISTORIES
)
BY_KEY = {metric.key: metric for metric in (*METRICS, *HISTORIES, *LATE)}
DISTANCES = {
    "fid": "Fréchet distance of frames, 8 of each clip",
    "kid": "polynomial kernel distance of the same frames (unbiased)",
    "fvd": "Fréchet distance of clips",
    "kvd": "polynomial kernel distance of clips (unbiased)",
}
MAIN = ("path_error", "consistency_template", "consistency", "midpoint_smoothness", "smoothness", "aesthetic")
"""Columns of the main table, beside the distances."""
CATEGORY_METRICS = ("path_error", "objmc", "identity", "background_psnr")
