"""Train the tiny causal video VAE of `ardrag-tiny` on Sprite World frames and on heat maps.

The layout is diffusers' residual `AutoencoderKLWan` (8x8 pixels and 4 pixel frames per latent, as Wan's). Steps before
``clip_start`` see single frames, later ones short clips, so that the temporal layers start from good spatial ones. A
share of every batch is heat maps, because the motion control goes through the same encoder (AR-Drag Eq. 6).

    python -m training.train_vae training/configs/vae_tiny.yaml --output_dir runs/vae
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import AutoencoderKLWan
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ardrag.streaming_vae import fold_causal_convs
from ardrag.worlds.sprites import make_clip
from pipelines.video import to_frames
from training.run.config import config_lines, parse_config
from training.run.hub import HubConfig, push_run, start_on_hub
from training.run.optim import MuonAdamW, warmup_cosine
from training.run.runtime import (
    RunLog,
    contact_sheet,
    load_state,
    require_finite,
    save_state,
    step_generator,
)


logger = logging.getLogger(__name__)
SPOT_PIXELS = 0.0206 * 128
"""Radius of a heat spot (design: 0.0206 * sqrt(H * W)) in the 128 x 128 pictures that the crops are cut from."""


@dataclass
class VAEConfig(HubConfig):
    """Configuration of the VAE stage."""

    output_dir: str = field(metadata={"help": "Run folder: state, log, curves, contact sheets and the trained VAE."})
    base_dim: int = field(default=24, metadata={"help": "Encoder width."})
    decoder_base_dim: int = field(default=24, metadata={"help": "Decoder width."})
    z_dim: int = field(default=16, metadata={"help": "Latent channels."})
    steps: int = field(default=4000, metadata={"help": "Training steps."})
    clip_start: int = field(default=1500, metadata={"help": "First step that sees clips instead of single frames."})
    batch_size: int = field(default=16, metadata={"help": "Crops per single-frame step."})
    clip_batch_size: int = field(default=4, metadata={"help": "Crops per clip step."})
    clip_frames: int = field(default=5, metadata={"help": "Pixel frames of a clip crop, 4k + 1."})
    crop: int = field(default=64, metadata={"help": "Side of a crop, pixels."})
    heatmap_share: float = field(default=0.2, metadata={"help": "Share of heat maps in a batch."})
    pool_clips: int = field(default=1200, metadata={"help": "Sprite World clips held in memory."})
    pool_frames: int = field(default=17, metadata={"help": "Pixel frames per pooled clip, 4k + 1."})
    muon_lr: float = field(default=0.02, metadata={"help": "Learning rate of matrices and convolutions."})
    adamw_lr: float = field(default=2e-3, metadata={"help": "Learning rate of everything else."})
    warmup: int = field(default=30, metadata={"help": "Warm-up steps."})
    latent_noise: float = field(default=0.04, metadata={"help": "Noise added to the latent while training."})
    latent_penalty: float = field(default=1e-3, metadata={"help": "Weight of the mean squared latent."})
    ema_decay: float = field(default=0.995, metadata={"help": "Decay of the averaged weights."})
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the decoder only."})
    init_from: str = field(default="", metadata={"help": "Folder of a VAE to start from instead of random weights."})
    seed: int = field(default=0, metadata={"help": "Seed of data order, crops and noise."})
    log_every: int = field(default=20, metadata={"help": "Steps between log rows."})
    save_every: int = field(default=200, metadata={"help": "Steps between saved states and validations."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_frames % 4 != 1 or self.pool_frames % 4 != 1 or self.clip_frames > self.pool_frames:
            raise ValueError("clip_frames and pool_frames: both must be 4k + 1 and clip_frames the smaller of the two")
        if not 0 <= self.heatmap_share < 1:
            raise ValueError(f"heatmap_share: {self.heatmap_share} is outside [0, 1)")


def build_vae(config: VAEConfig) -> AutoencoderKLWan:
    """A new tiny VAE, or the one in ``config.init_from``."""
    if config.init_from:
        return AutoencoderKLWan.from_pretrained(config.init_from)
    patch = 2
    return AutoencoderKLWan(
        is_residual=True,
        patch_size=patch,
        in_channels=3 * patch**2,
        out_channels=3 * patch**2,
        base_dim=config.base_dim,
        decoder_base_dim=config.decoder_base_dim,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        z_dim=config.z_dim,
        latents_mean=[0.0] * config.z_dim,
        latents_std=[1.0] * config.z_dim,
    )


def sprite_pool(split: str, count: int, num_frames: int) -> Tensor:
    """Sprite World clips as uint8 ``[N, 3, T, H, W]``."""
    clips = [make_clip(split, i, num_frames).frames for i in tqdm(range(count), desc=f"{split} clips")]
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).contiguous()


def sample_pixels(pool: Tensor, count: int, frames: int, crop: int, generator: torch.Generator) -> Tensor:
    """Random crops, mirrored and with permuted colours, ``[count, 3, frames, crop, crop]`` in [-1, 1]."""
    height, width = pool.shape[-2:]

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    crops = []
    for _ in range(count):
        top, left, first = draw(height - crop + 1), draw(width - crop + 1), draw(pool.shape[2] - frames + 1)
        part = pool[draw(len(pool)), :, first : first + frames, top : top + crop, left : left + crop]
        part = part[torch.randperm(3, generator=generator)]
        part = part.flip(-1) if draw(2) else part
        part = part.transpose(-1, -2) if draw(2) else part
        crops.append(part)
    return torch.stack(crops).float() / 127.5 - 1


def sample_heatmaps(count: int, frames: int, crop: int, generator: torch.Generator) -> Tensor:
    """Heat maps of one to three points that drift through the crop, ``[count, 3, frames, crop, crop]`` in [-1, 1]."""
    points, radius = 3, SPOT_PIXELS
    start = (torch.rand((count, 1, points, 2), generator=generator) * 1.2 - 0.1) * crop
    drift = torch.randn((count, 1, points, 2), generator=generator) * 2.5
    xy = start + drift * torch.arange(frames)[:, None, None]  # [count, frames, points, 2]
    force = torch.rand((count, 1, points, 1, 1), generator=generator) * 1.5 - 0.4
    squares = (xy[..., None] - (torch.arange(crop) + 0.5)).square()  # [count, frames, points, 2, crop]
    distance = squares[..., 1, :, None] + squares[..., 0, None, :]
    heat = (force.clamp(0, 1) * torch.exp(-distance / (2 * radius**2))).amax(2)
    return (heat * 2 - 1)[:, None].expand(-1, 3, -1, -1, -1)


def vae_loss(
    vae: AutoencoderKLWan, pixels: Tensor, noise: Tensor, config: VAEConfig
) -> tuple[Tensor, dict[str, float]]:
    """Reconstruction loss through a slightly noised latent; returns ``(loss, metrics)``.

    ``noise`` is standard normal of the latent's shape. Squared error decides PSNR; a little absolute error keeps
    edges; the latent's mean square is held near one so that the noise means something.
    """
    mean = vae.encode(pixels).latent_dist.mean
    latent = mean + config.latent_noise * noise
    decoded = vae.decode(latent).sample
    squared = F.mse_loss(decoded, pixels)
    penalty = mean.square().mean()
    loss = squared + 0.05 * F.l1_loss(decoded, pixels) + config.latent_penalty * penalty
    psnr = -10 * torch.log10(squared / 4)
    return loss, {"loss/total": loss.item(), "psnr/train": psnr.item(), "latent/mean_square": penalty.item()}


@torch.no_grad()
def validate(vae: AutoencoderKLWan, clips: Tensor) -> tuple[float, float, Tensor]:
    """PSNR in dB of clips and of single frames (uint8 ``[N, 3, T, H, W]``), and the reconstructed clips."""
    pixels = clips.float() / 127.5 - 1
    decoded = torch.cat([vae.decode(vae.encode(clip[None]).latent_dist.mean).sample for clip in pixels])
    error = (decoded - pixels).square().mean((1, 3, 4)) / 4  # [N, T], signals of range 1
    return float(-10 * error.mean(1).log10().mean()), float(-10 * error[:, 0].log10().mean()), decoded


@torch.no_grad()
def latent_statistics(vae: AutoencoderKLWan, clips: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every latent channel over ``clips`` (uint8 ``[N, 3, T, H, W]``)."""
    means = torch.cat([vae.encode(clip[None].float() / 127.5 - 1).latent_dist.mean for clip in clips])
    return means.mean((0, 2, 3, 4)).tolist(), means.std((0, 2, 3, 4)).tolist()


def training_batch(pool: Tensor, config: VAEConfig, step: int, rank: int) -> tuple[Tensor, Tensor]:
    """Pixels and latent noise of one step."""
    generator = step_generator(config.seed, step, rank)
    single = step < config.clip_start
    frames, count = (1, config.batch_size) if single else (config.clip_frames, config.clip_batch_size)
    heat = int(torch.binomial(torch.tensor(float(count)), torch.tensor(config.heatmap_share), generator=generator))
    parts = [sample_pixels(pool, count - heat, frames, config.crop, generator)] if heat < count else []
    parts += [sample_heatmaps(heat, frames, config.crop, generator)] if heat else []
    pixels = torch.cat(parts)
    side = config.crop // 8
    noise = torch.randn((count, config.z_dim, 1 + (frames - 1) // 4, side, side), generator=generator)
    return pixels, noise


def export(vae: AutoencoderKLWan, ema: EMAModel, clips: Tensor, config: VAEConfig, log: RunLog, step: int) -> None:
    """Validate the averaged weights, write them with their latent statistics, a contact sheet and the curves."""
    folder = Path(config.output_dir)
    ema.store(vae.parameters())
    ema.copy_to(vae.parameters())
    vae.eval()
    clip_psnr, frame_psnr, decoded = validate(vae, clips)
    mean, std = latent_statistics(vae, clips)
    vae.register_to_config(latents_mean=mean, latents_std=std)
    vae.save_pretrained(folder / "vae")
    vae.train()
    ema.restore(vae.parameters())
    log.write(step, **{"psnr/validation": clip_psnr, "psnr/validation_first_frame": frame_psnr})
    truth, result = clips[:4].movedim(1, -1).cpu().numpy(), to_frames(decoded[:4])
    contact_sheet([row for pair in zip(truth, result, strict=True) for row in pair], folder / "contact_sheet.png")
    log.plot()


def main(config: VAEConfig) -> None:
    """Train, validate and export; running the same command again resumes where the last state was saved."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    set_seed(config.seed)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config_lines(config))
    start_on_hub(config, accelerator, folder)
    vae = build_vae(config)
    if accelerator.device.type == "cpu":
        fold_causal_convs(vae)
    if config.freeze_encoder:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    optimizer = MuonAdamW(vae.named_parameters(), config.muon_lr, config.adamw_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, config.warmup, config.steps))
    ema = EMAModel(vae.parameters(), decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    vae, optimizer, schedule = accelerator.prepare(vae, optimizer, schedule)
    ema.to(accelerator.device)
    accelerator.register_for_checkpointing(ema)
    first = load_state(accelerator, folder)
    log = RunLog(folder, first)
    pool = sprite_pool("train", config.pool_clips, config.pool_frames)
    held_out = sprite_pool("validation", 16, config.pool_frames)
    started = time.monotonic()
    for step in tqdm(range(first, config.steps), initial=first, total=config.steps, desc="vae", mininterval=30):
        pixels, noise = training_batch(pool, config, step, accelerator.process_index)
        model = accelerator.unwrap_model(vae)
        loss, metrics = vae_loss(model, pixels.to(accelerator.device), noise.to(accelerator.device), config)
        require_finite(loss, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ema.step(model.parameters())
        if step % config.log_every == 0 and accelerator.is_main_process:
            log.write(step, **metrics, **{"time/hours": (time.monotonic() - started) / 3600})
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save_state(accelerator, folder, step + 1)
            if accelerator.is_main_process:
                export(model, ema, held_out.to(accelerator.device), config, log, step)
                if step + 1 < config.steps:
                    push_run(config, folder, "training.train_vae", step + 1)
    if accelerator.is_main_process:
        push_run(config, folder, "training.train_vae", config.steps)


if __name__ == "__main__":
    main(parse_config(VAEConfig))
