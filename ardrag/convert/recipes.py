"""What each public checkpoint is, and what becomes of it.

A checkpoint is recognised by its channels and its extra modules, never by its name. What it was trained with beyond
that (fill of the image slot, schedule, chunk and window) is not in the file: it is written here, from its authors'
code, and saved with the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ardrag.convert.reading import Weights


LATENT = 16
"""Channels of Wan2.1's latents, and of every slot but the mask."""
WIDTHS = {"latents": LATENT, "motion": LATENT, "image": LATENT, "mask": 4}
REFUSED = {
    "ref_conv.": "it puts the tokens of a reference picture before the video's, which this model cannot read; take "
    "Wan2.1-Fun-1.3B-Control (V1.0)",
    "control_adapter.": "it is steered by camera poses; take Wan2.1-Fun-1.3B-Control (V1.0)",
    "vace_": "it is a VACE model; take Wan2.1-T2V-1.3B or a Fun checkpoint",
    "img_emb.emb_pos": "it is made for first and last frames (14B); take Wan2.1-Fun-1.3B-InP",
    "motion_encoder.": "it is an Animate model; take Wan2.1-Fun-1.3B-Control",
    "face_adapter.": "it is an Animate model; take Wan2.1-Fun-1.3B-Control",
}
"""First parts of keys that no 1.3B image-to-video checkpoint has, and why a file with one is not taken."""
WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，"
    "背景人很多，倒着走"
)
"""Wan2.1's own negative prompt; the paper's template (appendix B.1) is a translation of it."""
BIDIRECTIONAL = {
    "mode": "bidirectional",
    "solver": "unipc",
    "sigmas": None,
    "num_inference_steps": 50,
    "shift": 5.0,
    "eta": 0.0,
    "first_frame": "generate",
    "guidance_scale": 6.0,
    "motion_null": "zeros",
}


def few_steps(shift: float, *levels: float) -> dict[str, Any]:
    """Schedule of a student that re-noises between steps: ``levels`` from 1 down, moved towards noise by ``shift``."""
    sigmas = [round(shift * level / (1 + (shift - 1) * level), 6) for level in levels]
    return {"sigmas": [*sigmas, 0.0], "num_inference_steps": len(sigmas), "shift": shift, "eta": 1.0}


@dataclass(frozen=True)
class Recipe:
    """One kind of checkpoint: the ``slots`` it reads in order, those we add, and what is saved in the configurations.

    ``transformer`` and ``scheduler`` hold settings of those two; ``control`` is what the motion slot is shown.
    """

    title: str
    slots: tuple[str, ...]
    added: tuple[str, ...] = ()
    transformer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=lambda: dict(BIDIRECTIONAL))
    control: str = "heat"

    @property
    def layout(self) -> dict[str, int]:
        """Slots of the result, in order."""
        return {name: WIDTHS[name] for name in (*self.slots, *self.added)}


FUN_CONTROL = Recipe("Wan2.1-Fun-1.3B-Control", ("latents", "motion", "image"), (), {"image_fill": "zeros"})
FUN_INP = Recipe("Wan2.1-Fun-1.3B-InP", ("latents", "mask", "image"), ("motion",), {"image_fill": "grey"})
TEXT_TO_VIDEO = Recipe(
    "Wan2.1-T2V-1.3B", ("latents",), ("motion", "image"), {}, BIDIRECTIONAL | {"first_frame": "encode"}
)
TRACKS = Recipe(
    "the teacher of Track-v0",
    ("latents", "mask", "image", "motion"),
    (),
    {"image_fill": "grey"},
    BIDIRECTIONAL | {"shift": 6.0, "guidance_scale": 3.333, "motion_guidance_scale": 2.167},
    "track_ids",
)
CAUSAL_TRACKS = Recipe(
    "Track-v0",
    TRACKS.slots,
    (),
    {"image_fill": "grey", "chunk_frames": 3, "first_chunk_frames": 1, "window_frames": 2, "sink_frames": 1},
    few_steps(6.0, 1.0, 0.75, 0.5, 0.25) | {"first_frame": "generate"},
    "track_ids",
)
STUDENTS = {
    "self-forcing": (3, few_steps(5.0, 1.0, 0.75, 0.5, 0.25)),
    "causvid": (3, {"sigmas": [1.0, 0.757, 0.522, 0.0], "num_inference_steps": 3, "shift": 8.0, "eta": 1.0}),
    "causal-forcing": (3, few_steps(5.0, 1.0, 0.75, 0.5, 0.25)),
    "causal-forcing-framewise": (1, few_steps(5.0, 1.0, 0.75, 0.5, 0.25)),
}
"""Chunk and schedule of the public causal students; all of them see the 21 latents that they were trained on."""
SEEN_LATENTS = 21


def student_recipe(name: str) -> Recipe:
    """The recipe of one of `STUDENTS`.

    Raises:
        ValueError: if there is no such student.
    """
    if name not in STUDENTS:
        raise ValueError(f"student: {name!r} is unknown; use one of {', '.join(STUDENTS)}")
    chunk, schedule = STUDENTS[name]
    causal = {"chunk_frames": chunk, "window_frames": SEEN_LATENTS - chunk}
    return Recipe(name, ("latents",), ("motion", "image"), causal, schedule | {"first_frame": "encode"})


def recognise(weights: Weights, student: str | None = None, causal: bool = False) -> Recipe:
    """The recipe that fits a checkpoint.

    Args:
        weights: the checkpoint.
        student: one of `STUDENTS`, where the file holds a causal student.
        causal: the checkpoint says of itself that it is causal (Track-v0).

    Raises:
        ValueError: if it is a checkpoint of another kind or size; naming the key or the shape, and why.
    """
    for key in weights.shapes:
        reason = next((reason for start, reason in REFUSED.items() if key.startswith(start)), None)
        if reason is not None:
            raise ValueError(f"source: {weights.path.name} holds {key}: {reason}")
    shape = weights.shapes.get("patch_embedding.weight", ())
    if len(shape) != 5:
        raise ValueError(f"source: {weights.path.name} holds no patch_embedding.weight; it is no Wan transformer")
    if shape[0] >= 5120:
        raise ValueError(
            f"source: {weights.path.name} is a 14B file (width {shape[0]}); only the 1.3B checkpoints fit (width 1536)"
        )
    recipe = _by_channels(shape[1], any(key.startswith("track_encoder.") for key in weights.shapes), student, causal)
    if recipe is None:
        raise ValueError(
            f"source: {weights.path.name} reads {shape[1]} channels; known are 16 (T2V and its students), 36 (InP), "
            "48 (Fun-Control) and 52 with a track_encoder (Track-v0)"
        )
    return recipe


def _by_channels(channels: int, has_tracks: bool, student: str | None, causal: bool) -> Recipe | None:
    if channels == LATENT:
        return TEXT_TO_VIDEO if student is None else student_recipe(student)
    if has_tracks:
        return CAUSAL_TRACKS if causal else TRACKS
    return {36: FUN_INP, 48: FUN_CONTROL}.get(channels)
