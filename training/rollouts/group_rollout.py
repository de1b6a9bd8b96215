"""A group of videos of one prompt: what they share, what is each member's own, and how they are made.

With ``share_history`` the members go on, latent after latent, from one and the same past: that of member 0, who is as
good a sample as any. A latent's rewards then differ by its own action alone, which is the group of Eq. 13 taken at its
word: the same state for all. Otherwise every member lives with what it made, and later latents are paid for earlier
luck as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from torch import Tensor

from ardrag.conditioning import Conditions
from ardrag.flow import KERNELS
from ardrag.judges.rewards import near_tracks
from ardrag.rollout import GeneratorNoise, seeded_generator
from ardrag.streaming_vae import FeatureCache, StreamingVAE, StreamState
from ardrag.tracks.tracks import Tracks
from pipelines import ARDragPipeline
from pipelines.inputs.clip_inputs import clip_inputs
from pipelines.video import to_frames
from training.rollouts.prompts import Prompt
from training.rollouts.self_rollout import SelfRollout, chunk_edges, self_rollout
from training.settings.grpo import GrpoConfig


class GroupNoise:
    """Noise of a group: what is shared is the same in all members, what is a member's own is not.

    ``script`` says for each draw, in order, whether it is shared.
    """

    def __init__(self, group_size: int, seed: Sequence[int], script: Sequence[bool], device: torch.device) -> None:
        self._shared = GeneratorNoise([seeded_generator(*seed, 0) for _ in range(group_size)], device, torch.float32)
        own = [seeded_generator(*seed, 1 + member) for member in range(group_size)]
        self._own = GeneratorNoise(own, device, torch.float32)
        self._script = list(script)

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """The next draw."""
        return (self._shared if self._script.pop(0) else self._own)(shape)


def noise_script(config: GrpoConfig, num_steps: int, chosen: Sequence[int]) -> list[bool]:
    """Which draws of a rollout the group shares: per chunk the initial noise, then one for each stochastic step."""
    script = []
    for step in chosen:
        script.append(config.share_initial_noise)
        if config.mode == "ode_sde":
            script.append(False)
        else:
            script += [config.mode == "crn" and k != step for k in range(num_steps - 1)]
    return script


@dataclass(frozen=True)
class Collected:
    """A group on its way through an update; ``region`` ``[F, H, W]`` is where actions count (None: everywhere)."""

    conditions: Conditions
    rollout: SelfRollout
    videos: Tensor
    tracks: Tracks
    region: Tensor | None


@torch.no_grad()
def decode_on_one_past(vae: AutoencoderKLWan, finished: Tensor) -> Tensor:
    """Pixels ``[G, 3, T, H, W]`` of latents ``[G, C, F, H, W]``, each decoded as what follows the past of member 0."""
    stream, pixels = StreamingVAE(vae), []
    for latent in finished.split(1, dim=2):
        pixels.append(stream.decode_next(latent))
        state = stream.state()
        stream.restore(StreamState(state.encoder, _of_member_0(state.decoder)))
    return torch.cat(pixels, dim=2)


def _of_member_0(cache: FeatureCache) -> FeatureCache:
    return tuple(x[:1].expand_as(x) if isinstance(x, Tensor) else x for x in cache)


@torch.no_grad()
def collect(pipeline: ARDragPipeline, prompt: Prompt, config: GrpoConfig, seed: Sequence[int]) -> Collected:
    """Roll out a group of videos of one prompt; everything random is a function of ``seed``."""
    size, device = config.group_size, pipeline.transformer.device
    frames = 1 + pipeline.vae.config.scale_factor_temporal * (config.num_latents - 1)
    fill = GeneratorNoise([seeded_generator(*seed, 2**20)], device, torch.float32)
    picture = Image.fromarray(prompt.image)
    one, reference = clip_inputs(pipeline, picture, prompt.caption, prompt.tracks, frames, fill)
    conditions = one.repeated(size)
    scheduler = pipeline.scheduler
    given = reference.expand(size, -1, -1, -1, -1) if scheduler.config.first_frame == "encode" else None
    chunks = chunk_edges(config.num_latents, pipeline.transformer.config.chunk_frames, given is not None)
    num_steps = len(scheduler.sigmas) - 1
    chosen = torch.randint(num_steps - 1, (len(chunks),), generator=seeded_generator(*seed, 2**21)).tolist()
    noise = GroupNoise(size, seed, noise_script(config, num_steps, chosen), device)
    selective = config.mode == "ode_sde"
    rollout = self_rollout(
        pipeline.transformer,
        conditions,
        scheduler.sigmas,
        config.eta,
        noise,
        given,
        chosen,
        selective=selective,
        kernel=KERNELS[config.kernel],
        share_history=config.share_history,
    )
    if config.share_history:
        decoded = decode_on_one_past(pipeline.vae, rollout.finished)
    else:
        decoded = StreamingVAE(pipeline.vae).decode(rollout.finished)
    videos = torch.from_numpy(to_frames(decoded)).movedim(-1, 2)
    region = None
    if config.credit_radius:
        factor = pipeline.vae.config.scale_factor_temporal
        region = near_tracks(prompt.tracks, rollout.latents.shape[2:], config.credit_radius, factor).to(device)
    return Collected(conditions, rollout, videos, prompt.tracks, region)
