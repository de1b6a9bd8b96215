"""Train the network of outlines: from a picture and a brush to the mask of what is grabbed.

    python -m training.outlines.train --output_dir runs/outline

Photo World and Sprite World know who owns each pixel. Of a thing its mask is learnt, whatever the brush; of a place
beside all things the disc of the brush. The cut of pasted things is disguised (`training.outlines.changes`). What was
learnt is told as intersection over union with the true masks on the test pictures of Photo World, beside the disc's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from torch import Tensor
from tqdm import tqdm

from ardrag.controls.carried import Cutout
from ardrag.outlines.network import Outline, discs
from training.outlines.changes import coloured, disguised, turned
from training.outlines.things import Grab, Shown, grab_nothing, grab_thing, shown_photos, shown_sprites
from training.run.config import config_lines, parse_config
from training.run.optim import MuonAdamW, warmup_cosine
from training.run.runtime import RunLog, require_finite


logger = logging.getLogger(__name__)
USUAL = Cutout.radius
"""The brush of a track that has none."""


@dataclass
class OutlineConfig:
    """Configuration of the training."""

    output_dir: str = field(metadata={"help": "Run folder: log, curves and the network."})
    init_from: str = field(default="", metadata={"help": "Folder of a network to go on from; its widths are kept."})
    photos: int = field(default=5000, metadata={"help": "Pictures of Photo World to draw from."})
    sprites: int = field(default=1000, metadata={"help": "Pictures of Sprite World to draw from."})
    start: int = field(default=10000, metadata={"help": "First clip of each world."})
    validation_grabs: int = field(default=200, metadata={"help": "Grabs of test pictures of Photo World."})
    sprite_share: float = field(default=0.15, metadata={"help": "Share of grabs of Sprite World."})
    nothing_share: float = field(default=0.1, metadata={"help": "Share of grabs of photographs beside all things."})
    widths: list[int] = field(
        default_factory=lambda: [24, 48, 96, 128, 128], metadata={"help": "Channels at each halving, of 4."}
    )
    side: int = field(default=160, metadata={"help": "Side of the pictures that the network sees."})
    steps: int = field(default=7000, metadata={"help": "Training steps."})
    batch_size: int = field(default=16, metadata={"help": "Grabs per step."})
    muon_lr: float = field(default=0.02, metadata={"help": "Muon."})
    adamw_lr: float = field(default=0.004, metadata={"help": "AdamW, of the rest."})
    seed: int = field(default=0, metadata={"help": "Seed of everything."})
    log_every: int = field(default=20, metadata={"help": "Steps between log rows."})
    save_every: int = field(default=100, metadata={"help": "Steps between measures and copies of the network."})


class Batch(NamedTuple):
    """Grabs: what `Outline` takes, the masks ``[N, H, W]`` to give, and which are of things, ``[N]``."""

    pictures: Tensor
    xy: Tensor
    brushes: Tensor
    masks: Tensor
    things: Tensor


def draw_brush(rng: np.random.Generator) -> float:
    """The brush of a track that has none, one of Photo World's, or another that a person might take."""
    kind = rng.random()
    if kind < 0.5:
        return USUAL
    return float(rng.uniform(0.07, 0.18) if kind < 0.85 else rng.uniform(0.05, 0.3))


def draw_grab(pool: Sequence[Shown], nothing_share: float, rng: np.random.Generator) -> tuple[Shown, Grab]:
    """A picture and what is grabbed in it."""
    while True:
        shown = pool[int(rng.integers(len(pool)))]
        grab = (grab_nothing if rng.random() < nothing_share else grab_thing)(shown, rng)
        if grab is not None:
            return shown, grab


def draw_sample(
    config: OutlineConfig, photos: Sequence[Shown], sprites: Sequence[Shown], rng: np.random.Generator
) -> tuple[np.ndarray, Grab]:
    """A changed picture and what is grabbed in it."""
    plain = not photos or rng.random() < config.sprite_share
    shown, grab = draw_grab(sprites, 0, rng) if plain else draw_grab(photos, config.nothing_share, rng)
    other = (photos or sprites)[int(rng.integers(len(photos or sprites)))]
    picture, grab = turned(disguised(shown, grab, other if not plain else shown, rng), grab, rng)
    return coloured(picture, rng), grab


def stack(
    samples: Sequence[tuple[np.ndarray, Grab]], brought: Callable[[Tensor], Tensor], rng: np.random.Generator
) -> Batch:
    """Samples with brushes of their own as a batch in the network's size (`Outline.brought`).

    Beside things the disc is what is to be given.
    """
    whole = torch.from_numpy(np.stack([picture for picture, _ in samples])).permute(0, 3, 1, 2).float() / 127.5 - 1
    extent = np.array([whole.shape[3], whole.shape[2]], np.float32)
    xy = torch.from_numpy(np.stack([grab.xy for _, grab in samples]) / extent)
    brushes, pictures = torch.tensor([draw_brush(rng) for _ in samples]), brought(whole)
    masks = discs(pictures, xy, brushes)
    things = torch.tensor([grab.mask is not None for _, grab in samples])
    for number, (_, grab) in enumerate(samples):
        if grab.mask is not None:
            masks[number] = brought(torch.from_numpy(grab.mask)[None, None])[0, 0]
    return Batch(pictures, xy, brushes, masks, things)


def loss_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross entropy, and dice, which does not mind how large a thing is."""
    guess = logits.sigmoid()
    common, both = (guess * masks).sum((1, 2)), guess.sum((1, 2)) + masks.sum((1, 2))
    dice = 1 - (2 * common + 1) / (both + 1)
    return 2 * F.binary_cross_entropy_with_logits(logits, masks) + dice.mean()


def overlap(guess: Tensor, masks: Tensor) -> float:
    """Mean intersection over union of ``[N, H, W]`` in 0..1."""
    guess, masks = guess > 0.5, masks > 0.5
    return float(((guess & masks).sum((1, 2)) / (guess | masks).sum((1, 2)).clamp(min=1)).mean())


@torch.no_grad()
def validate(model: Outline, batch: Batch) -> dict[str, float]:
    """Overlap with the true masks of things, also of the disc, and how far off the disc the rest is."""
    parts = zip(*(part.split(16) for part in batch[:3]), strict=True)
    guess = torch.cat([model(*part).sigmoid() for part in parts])
    things, rest = batch.things, ~batch.things
    return {
        "validation/overlap": overlap(guess[things], batch.masks[things]),
        "validation/overlap_of_the_disc": overlap(discs(*batch[:3])[things], batch.masks[things]),
        "validation/off_beside_things": float((guess - batch.masks)[rest].abs().mean()),
    }


def held_out(config: OutlineConfig, brought: Callable[[Tensor], Tensor]) -> Batch:
    """Grabs of test pictures, unchanged."""
    rng = np.random.default_rng(config.seed)
    pool = list(shown_photos("test", 100, max(config.validation_grabs, 1)))
    drawn = [draw_grab(pool, config.nothing_share, rng) for _ in range(config.validation_grabs)]
    return stack([(shown.picture, grab) for shown, grab in drawn], brought, rng)


def main(config: OutlineConfig) -> None:
    """Train, validate, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    set_seed(config.seed)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config_lines(config))
    photos = list(shown_photos("train", config.start, config.photos))
    sprites = list(shown_sprites("train", config.start, config.sprites))
    model = (
        Outline.from_pretrained(config.init_from, side=config.side)
        if config.init_from
        else Outline(config.widths, config.side)
    )
    test = held_out(config, model.brought)
    optimizer = MuonAdamW(model.named_parameters(), config.muon_lr, config.adamw_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, 20, config.steps))
    log, started = RunLog(folder), time.monotonic()
    for step in tqdm(range(config.steps), desc="outline", mininterval=10):
        rng = np.random.default_rng([config.seed, step])
        samples = [draw_sample(config, photos, sprites, rng) for _ in range(config.batch_size)]
        batch = stack(samples, model.brought, rng)
        loss = loss_of(model(*batch[:3]), batch.masks)
        require_finite(loss, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % config.log_every == 0:
            log.write(step, **{"loss/outline": loss.item(), "time/hours": (time.monotonic() - started) / 3600})
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            log.write(step, **validate(model, test))
            model.save_pretrained(folder / "outline")
    log.plot()


if __name__ == "__main__":
    main(parse_config(OutlineConfig))
