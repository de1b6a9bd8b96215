"""Stage 2: Self-Rollout distillation to a few-step causal student (AR-Drag section 3.2, Algorithms 1-2, B.2).

    python -m training.distill training/configs/distill_tiny.yaml --init_from runs/student/pipeline \
        --teacher runs/teacher/pipeline --data runs/latents --output_dir runs/distill

Every step the student rolls out a batch of clips on the pipeline's own sampler. The critic learns to know them, and
every ``critic_updates``-th step the student moves to where the frozen bidirectional teacher and the critic agree, and
to where the discriminator on the critic's trunk takes its clips for real ones. ``cache_update``, ``chunk_frames``,
``eta`` and ``first_frame`` turn the same loop into Self-Forcing and the ablations of the paper's Table 2. With
``lora_rank`` two models are all: the student with its adapter, and the teacher, which is the critic with its own.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from ardrag.conditioning import Conditions
from ardrag.flow import add_noise, clean_from_velocity, shift_sigmas
from ardrag.guidance import Guidance
from ardrag.rollout import GeneratorNoise, seeded_generator
from training.controls.maker import ControlMaker
from training.losses import dmd, gan
from training.memory import require_room
from training.rollouts.cast import Cast, assemble, split
from training.rollouts.conditions import clip_conditions, halve_encoders
from training.rollouts.self_rollout import SelfRollout, chunk_edges, replay, self_rollout
from training.rollouts.tokens import require_tokens
from training.run.checkpoint import RunState
from training.run.config import parse_config
from training.run.data import LatentBatch, LatentPool, load_latents, require_fit, shape_generator
from training.run.hub import push_run, start_on_hub
from training.run.metrics import Meter, term_gradients
from training.run.optim import build_optimizer, warmup_cosine
from training.run.runtime import (
    Learner,
    Reference,
    RunLog,
    clip_generators,
    exported_step,
    leave,
    mark_exported,
    require_finite,
    run_stage,
    save_trained,
    start_log,
    step_generator,
)
from training.run.shard import averaged_pipeline, clip_gradients, gathered, rollout_precision, sum_gradients
from training.run.validation import comparison_sheet, validation_sheet
from training.settings.distill import DistillConfig


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepDraws:
    """All random numbers of one batch, drawn on the CPU so that they do not depend on the device."""

    image_noise: Tensor
    rollout_seed: Tensor
    score_levels: Tensor
    score_noise: Tensor
    critic_levels: Tensor
    critic_noise: Tensor
    real_noise: Tensor

    def to(self, device: torch.device) -> StepDraws:
        """The same draws on ``device``."""
        return StepDraws(*(tensor.to(device) for tensor in vars(self).values()))


def draw_clip(shape: torch.Size, config: DistillConfig, generator: torch.Generator) -> StepDraws:
    """Draw noise, noise levels and the seed of the rollout for one clip of latents ``[C, F, H, W]``."""
    return StepDraws(
        image_noise=torch.randn((1, *shape), generator=generator),
        rollout_seed=torch.randint(2**62, (1,), generator=generator),
        score_levels=dmd.sample_score_sigmas(1, config.score_shift, generator),
        score_noise=torch.randn((1, *shape), generator=generator),
        critic_levels=dmd.sample_score_sigmas(1, config.score_shift, generator),
        critic_noise=torch.randn((1, *shape), generator=generator),
        real_noise=torch.randn((1, *shape), generator=generator),
    )


def draw_step(batch: LatentBatch, config: DistillConfig, generators: Sequence[torch.Generator]) -> StepDraws:
    """The draws of a batch: each clip's are its own, whatever it is batched with."""
    clips = [draw_clip(batch.latents.shape[1:], config, generator) for generator in generators]
    return StepDraws(*(torch.cat(parts) for parts in zip(*(vars(clip).values() for clip in clips), strict=True)))


def draw_exit_step(config: DistillConfig, step: int) -> int:
    """The exit step of this training step: uniform, the same for all clips and on all ranks."""
    generator = step_generator(config.seed, step, 2**31)
    return int(torch.randint(len(config.sigmas) - 1, (), generator=generator))


@dataclass(frozen=True)
class Scene:
    """One batch on its way through a training step: what steers it, what the student made of it, what is random."""

    batch: LatentBatch
    draws: StepDraws
    conditions: Conditions
    """By the student's encoders."""
    score_conditions: Conditions
    """By the teacher's; the critic takes them too."""
    rollout: SelfRollout


@torch.no_grad()
def roll_out(
    cast: Cast, batch: LatentBatch, draws: StepDraws, config: DistillConfig, exit_step: int, ode: bool
) -> Scene:
    """Encode the conditions, let the student make its clips; ``ode``: let its frozen start solve the ODE instead."""
    conditions, score_conditions = (
        clip_conditions(pipeline, batch, batch.motion, draws.image_noise, batch.captions)
        for pipeline in (cast.student, cast.teacher)
    )
    generators = [seeded_generator(seed) for seed in draws.rollout_seed.tolist()]
    noise = GeneratorNoise(generators, batch.latents.device, torch.float32)
    reference = batch.latents[:, :, :1] if config.first_frame == "encode" else None
    source: Any = cast.start if ode else Reference(cast.student.transformer, frozen=True)
    sigmas, update, eta = config.sigmas, config.cache_update, config.eta
    if ode:
        level = config.sigmas[exit_step]
        sigmas, update, eta = solver_sigmas(config), "rollout", 0.0
        exit_step = sigmas.index(level)
    with source.model() as player, gathered(player), rollout_precision(player):
        truth = batch.latents if update == "truth" else None
        rollout = self_rollout(player, conditions, sigmas, eta, noise, reference, exit_step, update, truth=truth)
    return Scene(batch, draws, conditions, score_conditions, rollout)


def solver_sigmas(config: DistillConfig) -> list[float]:
    """Schedule of the ODE that the regression solves: fine, and passing through all levels of the student."""
    uniform = torch.linspace(1, 0, config.ode_solver_steps + 1, dtype=torch.float64)
    fine = {float(sigma) for sigma in shift_sigmas(uniform, config.score_shift)}
    return sorted(fine | set(config.sigmas), reverse=True)


def regression_loss(model: Any, cast: Cast, scene: Scene) -> tuple[Tensor, dict[str, float]]:
    """Causal ODE regression: from a point of the trajectory straight to its end."""
    clean = replay(model, cast.student.transformer, scene.rollout, scene.conditions)
    loss = dmd.mean_square(clean - scene.rollout.latents, scene.rollout.exit_sigmas > 0)
    return loss, {"ode/regression": loss.item()}


def student_loss(
    model: Any, cast: Cast, scene: Scene, config: DistillConfig, measured: bool = False
) -> tuple[Tensor, dict[str, float]]:
    """DMD, adversarial and (optional) data loss of the student's exit steps; the critic gets no gradient.

    ``measured``: also how each of them pulls at the clips (see `term_gradients`).
    """
    draws, truth = scene.draws, scene.batch.latents
    clean = replay(model, cast.student.transformer, scene.rollout, scene.conditions)
    sigmas = dmd.clip_sigmas(draws.score_levels, clean.shape[2], scene.rollout.first_given)
    level, learned = sigmas[:, None, :, None, None], (sigmas > 0).to(clean)
    noisy = add_noise(clean, draws.score_noise, level)
    velocity, logits = cast.critic(noisy, sigmas, scene.score_conditions)
    guidance = Guidance(config.text_guidance, config.motion_guidance)
    nulls = cast.null_text, cast.blanks(scene.batch).to(noisy)
    with cast.score.model() as teacher:
        real = dmd.teacher_clean(teacher, noisy.detach(), sigmas, scene.score_conditions, *nulls, guidance)
    fake = clean_from_velocity(noisy.detach(), velocity.detach(), level)
    matching, metrics = dmd.dmd_loss(clean, dmd.dmd_gradient(clean.detach(), real, fake, learned), learned)
    adversarial, more = gan.generator_loss(logits)
    distance = dmd.mean_square(clean - truth, learned)
    weights = {"dmd": config.dmd_weight, "gan": config.gan_weight, "data": config.data_weight}
    terms = dict(zip(weights, (matching, adversarial, distance), strict=True))
    weighted = {name: weight * terms[name] for name, weight in weights.items() if weight}
    pulls = term_gradients(weighted, clean) if measured else {}
    loss = sum(weighted.values(), torch.zeros_like(matching))
    return loss, {**metrics, **more, **pulls, "data/distance": distance.item()}


def critic_loss(model: Any, scene: Scene, config: DistillConfig) -> tuple[Tensor, dict[str, float]]:
    """Flow matching on the student's clips, and telling them from filmed ones at the same noise level."""
    draws, fake = scene.draws, scene.rollout.exit_clean
    sigmas = dmd.clip_sigmas(draws.critic_levels, fake.shape[2], scene.rollout.first_given)
    level, learned = sigmas[:, None, :, None, None], (sigmas > 0).to(fake)
    noisy = add_noise(fake, draws.critic_noise, level), add_noise(scene.batch.latents, draws.real_noise, level)
    velocity, logits = model(torch.cat(noisy), torch.cat([sigmas, sigmas]), scene.score_conditions.repeated(2))
    matching, metrics = dmd.critic_loss(velocity[: len(fake)], fake, draws.critic_noise, learned)
    telling, more = gan.discriminator_loss(logits[len(fake) :], logits[: len(fake)])
    return matching + config.discriminator_weight * telling, {**metrics, **more}


def draw_sheets(cast: Cast, state: RunState, config: DistillConfig, name: str) -> float:
    """The student's clips, and where the teacher is whole those of both; returns the student's path error in px."""
    student, folder = cast.student, state.folder
    with state.accelerator.autocast(), rollout_precision(student.transformer), cast.score.model():
        if not config.shard:
            comparison_sheet(student, cast.teacher, folder / "teacher" / name, config.num_latents)
        return validation_sheet(student, folder / "sheets" / name, config.num_latents)


def export(
    cast: Cast, state: RunState, twin: torch.nn.Module | None, config: DistillConfig, log: RunLog, step: int
) -> None:
    """Save the pipeline (or the adapter) with averaged weights, draw sheets and curves; all processes must come."""
    with averaged_pipeline(cast.student, state, twin):
        if state.accelerator.is_main_process:
            save_trained(cast.student, state.folder, lora=bool(config.lora_rank), source=config.init_from)
            if config.validate:
                log.write(
                    step, **{"validation/path_error_px": draw_sheets(cast, state, config, f"{step + 1:06d}.png")}
                )
            mark_exported(state.folder, step + 1)
            log.plot()


def update(
    accelerator: Accelerator,
    loss: Tensor,
    trained: Sequence[torch.nn.Parameter],
    optimizer: Any,
    config: DistillConfig,
    step: int,
    name: str,
) -> dict[str, float]:
    """Backward, clip, step; returns the gradient norm once the batches of an update are complete."""
    require_finite(loss, step)
    accelerator.backward(loss)
    metrics = {}
    if accelerator.sync_gradients:
        metrics[f"{name}/gradient_norm"] = clip_gradients(accelerator, trained, config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return metrics


def main(config: DistillConfig) -> None:
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
    for length in {latents for latents, _, _ in pool.shapes}:
        chunk_edges(length, config.chunk_frames, config.first_frame == "encode")
    for name in (config.init_from, config.teacher) if config.stored_tokens else ():
        require_tokens(pool.rows, name)
    cast = assemble(config, accelerator.device, pool.rows[0])
    for pipeline in (cast.student, cast.teacher):
        halve_encoders(pipeline, config.mixed_precision)
    require_fit(pool, cast.student)
    pool.show(ControlMaker(cast.student))
    require_room("distill", config, cast.student, pool.buckets[0], accelerator)
    twin = split(cast, accelerator, config.mixed_precision == "bf16") if config.shard else None
    student, critic = Learner(cast.student.transformer), cast.critic
    student_optimizer, critic_optimizer = (
        build_optimizer(config.optimizer, model.named_parameters(), *rates, config.betas, config.weight_decay)
        for model, rates in (
            (student, (config.muon_lr, config.adamw_lr)),
            (critic, (config.critic_muon_lr, config.critic_adamw_lr)),
        )
    )
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, config.warmup, config.steps))
        for optimizer in (student_optimizer, critic_optimizer)
    ]
    trained, critical = ([p for p in model.parameters() if p.requires_grad] for model in (student, critic))
    ema = EMAModel(trained, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    models, optimizers = (
        dict(zip(("student", "critic"), pair, strict=True))
        for pair in ((student, critic), (student_optimizer, critic_optimizer))
    )
    state = RunState(accelerator, config, models, optimizers, ema, schedules)
    if not config.shard:
        student, critic = accelerator.prepare(student, critic)
    student_optimizer, critic_optimizer, *schedules = accelerator.prepare(
        student_optimizer, critic_optimizer, *schedules
    )
    patch = math.prod(cast.student.transformer.config.patch_size)
    first = state.load()
    log = start_log(accelerator, config, first)
    meter, started = Meter(accelerator), time.monotonic()
    for step in tqdm(range(first, config.steps), initial=first, total=config.steps, desc="distill", mininterval=30):
        exit_step, ode = draw_exit_step(config, step), step < config.ode_steps
        learns = ode or step % config.critic_updates == 0
        metrics: dict[str, float] = {"rollout/exit_step": exit_step}
        logged = learns and step // config.critic_updates % config.log_every == 0
        meter.begin("regression" if ode else "both" if learns else "critic")
        for part in range(config.gradient_accumulation_steps):
            generators = clip_generators(accelerator, config, step, part)
            batch = pool.draw(generators, shape_generator(config.seed, step, part))
            draws = draw_step(batch, config, generators).to(accelerator.device)
            with accelerator.accumulate(student, critic), accelerator.autocast():
                scene = roll_out(cast, batch.to(accelerator.device), draws, config, exit_step, ode)
                for model in (student, critic):
                    sum_gradients(model, accelerator.sync_gradients)
                if learns:
                    for parameter in critical:
                        parameter.requires_grad_(False)
                    loss, found = (
                        regression_loss(student, cast, scene)
                        if ode
                        else student_loss(student, cast, scene, config, logged)
                    )
                    metrics |= found | update(accelerator, loss, trained, student_optimizer, config, step, "student")
                    for parameter in critical:
                        parameter.requires_grad_(True)
                if not ode:
                    loss, found = critic_loss(critic, scene, config)
                    metrics |= found | update(accelerator, loss, critical, critic_optimizer, config, step, "critic")
            meter.add(batch.latents, patch)
        for schedule in schedules:
            schedule.step()
        if learns:
            ema.step(trained)
        meter.end()
        if logged and accelerator.is_main_process:
            log.write(step, **metrics, **meter.read(), **{"time/hours": (time.monotonic() - started) / 3600})
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            state.save(step + 1)
            if step + 1 < config.steps:
                export(cast, state, twin, config, log, step)
                push_run(accelerator, config, "training.distill", step + 1)
    last = max(first, config.steps)
    if exported_step(folder) != last:
        export(cast, state, twin, config, log, last - 1)
    push_run(accelerator, config, "training.distill", config.steps)


if __name__ == "__main__":
    run_stage(main, parse_config(DistillConfig))
    leave()
