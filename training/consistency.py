"""Stage 2's start without stored pairs: causal consistency distillation (Causal-Forcing++; Consistency Models).

    python -m training.consistency training/configs/consistency_1_3b.yaml --init_from runs/causal/pipeline \
        --data runs/latents --output_dir runs/consistency

The causal model of stage 1, which looks back at true latents, is the teacher, and where student and average begin. One
Euler step of the teacher, made as it is needed, leads from a noisy clip to a less noisy one on the same trajectory;
the student must jump from the first to where its average jumps from the second. It takes the place of the ODE
regression of `training.distill` (``ode_steps``), whose pairs cost a whole trajectory each. With ``lora_rank`` one
model is all three: with its adapter, with the average of that, and with none.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from ardrag.conditioning import Conditions, transformer_input
from ardrag.flow import FewStepScheduler
from ardrag.guidance import Guidance, extrapolate, without
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from training.controls.maker import ControlMaker
from training.losses.consistency import Velocity, consistency_loss, draw_levels, solver_schedule
from training.memory import require_room
from training.rollouts.conditions import BlankMotion, clip_conditions, halve_encoders
from training.rollouts.tokens import empty_text, require_tokens, without_encoders
from training.run.checkpoint import RunState
from training.run.config import parse_config
from training.run.data import LatentBatch, LatentPool, load_latents, require_fit, shape_generator
from training.run.hub import push_run, start_on_hub
from training.run.metrics import Meter
from training.run.optim import build_optimizer, warmup_cosine
from training.run.runtime import (
    AVERAGE,
    Learner,
    Reference,
    RunLog,
    add_average,
    average_weights,
    clip_generators,
    exported_step,
    leave,
    let_learn,
    mark_exported,
    require_finite,
    run_stage,
    save_trained,
    start_log,
)
from training.run.shard import averaged_pipeline, clip_gradients, shard, sum_gradients
from training.run.validation import validation_sheet
from training.settings.consistency import ConsistencyConfig


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cast:
    """Who takes part: the student in its pipeline, its average, the frozen teacher, and what guidance lacks."""

    student: ARDragPipeline
    average: Reference
    teacher: Reference
    null_text: Tensor
    blanks: BlankMotion


def assemble(config: ConsistencyConfig, device: torch.device, row: Mapping[str, Any] | None = None) -> Cast:
    """Load student and teacher, freeze what does not learn; ``row`` is a clip, for the tokens that it stores."""
    scheduler = FewStepScheduler(
        config.sigmas, num_inference_steps=len(config.sigmas) - 1, eta=1.0, first_frame=config.first_frame
    )
    left_out = without_encoders(config.stored_tokens)
    student = ARDragPipeline.from_pretrained(config.init_from, scheduler=scheduler, **left_out).to(device)
    for part in (student.vae, student.text_encoder, student.image_encoder, student.transformer):
        if part is not None:
            part.requires_grad_(False).eval()
    whole = not config.lora_rank
    average, teacher = (copy.deepcopy(student.transformer) if whole else student.transformer for _ in range(2))
    if config.teacher:
        teacher = CausalWanTransformer.from_pretrained(config.teacher, subfolder="transformer").to(device)
        teacher.requires_grad_(False).eval()
    let_learn(student.transformer, config)
    if not whole:
        add_average(student.transformer)
    others = Reference(average, whole, AVERAGE), Reference(teacher, whole or bool(config.teacher))
    return Cast(student, *others, empty_text(student, row), BlankMotion(student))


def split(cast: Cast, accelerator: Accelerator, half: bool) -> nn.Module:
    """Shard all models of ``cast``; returns the student's twin."""
    for other in (cast.average, cast.teacher):
        shard(other.own, accelerator, half)
    return shard(cast.student.transformer, accelerator, half)


@dataclass(frozen=True)
class StepDraws:
    """All random numbers of one batch."""

    noise: Tensor
    image_noise: Tensor
    upper: Tensor
    lower: Tensor

    def to(self, device: torch.device) -> StepDraws:
        """The same draws on ``device``: drawn on the CPU, they do not depend on it."""
        return StepDraws(*(tensor.to(device) for tensor in vars(self).values()))


def draw_step(batch: LatentBatch, config: ConsistencyConfig, generators: Sequence[torch.Generator]) -> StepDraws:
    """The draws of a batch: each clip's are its own, whatever it is batched with."""
    shape, schedule = (1, *batch.latents.shape[1:]), solver_schedule(config.solver_steps, config.sigma_shift)
    given = int(config.first_frame == "encode")
    clips = [
        (
            torch.randn(shape, generator=generator),
            torch.randn(shape, generator=generator),
            *draw_levels(schedule, shape[2], given, generator),
        )
        for generator in generators
    ]
    return StepDraws(*(torch.cat(parts) for parts in zip(*clips, strict=True)))


def packed(model: Any, layout: dict[str, int], clean: Tensor, conditions: Conditions) -> Velocity:
    """A causal model that looks back at the ``clean`` latents, as a function of noisy ones and their levels."""
    context = transformer_input(clean, conditions, layout)

    def velocity(noisy: Tensor, sigmas: Tensor) -> Tensor:
        (found,) = model(
            transformer_input(noisy, conditions, layout),
            1000 * sigmas,
            conditions.text,
            conditions.image_tokens,
            causal=True,
            clean_context=context,
            return_dict=False,
        )
        return found

    return velocity


def batch_loss(
    model: Any, cast: Cast, batch: LatentBatch, draws: StepDraws, config: ConsistencyConfig
) -> tuple[Tensor, dict[str, float]]:
    """Loss and metrics of one batch; ``model`` is the student, wrapped for several processes."""
    conditions = clip_conditions(cast.student, batch, batch.motion, draws.image_noise, batch.captions).detach()
    layout, clean = cast.student.transformer.config.input_layout, batch.latents
    guidance = Guidance(config.text_guidance, config.motion_guidance)
    nulls = cast.null_text.to(clean), cast.blanks(batch).to(clean)

    def teacher(noisy: Tensor, sigmas: Tensor) -> Tensor:
        with cast.teacher.model() as one:
            voices = [packed(one, layout, clean, each) for each in without(conditions, *nulls, guidance)]
            return extrapolate([voice(noisy, sigmas) for voice in voices], guidance)

    def average(noisy: Tensor, sigmas: Tensor) -> Tensor:
        with cast.average.model() as one:
            return packed(one, layout, clean, conditions)(noisy, sigmas)

    student = packed(model, layout, clean, conditions)
    return consistency_loss(student, average, teacher, clean, draws.noise, draws.upper, draws.lower)


def export(
    cast: Cast, state: RunState, twin: nn.Module | None, config: ConsistencyConfig, log: RunLog, step: int
) -> None:
    """Save the pipeline (or the adapter) with averaged weights, draw sheet and curves; all processes must come."""
    with averaged_pipeline(cast.student, state, twin):
        if state.accelerator.is_main_process:
            save_trained(cast.student, state.folder, lora=bool(config.lora_rank), source=config.init_from)
            if config.validate:
                sheet = state.folder / "sheets" / f"{step + 1:06d}.png"
                log.write(
                    step, **{"validation/path_error_px": validation_sheet(cast.student, sheet, config.num_latents)}
                )
            mark_exported(state.folder, step + 1)
            log.plot()


def main(config: ConsistencyConfig) -> None:
    """Train, validate, save; running the same command again resumes where the last state was saved."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    accelerator = Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        step_scheduler_with_optimizer=False,
        mixed_precision=config.mixed_precision,
        log_with=config.report_to or None,
        project_dir=config.output_dir,
    )
    set_seed(config.seed)
    folder = Path(config.output_dir)
    start_on_hub(config, accelerator, folder)
    pool = LatentPool(load_latents(config.data), config.num_latents)
    if config.stored_tokens:
        require_tokens(pool.rows, config.init_from)
    cast = assemble(config, accelerator.device, pool.rows[0])
    halve_encoders(cast.student, config.mixed_precision)
    require_fit(pool, cast.student)
    pool.show(ControlMaker(cast.student))
    require_room("consistency", config, cast.student, pool.buckets[0], accelerator)
    twin = split(cast, accelerator, config.mixed_precision == "bf16") if config.shard else None
    student = Learner(cast.student.transformer)
    trained = [p for p in student.parameters() if p.requires_grad]
    rates = 0.0, config.learning_rate, config.betas, config.weight_decay
    optimizer: Any = build_optimizer("adamw", student.named_parameters(), *rates)
    schedule: Any = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: warmup_cosine(s, config.warmup, config.steps)
    )
    ema = EMAModel(trained, decay=config.ema_decay, update_after_step=config.ema_start)
    own = cast.average.own  # the average is a model, or an adapter of one: it answers, too
    ema.shadow_params = average_weights(cast.student.transformer) if own is None else list(own.parameters())
    state = RunState(accelerator, config, {"student": student}, {"student": optimizer}, ema, [schedule])
    prepared = student if config.shard else accelerator.prepare(student)
    optimizer, schedule = accelerator.prepare(optimizer, schedule)
    patch = math.prod(cast.student.transformer.config.patch_size)
    first = state.load()
    log = start_log(accelerator, config, first)
    meter, started = Meter(accelerator), time.monotonic()
    for step in tqdm(
        range(first, config.steps), initial=first, total=config.steps, desc="consistency", mininterval=30
    ):
        meter.begin("update")
        for part in range(config.gradient_accumulation_steps):
            generators = clip_generators(accelerator, config, step, part)
            batch = pool.draw(generators, shape_generator(config.seed, step, part))
            draws = draw_step(batch, config, generators).to(accelerator.device)
            with accelerator.accumulate(prepared), accelerator.autocast():
                sum_gradients(student, accelerator.sync_gradients)
                loss, metrics = batch_loss(prepared, cast, batch.to(accelerator.device), draws, config)
                require_finite(loss, step)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    metrics["grad/norm"] = clip_gradients(accelerator, trained, config.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            meter.add(batch.latents, patch)
        schedule.step()
        ema.step(trained)
        meter.end()
        if step % config.log_every == 0 and accelerator.is_main_process:
            log.write(step, **metrics, **meter.read(), **{"time/hours": (time.monotonic() - started) / 3600})
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            state.save(step + 1)
            if step + 1 < config.steps:
                export(cast, state, twin, config, log, step)
                push_run(accelerator, config, "training.consistency", step + 1)
    last = max(first, config.steps)
    if exported_step(folder) != last:
        export(cast, state, twin, config, log, last - 1)
    push_run(accelerator, config, "training.consistency", config.steps)


if __name__ == "__main__":
    run_stage(main, parse_config(ConsistencyConfig))
    leave()
