"""Train the small aesthetic scorer of Sprite World on graded degradations.

    python -m training.train_aesthetic --output_dir runs/aesthetic

The score to learn is ``10 * (1 - severity)``; what it has learnt is told as the rank correlation with the true
severity on frames of the validation split, for each kind of degradation.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor
from tqdm import tqdm

from ardrag.judges.degradations import DEGRADATIONS, degrade
from ardrag.judges.sprite_aesthetic import HIGHEST, SpriteAesthetic
from ardrag.worlds.sprites import make_clip
from training.run.config import config_lines, parse_config
from training.run.optim import warmup_cosine
from training.run.runtime import RunLog, require_finite, step_generator


logger = logging.getLogger(__name__)


@dataclass
class AestheticConfig:
    """Configuration of the scorer's training."""

    output_dir: str = field(metadata={"help": "Run folder: log, curves and the scorer."})
    width: int = field(default=12, metadata={"help": "Channels of the first layer."})
    levels: int = field(default=4, metadata={"help": "Halvings of the picture."})
    steps: int = field(default=1500, metadata={"help": "Training steps."})
    batch_size: int = field(default=32, metadata={"help": "Frames per step."})
    pool_frames: int = field(default=1500, metadata={"help": "Frames of the training split to draw from."})
    validation_frames: int = field(default=200, metadata={"help": "Frames of the validation split."})
    learning_rate: float = field(default=1e-3, metadata={"help": "AdamW."})
    seed: int = field(default=0, metadata={"help": "Seed of everything."})
    log_every: int = field(default=20, metadata={"help": "Steps between log rows."})


def draw_frames(split: str, count: int) -> Tensor:
    """One frame of each of the first ``count`` clips of a split, uint8 ``[N, 3, H, W]``."""
    frames = []
    for index in tqdm(range(count), desc=f"{split} frames", mininterval=10):
        clip = make_clip(split, index, 5)
        frames.append(torch.from_numpy(clip.frames[index % 5]).permute(2, 0, 1))
    return torch.stack(frames)


def spoiled_batch(frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, list[str]]:
    """``frames``, each spoiled by a random amount in a random way (one in eight not at all), with the true scores."""
    severity = torch.rand(len(frames), generator=generator)
    severity[torch.rand(len(frames), generator=generator) < 0.125] = 0
    kinds = list(DEGRADATIONS)
    names = [kinds[i] for i in torch.randint(len(kinds), (len(frames),), generator=generator).tolist()]
    return degrade(frames, severity, names, generator), HIGHEST * (1 - severity), names


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation."""
    ranks = [values.argsort().argsort().double() for values in (one, other)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


@torch.no_grad()
def validate(model: SpriteAesthetic, frames: Tensor) -> dict[str, float]:
    """Rank correlation with the true score for each kind of degradation, and the mean score of untouched frames."""
    model.eval()
    found = {"validation/untouched": float(model(frames).mean())}
    for i, name in enumerate(DEGRADATIONS):
        generator = step_generator(1, i)
        severity = torch.rand(len(frames), generator=generator)
        scores = model(degrade(frames, severity, [name] * len(frames), generator))
        found[f"validation/{name}"] = rank_correlation(scores, 1 - severity)
    model.train()
    return found


def main(config: AestheticConfig) -> None:
    """Train, validate, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    set_seed(config.seed)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config_lines(config))
    pool, held_out = draw_frames("train", config.pool_frames), draw_frames("validation", config.validation_frames)
    model = SpriteAesthetic(config.width, config.levels)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, 20, config.steps))
    log, started = RunLog(folder), time.monotonic()
    for step in tqdm(range(config.steps), desc="aesthetic", mininterval=30):
        generator = step_generator(config.seed, step)
        frames = pool[torch.randint(len(pool), (config.batch_size,), generator=generator)]
        spoiled, wanted, _ = spoiled_batch(frames, generator)
        loss = torch.nn.functional.mse_loss(model(spoiled), wanted)
        require_finite(loss, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % config.log_every == 0:
            log.write(step, **{"loss/squared": loss.item(), "time/hours": (time.monotonic() - started) / 3600})
    found = validate(model, held_out)
    log.write(config.steps, **found)
    log.plot()
    logger.info("mean rank correlation %.3f", np.mean([found[f"validation/{name}"] for name in DEGRADATIONS]))
    model.save_pretrained(folder / "scorer")


if __name__ == "__main__":
    main(parse_config(AestheticConfig))
