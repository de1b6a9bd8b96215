"""The numbers of the paper (Tables 1 and 2), kept apart from ours.

Its models have 1.3 to 5 billion parameters, its 206 clips are not published, its FID, FVD, aesthetic score and motion
smoothness come from networks for photographs, and its latency is that of one NVIDIA H20. No number here can be
compared with a number of Sprite World; what can be compared is which of two systems is ahead.
"""

from __future__ import annotations


COLUMNS = {
    "latency": "latency, s",
    "fid": "FID",
    "fvd": "FVD",
    "aesthetic": "aesthetic quality",
    "smoothness": "motion smoothness",
    "consistency": "motion consistency",
}
TABLE_1 = {
    "DragNUWA": (94.26, 36.31, 376.39, 3.30, 0.9759, 3.71),
    "DragAnything": (68.76, 38.13, 367.74, 3.22, 0.9811, 3.63),
    "Tora": (176.51, 32.84, 283.43, 3.86, 0.9855, 3.97),
    "MagicMotion": (1426.37, 30.04, 230.53, 4.01, 0.9871, 3.95),
    "Self-Forcing": (0.95, 34.47, 315.87, 3.70, 0.9920, 4.06),
    "AR-Drag": (0.44, 28.98, 187.49, 4.07, 0.9948, 4.37),
}
TABLE_2 = {
    "w/o RL": (0.44, 31.65, 210.35, 3.92, 0.9926, 4.12),
    "initial model": (45.72, 35.94, 303.16, 3.84, 0.9915, 3.22),
    "teacher model": (45.64, 29.38, 151.46, 4.15, 0.9941, 4.36),
    "w/o Self-Rollout": (0.44, 38.13, 353.75, 3.38, 0.9904, 4.02),
}
PAPER = {name: dict(zip(COLUMNS, row, strict=True)) for name, row in {**TABLE_1, **TABLE_2}.items()}
CONTROL_ROWS = {
    "flow": "DragNUWA",
    "entity": "DragAnything",
    "fused_flow": "Tora",
    "boxes": "MagicMotion",
    "causal, heat": "AR-Drag",
}
"""Which of the paper's systems shows its model what a row of the table of controls is shown (`ardrag.controls`)."""
ROW_NOTES = {
    "heat": "the paper's control, here of a bidirectional model; each row from one start, with equal clips and steps",
    "coloured": "heat, each track in a colour of its own",
    "carried": "the piece of the picture that was grabbed, along its track",
    "copied": "the picture's latent features, copied along the tracks (Wan-Move)",
    "track_ids": "identities on the latent grid and a head (MotionStream)",
    "entity": "the mean feature of what was grabbed (DragAnything)",
    "flow": "sparse smoothed flow (DragNUWA)",
    "fused_flow": "flow fused into every block (Tora)",
    "boxes": "coloured boxes (MagicMotion's last stages)",
    "start": "the common start, which never saw a track",
    "causal, heat": "causal from the same start: AR-Drag's stage 1 alone, neither distilled nor reinforced",
    "causal, carried": "the same with what is carried",
    "w/o RL": "before stage 3",
    "w/o Self-Rollout": "the same distillation, but the prediction of the exit step becomes history",
    "Self-Forcing": "as that, in chunks of three latents",
    "initial model": "the causal start before distillation; the paper's is Wan2.1 before any adaptation, many steps",
    "teacher model": "bidirectional, the whole clip at once",
    "tracks of another clip": "the control: AR-Drag driven by wrong tracks, measured against the right ones",
    "still picture": "the given picture, repeated",
    "VAE": "the true video through the VAE: no model on these latents can beat it",
    "truth": "the true video: the floor of each measure",
}
"""What our rows are where the name alone does not say it."""


def paper_row(name: str) -> str | None:
    """The row of the paper's tables that stands beside ours."""
    own = CONTROL_ROWS.get(name, name)
    return own if own in PAPER else None
