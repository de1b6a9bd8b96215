"""Stage 2: Self-Rollout distillation to a few-step causal student (AR-Drag section 3.2, Algorithms 1-2, B.2).

    python -m training.distill training/configs/distill_tiny.yaml --init_from runs/student/pipeline \
        --teacher runs/teacher/pipeline --data runs/latents --output_dir runs/distill

Every step the student rolls out a batch of clips on the pipeline's own sampler. The critic learns to know them, and
every ``critic_updates``-th step the student moves to where the frozen bidirectional teacher and the critic agree, and
to where the discriminator on the critic's trunk takes its clips for real ones. ``cache_update``, ``chunk_frames``,
``eta`` and ``first_frame`` turn the same loop into Self-Forcing and the ablations of the paper's Table 2.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from ardrag.conditioning import Conditions, encode_text
from ardrag.flow import FEW_STEP_SIGMAS, FewStepScheduler, add_noise, clean_from_velocity, shift_sigmas
from ardrag.guidance import Guidance
from ardrag.rollout import GeneratorNoise, seeded_generator
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from training.losses import dmd, gan
from training.rollouts.conditions import BlankMotion, clip_conditions
from training.rollouts.self_rollout import SelfRollout, chunk_edges, replay, self_rollout
from training.run.checkpoint import RunState
from training.run.config import parse_config
from training.run.data import LatentBatch, LatentPool, load_latents, require_fit, shape_generator
from training.run.hub import HubConfig, push_run, start_on_hub
from training.run.optim import MuonAdamW, warmup_cosine
from training.run.runtime import (
    Learner,
    RunLog,
    averaged,
    exported_step,
    mark_exported,
    require_finite,
    save_trained,
    start_log,
    step_generator,
)
from training.run.validation import comparison_sheet, validation_sheet


logger = logging.getLogger(__name__)


@dataclass
class DistillConfig(HubConfig):
    """Configuration of stage 2."""

    output_dir: str = field(metadata={"help": "Run folder: state, log, curves, sheets and the pipeline."})
    init_from: str = field(metadata={"help": "Pipeline of the causal student to start from."})
    teacher: str = field(metadata={"help": "Pipeline of the bidirectional teacher; the critic starts from it too."})
    data: list[str] = field(default_factory=list, metadata={"help": "Folders or Hub names of precomputed latents."})
    cache_update: str = field(
        default="rollout", metadata={"help": "What becomes history: rollout (Algorithm 1) or collapse (Algorithm 2)."}
    )
    chunk_frames: int = field(default=1, metadata={"help": "Latents per autoregressive step: 1 ours, 3 Self-Forcing."})
    eta: float = field(default=1.0, metadata={"help": "Sampler: 1 re-noises (the paper's Psi), 0 is the ODE."})
    first_frame: str = field(default="encode", metadata={"help": "Latent 0: generate (the paper) or encode."})
    sigmas: list[float] = field(
        default_factory=lambda: list(FEW_STEP_SIGMAS), metadata={"help": "The student's schedule, from 1 to 0."}
    )
    ode_steps: int = field(default=0, metadata={"help": "First steps spent on causal ODE regression; 0 = none."})
    ode_solver_steps: int = field(default=12, metadata={"help": "Steps of the ODE that is regressed to."})
    num_latents: int = field(default=9, metadata={"help": "Latent frames per clip; shorter clips train as they are."})
    steps: int = field(default=600, metadata={"help": "Critic updates."})
    critic_updates: int = field(default=3, metadata={"help": "Critic updates per update of the student."})
    batch_size: int = field(default=4, metadata={"help": "Clips per step and process."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches per update."})
    dmd_weight: float = field(default=1.0, metadata={"help": "Weight of distribution matching (B.2: 1)."})
    gan_weight: float = field(default=0.1, metadata={"help": "Weight of the adversarial loss (B.2: 0.1)."})
    discriminator_weight: float = field(default=0.05, metadata={"help": "Weight of the discriminator (B.2: 0.05)."})
    data_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the squared distance to the clip that was filmed; the paper has none."},
    )
    text_guidance: float = field(default=0.0, metadata={"help": "Teacher's guidance over text; 3 = a scale of 4."})
    motion_guidance: float = field(default=0.0, metadata={"help": "Teacher's guidance over motion."})
    score_shift: float = field(default=5.0, metadata={"help": "Shift of the noise levels at which scores meet."})
    muon_lr: float = field(default=0.002, metadata={"help": "The student's learning rate of matrices."})
    adamw_lr: float = field(default=1e-4, metadata={"help": "The student's learning rate of everything else."})
    critic_muon_lr: float = field(default=0.004, metadata={"help": "The critic's learning rate of matrices."})
    critic_adamw_lr: float = field(default=2e-4, metadata={"help": "The critic's learning rate of everything else."})
    warmup: int = field(default=20, metadata={"help": "Warm-up steps."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping."})
    ema_decay: float = field(default=0.99, metadata={"help": "Decay of the student's averaged weights."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute activations to save memory."})
    mixed_precision: str = field(default="no", metadata={"help": "bf16 runs everything but the rollout in half."})
    seed: int = field(default=0, metadata={"help": "Seed of data order and noise."})
    log_every: int = field(default=10, metadata={"help": "Updates of the student between log rows."})
    save_every: int = field(default=100, metadata={"help": "Steps between saved states, pipelines and sheets."})
    validate: bool = field(default=True, metadata={"help": "Draw sheets at every save."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cache_update not in ("rollout", "collapse"):
            raise ValueError(f"cache_update: {self.cache_update!r} is unknown; use rollout or collapse")
        if self.critic_updates < 1:
            raise ValueError(f"critic_updates: {self.critic_updates} is not positive; use 1 to 5")
        FewStepScheduler(self.sigmas, eta=self.eta, first_frame=self.first_frame)  # checks the three
        chunk_edges(self.num_latents, self.chunk_frames, self.first_frame == "encode")


@dataclass(frozen=True)
class StepDraws:
    """All random numbers of one batch, drawn on the CPU so that they do not depend on the device."""

    image_noise: Tensor
    rollout_seeds: Tensor
    score_levels: Tensor
    score_noise: Tensor
    critic_levels: Tensor
    critic_noise: Tensor
    real_noise: Tensor

    def to(self, device: torch.device) -> StepDraws:
        """The same draws on ``device``."""
        return StepDraws(*(tensor.to(device) for tensor in vars(self).values()))


def draw_step(batch: LatentBatch, config: DistillConfig, generator: torch.Generator) -> StepDraws:
    """Draw noise, noise levels and the seeds of the rollouts for ``batch``."""
    shape, count = batch.latents.shape, len(batch.latents)
    return StepDraws(
        image_noise=torch.randn(shape, generator=generator),
        rollout_seeds=torch.randint(2**62, (count,), generator=generator),
        score_levels=dmd.sample_score_sigmas(count, config.score_shift, generator),
        score_noise=torch.randn(shape, generator=generator),
        critic_levels=dmd.sample_score_sigmas(count, config.score_shift, generator),
        critic_noise=torch.randn(shape, generator=generator),
        real_noise=torch.randn(shape, generator=generator),
    )


def draw_exit_step(config: DistillConfig, step: int) -> int:
    """The exit step of this training step: uniform, the same for all clips and on all ranks."""
    generator = step_generator(config.seed, step, 2**31)
    return int(torch.randint(len(config.sigmas) - 1, (), generator=generator))


@dataclass(frozen=True)
class Cast:
    """Who takes part: the student that learns, the frozen teacher, the critic, and the frozen start of the student."""

    student: ARDragPipeline
    teacher: ARDragPipeline
    critic: gan.Critic
    start: CausalWanTransformer
    null_text: Tensor
    blanks: BlankMotion


def assemble(config: DistillConfig, device: torch.device) -> Cast:
    """Load student and teacher, freeze what does not learn, build the critic from the teacher."""
    scheduler = FewStepScheduler(
        config.sigmas,
        num_inference_steps=len(config.sigmas) - 1,
        eta=config.eta,
        first_frame=config.first_frame,
    )
    student = ARDragPipeline.from_pretrained(config.init_from, scheduler=scheduler)
    student.transformer.register_to_config(chunk_frames=config.chunk_frames)
    teacher = ARDragPipeline.from_pretrained(config.teacher)
    if config.gradient_checkpointing:
        student.transformer.enable_gradient_checkpointing()
    for pipeline in (student, teacher):
        for part in (pipeline.vae, pipeline.text_encoder, pipeline.image_encoder, pipeline.transformer):
            part.requires_grad_(False).eval()
        pipeline.to(device)
    critic = gan.Critic(copy.deepcopy(teacher.transformer), gan.head_layers(teacher.transformer.config.num_layers))
    start = copy.deepcopy(student.transformer)
    student.transformer.requires_grad_(True)
    null_text = encode_text(teacher.tokenizer, teacher.text_encoder, [""])
    blanks = BlankMotion(student)
    return Cast(student, teacher, critic.to(device).requires_grad_(True), start, null_text, blanks)


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
    generators = [seeded_generator(seed) for seed in draws.rollout_seeds.tolist()]
    noise = GeneratorNoise(generators, batch.latents.device, torch.float32)
    reference = batch.latents[:, :, :1] if config.first_frame == "encode" else None
    player: Any = cast.start if ode else cast.student.transformer
    sigmas, update, eta = config.sigmas, config.cache_update, config.eta
    if ode:
        level = config.sigmas[exit_step]
        sigmas, update, eta = solver_sigmas(config), "rollout", 0.0
        exit_step = sigmas.index(level)
    rollout = self_rollout(player, conditions, sigmas, eta, noise, reference, exit_step, update)
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


def student_loss(model: Any, cast: Cast, scene: Scene, config: DistillConfig) -> tuple[Tensor, dict[str, float]]:
    """DMD, adversarial and (optional) data loss of the student's exit steps; the critic gets no gradient."""
    draws, truth = scene.draws, scene.batch.latents
    clean = replay(model, cast.student.transformer, scene.rollout, scene.conditions)
    sigmas = dmd.clip_sigmas(draws.score_levels, clean.shape[2], scene.rollout.first_given)
    level, learned = sigmas[:, None, :, None, None], (sigmas > 0).to(clean)
    noisy = add_noise(clean, draws.score_noise, level)
    velocity, logits = cast.critic(noisy, sigmas, scene.score_conditions)
    guidance = Guidance(config.text_guidance, config.motion_guidance)
    real = dmd.teacher_clean(
        cast.teacher.transformer,
        noisy.detach(),
        sigmas,
        scene.score_conditions,
        cast.null_text,
        cast.blanks(scene.batch).to(noisy),
        guidance,
    )
    fake = clean_from_velocity(noisy.detach(), velocity.detach(), level)
    matching, metrics = dmd.dmd_loss(clean, dmd.dmd_gradient(clean.detach(), real, fake, learned), learned)
    adversarial, more = gan.generator_loss(logits)
    distance = dmd.mean_square(clean - truth, learned)
    loss = config.dmd_weight * matching + config.gan_weight * adversarial + config.data_weight * distance
    return loss, {**metrics, **more, "data/distance": distance.item()}


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


def export(cast: Cast, ema: EMAModel, config: DistillConfig, log: RunLog, step: int) -> None:
    """Save the pipeline with averaged weights, draw sheets and curves."""
    folder = Path(config.output_dir)
    with averaged(ema, list(cast.student.transformer.parameters())):
        save_trained(cast.student, folder, lora=False)
        if config.validate:
            name = f"{step + 1:06d}.png"
            error = validation_sheet(cast.student, folder / "sheets" / name, config.num_latents)
            comparison_sheet(cast.student, cast.teacher, folder / "teacher" / name, config.num_latents)
            log.write(step, **{"validation/path_error_px": error})
    mark_exported(folder, step + 1)
    log.plot()


def update(
    accelerator: Accelerator,
    loss: Tensor,
    model: torch.nn.Module,
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
        metrics[f"{name}/gradient_norm"] = float(accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm))
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
    )
    set_seed(config.seed)
    folder = Path(config.output_dir)
    start_on_hub(config, accelerator, folder)
    pool = LatentPool(load_latents(config.data), config.num_latents)
    for length in {latents for latents, _, _ in pool.shapes}:
        chunk_edges(length, config.chunk_frames, config.first_frame == "encode")
    cast = assemble(config, accelerator.device)
    require_fit(pool, cast.student)
    student, critic = Learner(cast.student.transformer), cast.critic
    student_optimizer = MuonAdamW(student.named_parameters(), config.muon_lr, config.adamw_lr)
    critic_optimizer = MuonAdamW(critic.named_parameters(), config.critic_muon_lr, config.critic_adamw_lr)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, config.warmup, config.steps))
        for optimizer in (student_optimizer, critic_optimizer)
    ]
    ema = EMAModel(list(student.parameters()), decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    models, optimizers = (
        dict(zip(("student", "critic"), pair, strict=True))
        for pair in ((student, critic), (student_optimizer, critic_optimizer))
    )
    state = RunState(accelerator, config, models, optimizers, ema, schedules)
    student, critic, student_optimizer, critic_optimizer, *schedules = accelerator.prepare(
        student, critic, student_optimizer, critic_optimizer, *schedules
    )
    first = state.load()
    log = start_log(accelerator, config, first)
    started = time.monotonic()
    for step in tqdm(range(first, config.steps), initial=first, total=config.steps, desc="distill", mininterval=30):
        exit_step, ode = draw_exit_step(config, step), step < config.ode_steps
        learns = ode or step % config.critic_updates == 0
        metrics: dict[str, float] = {"rollout/exit_step": exit_step}
        for part in range(config.gradient_accumulation_steps):
            rank = accelerator.process_index * config.gradient_accumulation_steps + part
            generator = step_generator(config.seed, step, rank)
            batch = pool.draw(config.batch_size, generator, shape_generator(config.seed, step, part))
            draws = draw_step(batch, config, generator).to(accelerator.device)
            scene = roll_out(cast, batch.to(accelerator.device), draws, config, exit_step, ode)
            with accelerator.accumulate(student, critic), accelerator.autocast():
                if learns:
                    cast.critic.requires_grad_(False)
                    loss, found = (
                        regression_loss(student, cast, scene) if ode else student_loss(student, cast, scene, config)
                    )
                    cast.critic.requires_grad_(True)
                    metrics |= found | update(accelerator, loss, student, student_optimizer, config, step, "student")
                if not ode:
                    loss, found = critic_loss(critic, scene, config)
                    metrics |= found | update(accelerator, loss, critic, critic_optimizer, config, step, "critic")
        for schedule in schedules:
            schedule.step()
        if learns:
            ema.step(list(cast.student.transformer.parameters()))
        if learns and step // config.critic_updates % config.log_every == 0 and accelerator.is_main_process:
            log.write(step, **metrics, **{"time/hours": (time.monotonic() - started) / 3600})
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            state.save(step + 1)
            if step + 1 < config.steps and accelerator.is_main_process:
                export(cast, ema, config, log, step)
                push_run(config, folder, "training.distill", step + 1)
    if accelerator.is_main_process:
        last = max(first, config.steps)
        if exported_step(folder) != last:
            export(cast, ema, config, log, last - 1)
        push_run(config, folder, "training.distill", config.steps)


if __name__ == "__main__":
    main(parse_config(DistillConfig))
