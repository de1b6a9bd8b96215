"""Stage 1: flow matching with motion control (AR-Drag section 3.2, Eq. 7), then the causal start of the student.

The same loop does both: ``--causal false`` trains the bidirectional teacher, ``--causal true`` continues from it with
block-causal attention, one noise level per latent and clean history, which is what the cache holds at inference.

    python -m training.finetune training/configs/finetune_tiny.yaml --output_dir runs/teacher --data runs/latents17
    python -m training.finetune training/configs/causal_tiny.yaml --output_dir runs/student --data runs/latents17 \
        --init_from runs/teacher/pipeline
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from diffusers import AutoencoderKLWan
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from ardrag.conditioning import Conditions
from ardrag.controls.build import build_control
from ardrag.flow import FewStepScheduler
from ardrag.rollout import GeneratorNoise, seeded_generator
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from training.losses.flow_matching import clamp_first_latent, flow_matching_loss, sample_sigmas
from training.rollouts.conditions import BlankMotion, clip_conditions
from training.rollouts.self_rollout import self_rollout
from training.run import tiny
from training.run.checkpoint import RunState
from training.run.config import parse_config
from training.run.data import LatentBatch, LatentPool, load_latents, require_fit, shape_generator
from training.run.hub import HubConfig, push_run, start_on_hub
from training.run.optim import MuonAdamW, warmup_cosine
from training.run.runtime import (
    RunLog,
    add_lora,
    averaged,
    exported_step,
    mark_exported,
    require_finite,
    save_trained,
    start_log,
    step_generator,
)
from training.run.validation import validation_sheet


logger = logging.getLogger(__name__)


@dataclass
class FinetuneConfig(HubConfig):
    """Configuration of stage 1."""

    output_dir: str = field(metadata={"help": "Run folder: state, log, curves, sheets and the pipeline."})
    data: list[str] = field(default_factory=list, metadata={"help": "Folders or Hub names of precomputed latents."})
    vae: str = field(default="", metadata={"help": "VAE of a new model, or in place of init_from's."})
    init_from: str = field(default="", metadata={"help": "Pipeline to start from instead of random weights."})
    causal: bool = field(default=False, metadata={"help": "Block-causal with clean history instead of bidirectional."})
    num_layers: int = field(default=6, metadata={"help": "Transformer blocks of a new model."})
    num_heads: int = field(default=4, metadata={"help": "Attention heads of a new model."})
    head_dim: int = field(default=48, metadata={"help": "Channels per head of a new model."})
    ffn_dim: int = field(default=768, metadata={"help": "Width of the feed-forward layers of a new model."})
    sink_frames: int | None = field(
        default=None,
        metadata={"help": "First latents seen beyond the window, for ever; default: as init_from, else 0."},
    )
    control: str = field(
        default="", metadata={"help": "What the data shows of the tracks, by name; default: as init_from, else heat."}
    )
    num_latents: int = field(default=5, metadata={"help": "Latent frames per clip; shorter clips train as they are."})
    steps: int = field(default=2000, metadata={"help": "Training steps."})
    batch_size: int = field(default=16, metadata={"help": "Clips per step and process."})
    gradient_accumulation_steps: int = field(default=1, metadata={"help": "Batches per update."})
    sigma_shift: float = field(default=3.0, metadata={"help": "Shift of the sampled noise levels."})
    sigmas: list[float] = field(
        default_factory=list,
        metadata={"help": "Few-step schedule from 1 to 0: train on its levels alone and save it; empty = all levels."},
    )
    own_history: float = field(
        default=0.0, metadata={"help": "Share of clips that look back at the model's own rollout, not at the truth."}
    )
    mixed_precision: str = field(default="no", metadata={"help": "bf16 runs the packed pass in half precision."})
    first_latent_given: float = field(
        default=0.85, metadata={"help": "Share of clips whose latent 0 is the reference."}
    )
    motion_emphasis: float = field(
        default=0.0, metadata={"help": "Extra loss weight where something moves; 0 = Eq. 7."}
    )
    train_encoders: bool | None = field(
        default=None,
        metadata={"help": "Train the text and image encoders too; default: those that began here, as small ones do."},
    )
    text_dropout: float = field(default=0.1, metadata={"help": "Share of clips without a caption."})
    motion_dropout: float = field(default=0.05, metadata={"help": "Share of clips without tracks."})
    muon_lr: float = field(default=0.02, metadata={"help": "Learning rate of matrices."})
    adamw_lr: float = field(default=1e-3, metadata={"help": "Learning rate of everything else."})
    warmup: int = field(default=50, metadata={"help": "Warm-up steps."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clipping."})
    ema_decay: float = field(default=0.998, metadata={"help": "Decay of the averaged weights."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Recompute activations to save memory."})
    lora_rank: int = field(default=0, metadata={"help": "Train a LoRA adapter of this rank instead of all weights."})
    num_inference_steps: int = field(default=12, metadata={"help": "Steps per latent saved in the scheduler config."})
    seed: int = field(default=0, metadata={"help": "Seed of data order and noise."})
    log_every: int = field(default=10, metadata={"help": "Steps between log rows."})
    save_every: int = field(default=200, metadata={"help": "Steps between saved states, pipelines and sheets."})
    validate: bool = field(default=True, metadata={"help": "Draw a validation sheet at every save."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.vae and not self.init_from:
            raise ValueError("vae or init_from: give the VAE of a new model, or a pipeline to start from")
        if self.num_latents < 2:
            raise ValueError(f"num_latents: {self.num_latents} is too short to move; use 2 or more")
        if self.sink_frames is not None and self.sink_frames < 0:
            raise ValueError(f"sink_frames: {self.sink_frames} is negative; 1 keeps the first latent in view, 0 none")
        if self.own_history and not self.causal:
            raise ValueError("own_history: only a causal model has a history; set causal to true, or own_history to 0")


class ConditionedModel(nn.Module):
    """Transformer and the small encoders that are trained with it, so that one object is prepared, averaged, saved."""

    def __init__(self, pipeline: ARDragPipeline) -> None:
        super().__init__()
        self.transformer = pipeline.transformer
        self.text_encoder = pipeline.text_encoder
        self.image_encoder = pipeline.image_encoder

    def train(self, mode: bool = True) -> ConditionedModel:
        """As `torch.nn.Module.train`, but what is frozen stays as it answers at inference."""
        super().train(mode)
        for part in self.children():
            part.train(mode and any(p.requires_grad for p in part.parameters()))
        return self

    def forward(
        self, batch: LatentBatch, pipeline: ARDragPipeline, draws: StepDraws, config: FinetuneConfig
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss and metrics of one batch (Eq. 7)."""
        captions = [
            "" if drop else caption for caption, drop in zip(batch.captions, draws.drop_text.tolist(), strict=True)
        ]
        motion = torch.where(draws.drop_motion[:, None, None, None, None], draws.no_motion, batch.motion)
        conditions = clip_conditions(pipeline, batch, motion, draws.image_noise, captions)
        history = None
        if config.own_history:
            history = own_history(self.transformer, pipeline.scheduler, batch.latents, conditions, draws)
        return flow_matching_loss(
            self.transformer,
            batch.latents,
            draws.noise,
            draws.sigmas,
            conditions,
            config.causal,
            config.motion_emphasis,
            history,
        )


@dataclass
class StepDraws:
    """All random numbers of one step."""

    noise: Tensor
    image_noise: Tensor
    sigmas: Tensor
    drop_text: Tensor
    drop_motion: Tensor
    no_motion: Tensor
    own_history: Tensor
    rollout_seeds: Tensor

    def to(self, device: torch.device) -> StepDraws:
        """The same draws on ``device``: drawn on the CPU, they do not depend on it."""
        return StepDraws(*(tensor.to(device) for tensor in vars(self).values()))


def draw_step(batch: LatentBatch, no_motion: Tensor, config: FinetuneConfig, generator: torch.Generator) -> StepDraws:
    """Draw noise, noise levels and dropouts for ``batch``."""
    count, _, frames = batch.latents.shape[:3]
    levels = config.sigmas[:-1]
    sigmas = sample_sigmas(count, frames, config.sigma_shift, config.causal, generator, levels)
    return StepDraws(
        noise=torch.randn(batch.latents.shape, generator=generator),
        image_noise=torch.randn(batch.latents.shape, generator=generator),
        sigmas=clamp_first_latent(sigmas, config.first_latent_given, generator),
        drop_text=torch.rand(count, generator=generator) < config.text_dropout,
        drop_motion=torch.rand(count, generator=generator) < config.motion_dropout,
        no_motion=no_motion,
        own_history=torch.rand(count, generator=generator) < config.own_history,
        rollout_seeds=torch.randint(2**62, (count,), generator=generator),
    )


def own_history(
    transformer: CausalWanTransformer,
    scheduler: FewStepScheduler,
    clean: Tensor,
    conditions: Conditions,
    draws: StepDraws,
) -> Tensor:
    """``clean`` ``[B, C, F, H, W]`` with the model's own rollouts in the rows that the draws choose.

    A student that only ever looked back at true latents drifts, because its own are a little different. Here it learns
    to go on from its own towards the truth. Rows whose latent 0 is not given keep the truth.
    """
    rows = (draws.own_history & (draws.sigmas[:, 0] == 0)).nonzero().flatten()
    if not len(rows):
        return clean
    generators = [seeded_generator(seed) for seed in draws.rollout_seeds[rows].tolist()]
    noise = GeneratorNoise(generators, clean.device, torch.float32)
    seen, eta = conditions.rows(rows).detach(), scheduler.config.eta
    with torch.autocast(clean.device.type, enabled=False):
        made = self_rollout(transformer, seen, scheduler.sigmas, eta, noise, clean[rows, :, :1])
    return clean.index_copy(0, rows, made.latents)


def build_pipeline(config: FinetuneConfig, captions: Iterable[str], buckets: list[list[int]]) -> ARDragPipeline:
    """The pipeline to train, with the run's ``sink_frames`` and ``control`` where it has its own."""
    pipeline = start_pipeline(config, captions, buckets)
    if config.sink_frames is not None:
        pipeline.transformer.register_to_config(sink_frames=config.sink_frames)
    if config.control:
        pipeline.register_to_config(control=build_control(config.control).config())
    return pipeline


def start_pipeline(config: FinetuneConfig, captions: Iterable[str], buckets: list[list[int]]) -> ARDragPipeline:
    """The pipeline in ``init_from`` (with ``vae``, if given), or a new tiny one around ``vae`` for ``buckets``."""
    scheduler = FewStepScheduler(
        sigmas=config.sigmas or None,
        num_inference_steps=len(config.sigmas) - 1 if config.sigmas else config.num_inference_steps,
        eta=0.0,
        shift=config.sigma_shift,
    )
    if config.init_from:
        swapped = {"vae": AutoencoderKLWan.from_pretrained(config.vae)} if config.vae else {}
        return ARDragPipeline.from_pretrained(config.init_from, scheduler=scheduler, **swapped)
    vae = AutoencoderKLWan.from_pretrained(config.vae)
    tokenizer = tiny.train_tokenizer(captions)
    image_encoder, image_processor = tiny.build_image_encoder(min(buckets[0]))
    return ARDragPipeline(
        transformer=tiny.build_transformer(vae, config.num_layers, config.num_heads, config.head_dim, config.ffn_dim),
        vae=vae,
        text_encoder=tiny.build_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        image_encoder=image_encoder,
        image_processor=image_processor,
        scheduler=scheduler,
        buckets=buckets,
    )


def export(
    pipeline: ARDragPipeline, model: ConditionedModel, ema: EMAModel, config: FinetuneConfig, log: RunLog, step: int
) -> None:
    """Save the pipeline with averaged weights, draw the validation sheet and the curves."""
    folder = Path(config.output_dir)
    trained = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    with averaged(ema, trained):
        save_trained(pipeline, folder, lora=bool(config.lora_rank))
        if config.validate:
            error = validation_sheet(pipeline, folder / "sheets" / f"{step + 1:06d}.png", config.num_latents)
            log.write(step, **{"validation/path_error_px": error})
    model.train()
    mark_exported(folder, step + 1)
    log.plot()


def prepare_model(pipeline: ARDragPipeline, config: FinetuneConfig) -> ConditionedModel:
    """Freeze the VAE, and the encoders unless they are trained, set up LoRA or full training."""
    train_encoders = tiny.began_here(pipeline) if config.train_encoders is None else config.train_encoders
    for part in (pipeline.vae, *(() if train_encoders else (pipeline.text_encoder, pipeline.image_encoder))):
        if part is not None:
            part.requires_grad_(False).eval()
    model = ConditionedModel(pipeline)
    if config.gradient_checkpointing:
        pipeline.transformer.enable_gradient_checkpointing()
    if config.lora_rank:
        model.requires_grad_(False)
        add_lora(pipeline.transformer, config.lora_rank, alpha=config.lora_rank)
    return model


def main(config: FinetuneConfig) -> None:
    """Train, validate, save; running the same command again resumes where the last state was saved."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # The schedule counts updates: not once for each process, nor once for each accumulated batch.
    accelerator = Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        step_scheduler_with_optimizer=False,
        mixed_precision=config.mixed_precision,
        # CLIP's last layer is trained by nothing: its tokens are taken before it.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    set_seed(config.seed)
    folder = Path(config.output_dir)
    start_on_hub(config, accelerator, folder)
    pool = LatentPool(load_latents(config.data), config.num_latents)
    pipeline = build_pipeline(config, pool.captions(), pool.buckets)
    require_fit(pool, pipeline)
    blanks = BlankMotion(pipeline)
    pipeline.to(accelerator.device)
    model = prepare_model(pipeline, config)
    optimizer = MuonAdamW(model.named_parameters(), config.muon_lr, config.adamw_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, config.warmup, config.steps))
    trained = [p for p in model.parameters() if p.requires_grad]
    ema = EMAModel(trained, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    state = RunState(accelerator, config, {"model": model}, {"model": optimizer}, ema, [schedule])
    prepared, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    first = state.load()
    log = start_log(accelerator, config, first)
    started = time.monotonic()
    for step in tqdm(range(first, config.steps), initial=first, total=config.steps, desc="finetune", mininterval=30):
        for part in range(config.gradient_accumulation_steps):
            rank = accelerator.process_index * config.gradient_accumulation_steps + part
            generator = step_generator(config.seed, step, rank)
            batch = pool.draw(config.batch_size, generator, shape_generator(config.seed, step, part))
            draws = draw_step(batch, blanks(batch), config, generator).to(accelerator.device)
            batch = batch.to(accelerator.device)
            with accelerator.accumulate(prepared):
                loss, metrics = prepared(batch, pipeline, draws, config)
                require_finite(loss, step)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    metrics["grad/norm"] = float(accelerator.clip_grad_norm_(trained, config.max_grad_norm))
                optimizer.step()
                optimizer.zero_grad()
        schedule.step()
        ema.step(trained)
        if step % config.log_every == 0 and accelerator.is_main_process:
            log.write(step, **metrics, **{"time/hours": (time.monotonic() - started) / 3600})
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            state.save(step + 1)
            if step + 1 < config.steps and accelerator.is_main_process:
                export(pipeline, accelerator.unwrap_model(prepared), ema, config, log, step)
                push_run(config, folder, "training.finetune", step + 1)
    if accelerator.is_main_process:
        last = max(first, config.steps)
        if exported_step(folder) != last:
            export(pipeline, accelerator.unwrap_model(prepared), ema, config, log, last - 1)
        push_run(config, folder, "training.finetune", config.steps)


if __name__ == "__main__":
    main(parse_config(FinetuneConfig))
