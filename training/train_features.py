"""Train the feature network of Sprite World: the eyes of FID-sprite and FVD-sprite.

    python -m training.train_features --output_dir runs/features

Two encoders learn together from clips of the training split. From a frame, spoiled one time in two: which colours and
shapes are there, which background, spoiled in what way and how much. From a clip, disturbed in time six times in
seven: which colours are there, how the sprites move, and which disturbance it was. The heads that answer are thrown
away; what they were given is the feature.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ardrag.judges.degradations import DEGRADATIONS, degrade
from ardrag.judges.sprite_features import SpriteFeatures
from ardrag.worlds.sprite_drawing import BACKGROUNDS, COLOURS
from ardrag.worlds.sprites import TRAINING_SHAPES, SpriteClip, make_clip
from training.run.config import config_lines, parse_config
from training.run.optim import warmup_cosine
from training.run.runtime import RunLog, require_finite, step_generator


logger = logging.getLogger(__name__)
MOTION_UNIT = 16.0
"""Pixels of net displacement and of path length that count as one."""


@dataclass
class FeaturesConfig:
    """Configuration of the feature network's training."""

    output_dir: str = field(metadata={"help": "Run folder: log, curves and the network."})
    steps: int = field(default=1500, metadata={"help": "Training steps."})
    batch_size: int = field(default=12, metadata={"help": "Clips per step, and twice as many frames."})
    pool_clips: int = field(default=1200, metadata={"help": "Clips of the training split to draw from."})
    validation_clips: int = field(default=160, metadata={"help": "Clips of the validation split."})
    learning_rate: float = field(default=1.5e-3, metadata={"help": "AdamW."})
    seed: int = field(default=0, metadata={"help": "Seed of everything."})
    log_every: int = field(default=20, metadata={"help": "Steps between log rows."})


class Pool(NamedTuple):
    """Clips and what is true of them: ``videos`` uint8 ``[N, T, 3, H, W]``, the rest ``[N, ...]``."""

    videos: Tensor
    colours: Tensor
    shapes: Tensor
    background: Tensor
    motion: Tensor


def draw_pool(split: str, count: int, num_frames: int) -> Pool:
    """The first ``count`` clips of a split with their labels."""
    columns: list[tuple[Tensor, ...]] = []
    for index in tqdm(range(count), desc=f"{split} clips", mininterval=10):
        clip = make_clip(split, index, num_frames)
        columns.append((torch.from_numpy(clip.frames).permute(0, 3, 1, 2), *labels_of(clip)))
    return Pool(*(torch.stack(column) for column in zip(*columns, strict=True)))


def labels_of(clip: SpriteClip) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colours ``[10]`` and shapes ``[10]`` that are there, background, and motion ``[3]`` (mean of moved sprites)."""
    colours, shapes = ({getattr(sprite, name) for sprite in clip.sprites} for name in ("colour", "shape"))
    path = torch.from_numpy(clip.xy) / MOTION_UNIT  # [T, P, 2]
    travelled = path.diff(dim=0).norm(dim=-1).sum(0).mean()
    return (
        torch.tensor([name in colours for name in COLOURS]).float(),
        torch.tensor([name in shapes for name in TRAINING_SHAPES]).float(),
        torch.tensor(BACKGROUNDS.index(clip.caption.rsplit("on a ", 1)[1].split()[0])),
        torch.stack([*(path[-1] - path[0]).mean(0), travelled]),
    )


def shuffled(video: Tensor, generator: torch.Generator) -> Tensor:
    """Frames in random order."""
    return video[torch.randperm(len(video), generator=generator)]


def frozen(video: Tensor, generator: torch.Generator) -> Tensor:
    """Nothing moves from a frame of the first half on."""
    start = int(torch.randint(len(video) // 2, (), generator=generator))
    return video[torch.arange(len(video)).clamp(max=start)]


def stuttering(video: Tensor, generator: torch.Generator) -> Tensor:
    """Every frame is held for two to four."""
    held = int(torch.randint(2, 5, (), generator=generator))
    return video[torch.arange(len(video)) // held * held]


def flickering(video: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness changes from frame to frame, up to a twelfth of full scale."""
    shift = 21 * (2 * torch.rand(len(video), 1, 1, 1, generator=generator) - 1)
    return (video.float() + shift).round().clamp(0, 255).to(torch.uint8)


def shaking(video: Tensor, generator: torch.Generator) -> Tensor:
    """The whole picture jumps by up to two pixels."""
    jumps = torch.randint(-2, 3, (len(video), 2), generator=generator).tolist()
    return torch.stack([frame.roll(jump, (1, 2)) for frame, jump in zip(video, jumps, strict=True)])


def melting(video: Tensor, generator: torch.Generator) -> Tensor:
    """Spoiled in one way, more and more."""
    name = list(DEGRADATIONS)[int(torch.randint(len(DEGRADATIONS), (), generator=generator))]
    return degrade(video, torch.linspace(0, 0.8, len(video)), [name] * len(video), generator)


Disturbance = Callable[[Tensor, torch.Generator], Tensor]
DISTURBANCES: dict[str, Disturbance] = {
    "intact": lambda video, generator: video,
    "shuffled": shuffled,
    "frozen": frozen,
    "stuttering": stuttering,
    "flickering": flickering,
    "shaking": shaking,
    "melting": melting,
}


class Heads(nn.Module):
    """The questions that the features must answer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        sizes = {
            "frame_colours": len(COLOURS),
            "frame_shapes": len(TRAINING_SHAPES),
            "frame_background": len(BACKGROUNDS),
            "frame_severity": len(DEGRADATIONS),
            "clip_colours": len(COLOURS),
            "clip_motion": 3,
            "clip_disturbance": len(DISTURBANCES),
        }
        self.answers = nn.ModuleDict(
            {name: nn.Sequential(nn.SiLU(), nn.Linear(features, size)) for name, size in sizes.items()}
        )

    def forward(self, frames: Tensor, clips: Tensor) -> dict[str, Tensor]:
        """Answers by name from features ``[N, D]`` of frames and ``[B, D]`` of clips."""
        return {name: layers(frames if name.startswith("frame") else clips) for name, layers in self.answers.items()}


class Batch(NamedTuple):
    """What the network sees and what it should say; ``rows`` are clips of the pool."""

    frames: Tensor
    frame_rows: Tensor
    severity: Tensor
    videos: Tensor
    rows: Tensor
    disturbance: Tensor


def draw_batch(pool: Pool, batch_size: int, generator: torch.Generator) -> Batch:
    """Frames spoiled one time in two (``severity [N, 4]``, one kind each) and clips disturbed in time."""
    count, length = pool.videos.shape[:2]
    frame_rows = torch.randint(count, (2 * batch_size,), generator=generator)
    frames = pool.videos[frame_rows, torch.randint(length, (2 * batch_size,), generator=generator)]
    kinds = torch.randint(len(DEGRADATIONS), (2 * batch_size,), generator=generator)
    amount = (2 * torch.rand(2 * batch_size, generator=generator) - 1).clamp_min(0)
    names = [list(DEGRADATIONS)[kind] for kind in kinds.tolist()]
    rows = torch.randint(count, (batch_size,), generator=generator)
    disturbance = torch.randint(len(DISTURBANCES), (batch_size,), generator=generator)
    ways = list(DISTURBANCES.values())
    videos = [
        ways[way](pool.videos[row], generator) for row, way in zip(rows.tolist(), disturbance.tolist(), strict=True)
    ]
    return Batch(
        degrade(frames, amount, names, generator),
        frame_rows,
        F.one_hot(kinds, len(DEGRADATIONS)) * amount[:, None],
        torch.stack(videos),
        rows,
        disturbance,
    )


def losses(answers: dict[str, Tensor], pool: Pool, batch: Batch) -> dict[str, Tensor]:
    """One loss for each question; motion is asked only of clips whose motion was left as it is.

    What is there is a sum over the names that could be: most are not there, and their mean would hardly be heard.
    """
    intact = batch.disturbance == list(DISTURBANCES).index("intact")
    error = (answers["clip_motion"] - pool.motion[batch.rows]).square().mean(1)
    return {
        "frame_colours": _presence(answers["frame_colours"], pool.colours[batch.frame_rows]),
        "frame_shapes": _presence(answers["frame_shapes"], pool.shapes[batch.frame_rows]),
        "frame_background": F.cross_entropy(answers["frame_background"], pool.background[batch.frame_rows]),
        "frame_severity": 4 * F.mse_loss(answers["frame_severity"], batch.severity),
        "clip_colours": _presence(answers["clip_colours"], pool.colours[batch.rows]),
        "clip_motion": (error * intact).sum() / intact.sum().clamp_min(1),
        "clip_disturbance": F.cross_entropy(answers["clip_disturbance"], batch.disturbance),
    }


def _presence(answers: Tensor, there: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(answers, there, reduction="none").sum(1).mean()


@torch.no_grad()
def validate(model: SpriteFeatures, heads: Heads, pool: Pool, batch_size: int) -> dict[str, float]:
    """Shares of right answers on the validation split, and the mean error of the net displacement in pixels."""
    found: dict[str, list[float]] = {}
    for turn in range(len(pool.videos) // batch_size):
        batch = draw_batch(pool, batch_size, step_generator(1, turn))
        answers = heads(model.frame_features(batch.frames), model.window_features(batch.videos))
        intact = batch.disturbance == 0
        moved = (answers["clip_motion"] - pool.motion[batch.rows])[intact, :2].norm(dim=1) * MOTION_UNIT
        scores = {
            "frame_colours": (answers["frame_colours"] > 0) == (pool.colours[batch.frame_rows] > 0),
            "frame_shapes": (answers["frame_shapes"] > 0) == (pool.shapes[batch.frame_rows] > 0),
            "frame_background": answers["frame_background"].argmax(1) == pool.background[batch.frame_rows],
            "clip_disturbance": answers["clip_disturbance"].argmax(1) == batch.disturbance,
        }
        for name, right in scores.items():
            found.setdefault(f"validation/{name}", []).append(right.float().mean().item())
        found.setdefault("validation/displacement_px", []).extend(moved.tolist())
    return {name: sum(values) / len(values) for name, values in found.items()}


@torch.no_grad()
def standardize(model: SpriteFeatures, pool: Pool, batch_size: int = 32) -> None:
    """Scale and shift both heads in place: every feature gets mean 0 and spread 1 over untouched clips of the pool.

    Distances then weigh all features alike, and a polynomial kernel sees numbers of the size it was made for.
    """
    length = pool.videos.shape[1]
    frames = pool.videos[torch.arange(len(pool.videos)), torch.arange(len(pool.videos)) % length]
    found = {
        model.frame_head: torch.cat([model.frame_features(part) for part in frames.split(batch_size)]),
        model.clip_head: torch.cat([model.window_features(part) for part in pool.videos.split(batch_size)]),
    }
    for head, features in found.items():
        mean, spread = features.mean(0), features.std(0).clamp_min(1e-6)
        head.weight /= spread[:, None]
        head.bias.copy_((head.bias - mean) / spread)


def main(config: FeaturesConfig) -> None:
    """Train, validate, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    set_seed(config.seed)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config_lines(config))
    model = SpriteFeatures()
    heads = Heads(model.config.features)
    length = model.config.window + 1  # pixel frames are 4k + 1
    pool, held_out = (
        draw_pool(split, count, length)
        for split, count in (("train", config.pool_clips), ("validation", config.validation_clips))
    )
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, 50, config.steps))
    log, started = RunLog(folder), time.monotonic()
    for step in tqdm(range(config.steps), desc="features", mininterval=30):
        batch = draw_batch(pool, config.batch_size, step_generator(config.seed, step))
        parts = losses(heads(model.frame_features(batch.frames), model.window_features(batch.videos)), pool, batch)
        loss = torch.stack(list(parts.values())).sum()
        require_finite(loss, step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        if step % config.log_every == 0:
            values = {f"loss/{name}": value.item() for name, value in parts.items()}
            log.write(step, **values, **{"time/hours": (time.monotonic() - started) / 3600})
    found = validate(model.eval(), heads, held_out, config.batch_size)
    log.write(config.steps, **found)
    log.plot()
    logger.info("%s", {name: round(value, 3) for name, value in found.items()})
    standardize(model, pool)
    model.save_pretrained(folder / "network")


if __name__ == "__main__":
    main(parse_config(FeaturesConfig))
