"""One clip for `eval.headroom`: made several times from one picture and tracks, and what the makings tell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ardrag.judges.rewards import motion_reward
from ardrag.judges.template_match import match_score, unhidden
from ardrag.judges.tracking import Trajectories
from ardrag.rollout import GeneratorNoise, generate_chunk, seeded_generator, write_cache
from ardrag.streaming_vae import StreamingVAE
from ardrag.worlds.clip_tracks import clip_tracks
from ardrag.worlds.sprites import SpriteClip, render
from eval.benchmark.passers import moved_centres
from pipelines import ARDragPipeline
from pipelines.inputs.clip_inputs import clip_inputs
from pipelines.video import to_frames


Float = npt.NDArray[np.float64]
FULL_REWARD = 5.0
"""Alpha of Eq. 16, the most that a frame can earn."""


class ClipHeadroom(NamedTuple):
    """What one clip tells; errors in pixels.

    ``one_step`` and ``finished`` are mean path errors of the first step's predictions and of the latents that come of
    them, on the same histories; ``variance`` the share of variance in the squared error of positions; ``best`` the
    path error of the best member; ``reward`` the mean of Eq. 16 and ``reward_spread`` its spread in the group;
    ``shown_one_step`` and ``shown`` how much of each sprite that no track moves is there, 1 as in the true video, or
    None where there is none.
    """

    one_step: float
    finished: float
    variance: float
    best: float
    reward: float
    reward_spread: float
    shown_one_step: float | None
    shown: float | None


@torch.no_grad()
def make_group(pipeline: ARDragPipeline, clip: SpriteClip, members: int, seed: int) -> tuple[Tensor, Tensor]:
    """Latents ``[G, C, F, h, w]`` of the first step's predictions, and the finished ones that history was made of."""
    transformer, scheduler = pipeline.transformer, pipeline.scheduler
    device = transformer.device
    fill = GeneratorNoise([seeded_generator(seed, 0)], device, torch.float32)
    tracks = clip_tracks(clip)
    one, reference = clip_inputs(
        pipeline, Image.fromarray(clip.frames[0]), clip.caption, tracks, len(clip.frames), fill
    )
    conditions = one.repeated(members)
    noise = GeneratorNoise([seeded_generator(seed, 1 + member) for member in range(members)], device, torch.float32)
    cache = transformer.new_cache(members, *conditions.motion.shape[3:])
    first, finished = list[Tensor](), list[Tensor]()
    begin = 0
    if scheduler.config.first_frame == "encode":
        given = reference.expand(members, -1, -1, -1, -1)
        write_cache(transformer, given, conditions.chunk(0, 1), cache)
        first, finished, begin = [given], [given], 1
    size = transformer.config.chunk_frames
    for start in range(begin, conditions.motion.shape[2], size):
        chunk = conditions.chunk(start, start + size)
        rollout = generate_chunk(transformer, chunk, cache, scheduler.sigmas, scheduler.config.eta, noise, grad_step=0)
        assert rollout.exit_clean is not None, "a step was asked for"
        first.append(rollout.exit_clean)
        finished.append(rollout.latents)
        write_cache(transformer, rollout.latents, chunk, cache)
    return torch.cat(first, dim=2), torch.cat(finished, dim=2)


def offsets(clip: SpriteClip, videos: npt.NDArray[np.uint8]) -> Float:
    """How far each moved sprite is from its path ``[G, T - 1, P, 2]`` in ``videos``; NaN where the path is hidden."""
    grabs = np.array([clip.sprites[mover].grab for mover in clip.movers], np.float32)
    off = np.stack([moved_centres(clip, video) + grabs - clip.xy for video in videos]).astype(np.float64)
    return np.where(clip.visible[..., None], off, np.nan)[:, 1:]


def variance_share(off: Float) -> float:
    """Share of variance in the mean squared error of ``off`` ``[G, ...]``; unbiased in the size of the group."""
    total, apart = np.nanmean(off**2), np.nanmean(off.var(0, ddof=1))
    return float(apart / total) if total > 0 else 0.0


def shown_share(clip: SpriteClip, free: tuple[int, ...], videos: npt.NDArray[np.uint8]) -> float | None:
    """How clearly the sprites of the numbers ``free`` show anywhere in ``videos``, as a share of the true video's."""
    shares = []
    height, width = clip.frames.shape[1:3]
    for number in free:
        sprite, others = clip.sprites[number], clip.sprites[:number] + clip.sprites[number + 1 :]
        scene = render(others, clip.background / np.float32(255), len(clip.frames))
        open_view = unhidden(clip.sprites[number + 1 :], height, width, len(clip.frames))
        most = match_score(clip.frames, scene, sprite.rgba, open_view).amax((1, 2))[1:]
        for video in videos:
            found = match_score(video, scene, sprite.rgba, open_view).amax((1, 2))[1:]
            shares.append(float((found / most).mean()))
    return float(np.mean(shares)) if shares else None


def measure_clip(
    pipeline: ARDragPipeline, clip: SpriteClip, free: tuple[int, ...], members: int, seed: int
) -> ClipHeadroom:
    """Make the clip ``members`` times and compare."""
    made = [to_frames(StreamingVAE(pipeline.vae).decode(part)) for part in make_group(pipeline, clip, members, seed)]
    early, late = (offsets(clip, videos) for videos in made)
    errors = np.nanmean(np.linalg.norm(late, axis=-1), (1, 2))
    wanted = Trajectories(np.zeros_like(clip.xy[1:]), clip.visible[1:])
    known = np.ones_like(wanted.visible)
    rewards = [
        np.nanmean(motion_reward(Trajectories(np.nan_to_num(off).astype(np.float32), known), wanted, FULL_REWARD))
        for off in late
    ]
    return ClipHeadroom(
        one_step=float(np.nanmean(np.linalg.norm(early, axis=-1))),
        finished=float(errors.mean()),
        variance=variance_share(late),
        best=float(errors.min()),
        reward=float(np.mean(rewards)),
        reward_spread=float(np.std(rewards)),
        shown_one_step=shown_share(clip, free, made[0]),
        shown=shown_share(clip, free, made[1]),
    )
