"""Stage 1: flow matching with motion control (AR-Drag section 3.2, Eq. 7), then the causal start of the student.

The same loop does both: ``--causal false`` trains the bidirectional teacher, ``--causal true`` continues from it with
block-causal attention, one noise level per latent and clean history, which is what the cache holds at inference.

    python -m training.finetune training/configs/finetune_tiny.yaml --output_dir runs/teacher --data runs/latents17
    python -m training.finetune training/configs/causal_tiny.yaml --output_dir runs/student --data runs/latents17 \
        --init_from runs/teacher/pipeline
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from diffusers import AutoencoderKLWan
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from ardrag.conditioning import Conditions
from ardrag.flow import FewStepScheduler
from ardrag.rollout import GeneratorNoise, seeded_generator
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from training.controls.maker import ControlMaker, give_control
from training.losses.flow_matching import clamp_first_latent, flow_matching_loss, sample_sigmas
from training.memory import require_room
from training.rollouts.conditions import BlankMotion, clip_conditions, halve_encoders
from training.rollouts.self_rollout import self_rollout
from training.rollouts.tokens import require_tokens, without_encoders
from training.run import tiny
from training.run.checkpoint import RunState
from training.run.config import parse_config
from training.run.data import LatentBatch, LatentPool, load_latents, require_fit, shape_generator
from training.run.hub import push_run, start_on_hub
from training.run.metrics import Meter
from training.run.optim import build_optimizer, warmup_cosine
from training.run.runtime import (
    RunLog,
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
from training.run.shard import (
    averaged_pipeline,
    clip_gradients,
    gathered,
    rollout_precision,
    shard,
    sharded_parts,
    sum_gradients,
)
from training.run.validation import validation_sheet
from training.settings.finetune import FinetuneConfig


logger = logging.getLogger(__name__)


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
    rollout_seed: Tensor

    def to(self, device: torch.device) -> StepDraws:
        """The same draws on ``device``: drawn on the CPU, they do not depend on it."""
        return StepDraws(*(tensor.to(device) for tensor in vars(self).values()))


def draw_clip(shape: torch.Size, no_motion: Tensor, config: FinetuneConfig, generator: torch.Generator) -> StepDraws:
    """Draw noise, noise levels and dropouts for one clip of latents ``[C, F, H, W]``."""
    levels = config.sigmas[:-1]
    sigmas = sample_sigmas(1, shape[1], config.sigma_shift, config.causal, generator, levels)
    return StepDraws(
        noise=torch.randn((1, *shape), generator=generator),
        image_noise=torch.randn((1, *shape), generator=generator),
        sigmas=clamp_first_latent(sigmas, config.first_latent_given, generator),
        drop_text=torch.rand(1, generator=generator) < config.text_dropout,
        drop_motion=torch.rand(1, generator=generator) < config.motion_dropout,
        no_motion=no_motion,
        own_history=torch.rand(1, generator=generator) < config.own_history,
        rollout_seed=torch.randint(2**62, (1,), generator=generator),
    )


def draw_step(
    batch: LatentBatch, no_motion: Tensor, config: FinetuneConfig, generators: Sequence[torch.Generator]
) -> StepDraws:
    """The draws of a batch: each clip's are its own, whatever it is batched with."""
    clips = [draw_clip(batch.latents.shape[1:], no_motion, config, generator) for generator in generators]
    return StepDraws(*(torch.cat(parts) for parts in zip(*(vars(clip).values() for clip in clips), strict=True)))


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
    chosen = (draws.own_history & (draws.sigmas[:, 0] == 0)).nonzero().flatten()
    # Processes that share the model must all roll out: where none is chosen, one does so for nothing.
    rows = chosen if len(chosen) or not sharded_parts(transformer) else torch.arange(1, device=clean.device)
    if not len(rows):
        return clean
    generators = [seeded_generator(seed) for seed in draws.rollout_seed[rows].tolist()]
    noise = GeneratorNoise(generators, clean.device, torch.float32)
    seen, eta = conditions.rows(rows).detach(), scheduler.config.eta
    with gathered(transformer), rollout_precision(transformer):
        made = self_rollout(transformer, seen, scheduler.sigmas, eta, noise, clean[rows, :, :1])
    return clean.index_copy(0, chosen, made.latents[: len(chosen)])


def build_pipeline(config: FinetuneConfig, captions: Iterable[str], buckets: list[list[int]]) -> ARDragPipeline:
    """The pipeline to train, with what the run says of ``sink_frames``, ``image_fill``, gates and ``control``.

    Sizes of the data that it does not have yet join its ``buckets``: it will know how to make them.
    """
    pipeline = start_pipeline(config, captions, buckets)
    known = [list(size) for size in pipeline.config.buckets]
    pipeline.register_to_config(buckets=known + [size for size in buckets if size not in known])
    if config.gated_slots and pipeline.transformer.slot_gates is None:
        pipeline.transformer.add_slot_gates()
    if config.image_fill:
        pipeline.transformer.register_to_config(image_fill=config.image_fill)
    if config.sink_frames is not None:
        pipeline.transformer.register_to_config(sink_frames=config.sink_frames)
    if config.control:
        give_control(pipeline, config.control, config.outline)
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
        left_out = without_encoders(config.stored_tokens)
        return ARDragPipeline.from_pretrained(config.init_from, scheduler=scheduler, **swapped, **left_out)
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
    pipeline: ARDragPipeline, state: RunState, twin: nn.Module | None, config: FinetuneConfig, log: RunLog, step: int
) -> None:
    """Save the pipeline with averaged weights, draw the validation sheet and the curves; all processes must come."""
    (model,) = state.models.values()
    model.eval()
    with averaged_pipeline(pipeline, state, twin):
        if state.accelerator.is_main_process:
            save_trained(pipeline, state.folder, lora=bool(config.lora_rank), source=config.init_from)
            if config.validate:
                error = validation_sheet(pipeline, state.folder / "sheets" / f"{step + 1:06d}.png", config.num_latents)
                log.write(step, **{"validation/path_error_px": error})
            mark_exported(state.folder, step + 1)
            log.plot()
    model.train()


def prepare_model(pipeline: ARDragPipeline, config: FinetuneConfig) -> ConditionedModel:
    """Freeze the VAE, and the encoders unless they are trained, set up LoRA or full training."""
    own = not config.stored_tokens and tiny.began_here(pipeline) and not config.shard
    train_encoders = own if config.train_encoders is None else config.train_encoders
    for part in (pipeline.vae, *(() if train_encoders else (pipeline.text_encoder, pipeline.image_encoder))):
        if part is not None:
            part.requires_grad_(False).eval()
    model = ConditionedModel(pipeline)
    if config.lora_rank:
        model.requires_grad_(False)
    let_learn(pipeline.transformer, config)
    return model


def main(config: FinetuneConfig) -> None:
    """Train, validate, save; running the same command again resumes where the last state was saved."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # The schedule counts updates: not once for each process, nor once for each accumulated batch.
    accelerator = Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        step_scheduler_with_optimizer=False,
        mixed_precision=config.mixed_precision,
        log_with=config.report_to or None,
        project_dir=config.output_dir,
        # CLIP's last layer is trained by nothing: its tokens are taken before it.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    set_seed(config.seed)
    folder = Path(config.output_dir)
    start_on_hub(config, accelerator, folder)
    pool = LatentPool(load_latents(config.data), config.num_latents)
    if config.stored_tokens:
        require_tokens(pool.rows, config.init_from)
    pipeline = build_pipeline(config, pool.captions(), pool.buckets)
    require_fit(pool, pipeline)
    pool.show(ControlMaker(pipeline, config))
    blanks = BlankMotion(pipeline)
    pipeline.to(accelerator.device)
    require_room("finetune", config, pipeline, pool.buckets[0], accelerator)
    model = prepare_model(pipeline, config)
    halve_encoders(pipeline, "no" if config.train_encoders else config.mixed_precision)
    twin = shard(pipeline.transformer, accelerator, config.mixed_precision == "bf16") if config.shard else None
    rates = config.muon_lr, config.adamw_lr, config.betas, config.weight_decay
    optimizer = build_optimizer(config.optimizer, model.named_parameters(), *rates)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, config.warmup, config.steps))
    trained = [p for p in model.parameters() if p.requires_grad]
    ema = EMAModel(trained, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    state = RunState(accelerator, config, {"model": model}, {"model": optimizer}, ema, [schedule])
    prepared = model if config.shard else accelerator.prepare(model)
    optimizer, schedule = accelerator.prepare(optimizer, schedule)
    patch = math.prod(pipeline.transformer.config.patch_size)
    first = state.load()
    log = start_log(accelerator, config, first)
    meter, started = Meter(accelerator), time.monotonic()
    for step in tqdm(range(first, config.steps), initial=first, total=config.steps, desc="finetune", mininterval=30):
        meter.begin("update")
        for part in range(config.gradient_accumulation_steps):
            generators = clip_generators(accelerator, config, step, part)
            batch = pool.draw(generators, shape_generator(config.seed, step, part))
            draws = draw_step(batch, blanks(batch), config, generators).to(accelerator.device)
            batch = batch.to(accelerator.device)
            with accelerator.accumulate(prepared), accelerator.autocast():
                sum_gradients(model, accelerator.sync_gradients)
                loss, metrics = prepared(batch, pipeline, draws, config)
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
                export(pipeline, state, twin, config, log, step)
                push_run(accelerator, config, "training.finetune", step + 1)
    last = max(first, config.steps)
    if exported_step(folder) != last:
        export(pipeline, state, twin, config, log, last - 1)
    push_run(accelerator, config, "training.finetune", config.steps)


if __name__ == "__main__":
    run_stage(main, parse_config(FinetuneConfig))
    leave()
