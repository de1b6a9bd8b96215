"""Who takes part in stage 2: student, teacher, critic and the student's start, as models or as adapters of two."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ardrag.flow import FewStepScheduler
from pipelines import ARDragPipeline
from training.losses import gan
from training.rollouts.conditions import BlankMotion
from training.rollouts.tokens import empty_text, without_encoders
from training.run import tiny
from training.run.runtime import Reference, halve_base, let_learn
from training.run.shard import shard
from training.settings.distill import DistillConfig


@dataclass(frozen=True)
class Cast:
    """Who takes part: the student that learns, the frozen teacher, the critic, and the frozen start of the student."""

    student: ARDragPipeline
    teacher: ARDragPipeline
    critic: gan.Critic
    score: Reference
    """The teacher's transformer, frozen: without an adapter where the critic is the same one with it."""
    start: Reference | None
    """Frozen, where the first steps regress to its ODE."""
    null_text: Tensor
    blanks: BlankMotion


def assemble(config: DistillConfig, device: torch.device, row: Mapping[str, Any] | None = None) -> Cast:
    """Load both models, freeze what does not learn, build the critic; ``row`` is a clip, for what tokens it stores."""
    scheduler = FewStepScheduler(
        config.sigmas,
        num_inference_steps=len(config.sigmas) - 1,
        eta=config.eta,
        first_frame=config.first_frame,
    )
    left_out = without_encoders(config.stored_tokens)
    student = ARDragPipeline.from_pretrained(config.init_from, scheduler=scheduler, **left_out)
    student.transformer.register_to_config(chunk_frames=config.chunk_frames)
    encoders = {"text_encoder": student.text_encoder, "image_encoder": student.image_encoder}
    # Large encoders are public ones, the same in all models: one copy does for both.
    own = not config.stored_tokens and tiny.began_here(student)
    teacher = ARDragPipeline.from_pretrained(config.teacher, **({} if own else encoders))
    for pipeline in (student, teacher):
        for part in (pipeline.vae, pipeline.text_encoder, pipeline.image_encoder, pipeline.transformer):
            if part is not None:
                part.requires_grad_(False).eval()
        pipeline.to(device)
    whole, start = not config.lora_rank, None
    trunk = copy.deepcopy(teacher.transformer) if whole else teacher.transformer
    if config.ode_steps:
        start = Reference(copy.deepcopy(student.transformer) if whole else student.transformer, whole)
    for model in (student.transformer, trunk):
        let_learn(model, config)
        if config.lora_rank and config.mixed_precision == "bf16":  # 24 GB hold two models and large encoders so alone
            halve_base(model)
    critic = gan.Critic(trunk, gan.head_layers(trunk.config.num_layers)).to(device)
    score = Reference(teacher.transformer, whole)
    return Cast(student, teacher, critic, score, start, empty_text(teacher, row), BlankMotion(student))


def split(cast: Cast, accelerator: Accelerator, half: bool) -> torch.nn.Module:
    """Shard all models of ``cast``; returns the student's twin."""
    for model in (cast.critic, cast.teacher.transformer, *([] if cast.start is None else [cast.start.own])):
        shard(model, accelerator, half)
    return shard(cast.student.transformer, accelerator, half)
