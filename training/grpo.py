"""Stage 3: GRPO with selective stochasticity on the few-step causal student (AR-Drag section 3.3, Eq. 8-16).

    python -m training.grpo training/configs/grpo_tiny.yaml --init_from runs/distill/pipeline --output_dir runs/grpo

Every step a group of videos of one prompt is rolled out on the pipeline's sampler. They share picture, tracks, initial
noise and the one step of each latent that is stochastic; what that step draws is each member's own, and so are its
consequences. Rewards per latent frame become advantages over the group; the ratio comes from a replay of the stored
latents under the present weights, never through a cache that has moved on.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from ardrag.flow import KERNELS
from ardrag.judges.rewards import Reward, combine
from ardrag.rollout import seeded_generator
from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from training.losses.policy import (
    gaussian_divergence,
    group_advantages,
    latent_log_prob,
    policy_loss,
    transition_moments,
)
from training.memory import require_room
from training.rollouts.conditions import halve_encoders
from training.rollouts.group_rollout import Collected, collect
from training.rollouts.prompts import DrawPrompt, load_prompts
from training.rollouts.reward_runner import build_rewards, score_all
from training.rollouts.rl_page import draw_page, save_ratios
from training.rollouts.self_rollout import replay_velocity
from training.run.checkpoint import RunState
from training.run.config import parse_config
from training.run.data import shape_generator
from training.run.hub import push_run, start_on_hub
from training.run.metrics import Meter, term_gradients
from training.run.runtime import (
    Learner,
    Reference,
    RunLog,
    add_lora,
    exported_step,
    leave,
    mark_exported,
    require_finite,
    run_stage,
    save_trained,
    start_log,
    step_generator,
)
from training.run.shard import (
    averaged_pipeline,
    clip_gradients,
    gathered,
    inner,
    rollout_precision,
    shard,
    sum_gradients,
)
from training.run.validation import validation_sheet
from training.settings.grpo import GrpoConfig


logger = logging.getLogger(__name__)
Judged = tuple[Collected, Tensor, Tensor]
"""A group with its advantages and mask, both ``[G, F]``."""


def moments(
    model: Any, transformer: CausalWanTransformer, sigmas: Sequence[float], group: Collected, config: GrpoConfig
) -> tuple[Tensor, Tensor]:
    """Mean and spread of the stochastic steps under the weights of ``model`` (``transformer``, wrapped), by replay."""
    rollout, through_history = group.rollout, config.history_gradient and torch.is_grad_enabled()
    velocity = replay_velocity(model, transformer, rollout, group.conditions, through_history)
    kernel = KERNELS[config.kernel]
    return transition_moments(rollout.exit_noisy, velocity, rollout.exit_steps, sigmas, config.eta, kernel)


@torch.no_grad()
def reference_means(
    reference: Reference, sigmas: Sequence[float], groups: Sequence[Collected], config: GrpoConfig
) -> list[Tensor]:
    """Mean of the stochastic steps of each group under the reference, which does not change while they are used."""
    with reference.model() as model:
        return [moments(model, model, sigmas, group, config)[0] for group in groups]


def judge(
    rewards: dict[str, Reward], weights: dict[str, float], group: Collected, config: GrpoConfig, seed: Sequence[int]
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Advantages ``[G, F]``, mask ``[G, F]`` and metrics of a group; a reward that keeps failing stops the run."""
    folder = Path(config.output_dir)
    found = score_all(rewards, group.videos, group.tracks, config.reward_attempts, folder)
    total = torch.from_numpy(combine(found, weights, config.reward_order))  # type: ignore[arg-type]
    generated = torch.tensor([step >= 0 for step in group.rollout.exit_steps])
    values, informative = group_advantages(total, config.credit, eps=config.spread_floor)
    if config.shuffle_advantages:
        values = values[torch.randperm(len(values), generator=seeded_generator(*seed, 2**22))]
    counted = informative & generated
    metrics = {f"reward/{name}": float(np.nanmean(value[:, generated.numpy()])) for name, value in found.items()}
    metrics["reward/group_spread"] = float(np.nanmean(np.nanstd(total[:, generated].numpy(), axis=0)))
    metrics["reward/zero_spread"] = 1 - counted.sum().item() / max(generated.sum().item(), 1)
    return values.float(), counted.expand(len(values), -1), metrics


def gather(
    pipeline: ARDragPipeline,
    draw: DrawPrompt,
    judges: tuple[dict[str, Reward], dict[str, float]],
    config: GrpoConfig,
    seeds: Sequence[Sequence[int]],
) -> tuple[list[Judged], dict[str, float]]:
    """A group for each of ``seeds``, rolled out and judged, and the means of their metrics."""
    groups: list[Judged] = []
    found = []
    for part, seed in enumerate(seeds):
        prompt = draw(step_generator(*seed), shape_generator(config.seed, seed[1], part))
        group = collect(pipeline, prompt, config, seed)
        advantages, mask, metrics = judge(*judges, group, config, seed)
        device = group.rollout.latents.device
        groups.append((group, advantages.to(device), mask.to(device)))
        found.append(metrics)
    return groups, {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def export(
    pipeline: ARDragPipeline, state: RunState, twin: nn.Module | None, config: GrpoConfig, log: RunLog, step: int
) -> None:
    """Save the pipeline (or the adapter) with averaged weights, draw sheet, curves and page; all processes come."""
    with averaged_pipeline(pipeline, state, twin):
        if state.accelerator.is_main_process:
            save_trained(pipeline, state.folder, lora=bool(config.lora_rank))
            if config.validate:
                error = validation_sheet(pipeline, state.folder / "sheets" / f"{step + 1:06d}.png", config.num_latents)
                log.write(step, **{"validation/path_error_px": error})
            mark_exported(state.folder, step + 1)
            log.plot()
            draw_page(state.folder, config.clip)


def prepare_policy(pipeline: ARDragPipeline, config: GrpoConfig) -> Reference:
    """Freeze everything but the transformer (or its adapter); returns the reference."""
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.image_encoder, pipeline.transformer):
        if part is not None:
            part.requires_grad_(False).eval()
    transformer = pipeline.transformer
    if config.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    if config.lora_rank:
        add_lora(transformer, config.lora_rank, alpha=2 * config.lora_rank)
        return Reference(transformer, frozen=False)
    reference = Reference(copy.deepcopy(transformer), frozen=True)
    transformer.requires_grad_(True)
    return reference


def agreement(trained: Sequence[nn.Parameter], optimizer: Any) -> float:
    """Cosine between the gradient and what AdamW remembers of those before it: how much of it is more than noise.

    Where a small share ``s`` of a gradient's square is common to all, it is about ``4 s`` (momentum 0.9).
    """
    pairs = [(p.grad, optimizer.state[p]["exp_avg"]) for p in trained if p.grad is not None and p in optimizer.state]
    dot, now, before = map(inner, (pairs, [(g, g) for g, _ in pairs], [(m, m) for _, m in pairs]))
    return dot / max((now * before) ** 0.5, 1e-30)


def update(
    accelerator: Accelerator,
    policy: nn.Module,
    optimizer: Any,
    pipeline: ARDragPipeline,
    reference: Reference,
    groups: Sequence[Judged],
    trained: list[nn.Parameter],
    config: GrpoConfig,
    step: int,
) -> tuple[dict[str, float], list[Tensor]]:
    """One or more updates on the same rollouts; the ratio is 1 at the first, by construction.

    Returns the metrics of the last update, and the log-probabilities ``[G, F]`` of each group before the first.
    """
    old: list[Tensor] = []
    metrics: dict[str, float] = {}
    sigmas = pipeline.scheduler.sigmas
    restrained = config.beta or config.beta_elsewhere
    with accelerator.autocast():
        before = reference_means(reference, sigmas, [group for group, _, _ in groups], config) if restrained else []
    for _ in range(config.updates):
        for i, (group, advantages, mask) in enumerate(groups):
            with accelerator.accumulate(policy), accelerator.autocast():
                sum_gradients(policy, accelerator.sync_gradients)
                mean, std = moments(policy, pipeline.transformer, sigmas, group, config)
                log_prob = latent_log_prob(group.rollout.exit_next, mean, std, group.region, config.credit_smoothing)
                if len(old) <= i:
                    old.append(log_prob.detach())
                divergence = gaussian_divergence(mean, before[i], std) if before else None
                loss, metrics = policy_loss(
                    log_prob, old[i], advantages, mask & (std > 0), config.clip, divergence, config.beta
                )
                if config.beta_elsewhere and group.region is not None:
                    outside = gaussian_divergence(mean, before[i], std, ~group.region).sum() / (std > 0).sum()
                    loss = loss + config.beta_elsewhere * outside
                    metrics["policy/kl_elsewhere"] = outside.item()
                if before and step % config.log_every == 0:
                    policy_term, _ = policy_loss(log_prob, old[i], advantages, mask & (std > 0), config.clip)
                    metrics |= term_gradients({"policy": policy_term, "kl": loss - policy_term}, mean)
                require_finite(loss, step)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    metrics["grad/norm"] = clip_gradients(accelerator, trained, config.max_grad_norm)
                    metrics["grad/agreement"] = agreement(trained, optimizer)
                optimizer.step()
                optimizer.zero_grad()
    return metrics, old


@torch.no_grad()
def log_ratios(
    accelerator: Accelerator,
    pipeline: ARDragPipeline,
    groups: Sequence[Judged],
    old: Sequence[Tensor],
    config: GrpoConfig,
) -> Tensor:
    """Log-ratios ``[N]`` of all counted transitions after the updates: how far the policy went on what it had seen."""
    transformer, found = pipeline.transformer, []
    for (group, _, mask), before in zip(groups, old, strict=True):
        with accelerator.autocast():
            mean, std = moments(transformer, transformer, pipeline.scheduler.sigmas, group, config)
        after = latent_log_prob(group.rollout.exit_next, mean, std, group.region, config.credit_smoothing)
        found.append((after - before)[mask & (std > 0)])
    return torch.cat(found)


def main(config: GrpoConfig) -> None:
    """Train, validate, save; running the same command again resumes where the last state was saved."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    accelerator = Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        mixed_precision=config.mixed_precision,
        log_with=config.report_to or None,
        project_dir=config.output_dir,
    )
    set_seed(config.seed)
    folder = Path(config.output_dir)
    start_on_hub(config, accelerator, folder)
    pipeline = ARDragPipeline.from_pretrained(config.init_from).to(accelerator.device)
    require_room("grpo", config, pipeline, pipeline.config.buckets[0], accelerator)
    halve_encoders(pipeline, config.mixed_precision)
    reference = prepare_policy(pipeline, config)
    frames = 1 + pipeline.vae.config.scale_factor_temporal * (config.num_latents - 1)
    draw = load_prompts(config.prompts, frames, pipeline.config.buckets)
    files = config.tracker_checkpoint, config.aesthetic_head
    judges = build_rewards(config.rewards, config.tracker, *files, config.reward_device, config.reward_processes)
    twin, half = None, config.mixed_precision == "bf16"
    if config.shard:
        twin = shard(pipeline.transformer, accelerator, half)
        if reference.own is not None:
            shard(reference.own, accelerator, half)
    trained = [p for p in pipeline.transformer.parameters() if p.requires_grad]
    ema = EMAModel(trained, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    # Gradients of mean log-probabilities are tiny: with the usual eps AdamW would hardly move.
    options = {"betas": tuple(config.betas), "eps": 1e-10, "weight_decay": config.weight_decay}
    adamw = torch.optim.AdamW(trained, config.learning_rate, **options)
    state = RunState(accelerator, config, {"policy": pipeline.transformer}, {"policy": adamw}, ema)
    policy = Learner(pipeline.transformer)
    policy = policy if config.shard else accelerator.prepare(policy)
    optimizer = accelerator.prepare(adamw)
    patch = math.prod(pipeline.transformer.config.patch_size)
    first = state.load()
    log = start_log(accelerator, config, first)
    if not first and config.validate:
        with averaged_pipeline(pipeline, state, twin):
            if accelerator.is_main_process:
                error = validation_sheet(pipeline, folder / "sheets" / f"{0:06d}.png", config.num_latents)
                log.write(-1, **{"validation/path_error_px": error})  # before the first step
    meter, started = Meter(accelerator), time.monotonic()
    parts = config.gradient_accumulation_steps
    for step in tqdm(range(first, config.steps), initial=first, total=config.steps, desc="grpo", mininterval=30):
        meter.begin("update")
        numbers = [part * accelerator.num_processes + accelerator.process_index for part in range(parts)]
        with gathered(pipeline.transformer), accelerator.autocast(), rollout_precision(pipeline.transformer):
            groups, metrics = gather(pipeline, draw, judges, config, [(config.seed, step, one) for one in numbers])
        learnt, old = update(accelerator, policy, optimizer, pipeline, reference, groups, trained, config, step)
        metrics |= learnt
        ema.step(trained)
        for group, _, _ in groups:
            meter.add(group.rollout.latents, patch)
        meter.end()
        if step % config.log_every == 0 and accelerator.is_main_process:
            log.write(step, **metrics, **meter.read(), **{"time/hours": (time.monotonic() - started) / 3600})
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            state.save(step + 1)
            ratios = log_ratios(accelerator, pipeline, groups, old, config)
            if accelerator.is_main_process:
                save_ratios(folder, step + 1, ratios)
            if step + 1 < config.steps:
                export(pipeline, state, twin, config, log, step)
                push_run(accelerator, config, "training.grpo", step + 1)
    last = max(first, config.steps)
    if exported_step(folder) != last:
        export(pipeline, state, twin, config, log, last - 1)
    push_run(accelerator, config, "training.grpo", config.steps)


if __name__ == "__main__":
    run_stage(main, parse_config(GrpoConfig))
    leave()
