"""Train the tiny causal video VAE of `ardrag-tiny` on both worlds and on control videos.

The layout is diffusers' residual `AutoencoderKLWan` (8x8 pixels and 4 pixel frames per latent, as Wan's). Steps before
``clip_start`` see single frames, later ones short clips, so that the temporal layers start from good spatial ones. A
share of every batch is control videos (heat maps, carried pieces), because the motion control goes through the same
encoder (AR-Drag Eq. 6). With ``photo_share`` photographs come from the library that ``ARDRAG_PHOTOS`` names.

    python -m training.train_vae training/configs/vae_tiny.yaml --output_dir runs/vae
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import AutoencoderKLWan
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from ardrag.saving import save_model
from ardrag.streaming_vae import fold_causal_convs
from pipelines.video import to_frames
from training.run.checkpoint import RunState
from training.run.config import parse_config
from training.run.hub import push_run, start_on_hub
from training.run.optim import MuonAdamW, warmup_cosine
from training.run.runtime import (
    RunLog,
    averaged,
    contact_sheet,
    exported_step,
    mark_exported,
    require_finite,
    start_log,
    swapped_folder,
)
from training.vae.batches import HeldOut, open_held_out, open_sources, training_batch
from training.vae.config import VAEConfig
from training.vae.inflate import inflate


logger = logging.getLogger(__name__)


def build_vae(config: VAEConfig) -> AutoencoderKLWan:
    """A new tiny VAE, or the one in ``config.init_from``."""
    if config.init_from:
        vae = AutoencoderKLWan.from_pretrained(config.init_from)
        return inflate(vae) if config.inflate else vae
    patch = 2
    return AutoencoderKLWan(
        is_residual=True,
        patch_size=patch,
        in_channels=3 * patch**2,
        out_channels=3 * patch**2,
        base_dim=config.base_dim,
        decoder_base_dim=config.decoder_base_dim,
        dim_mult=config.dim_mult,
        num_res_blocks=1,
        temperal_downsample=[True, True],
        z_dim=config.z_dim,
        latents_mean=[0.0] * config.z_dim,
        latents_std=[1.0] * config.z_dim,
    )


def vae_loss(
    vae: AutoencoderKLWan, pixels: Tensor, noise: Tensor, config: VAEConfig
) -> tuple[Tensor, dict[str, float]]:
    """Reconstruction loss through a slightly noised latent; returns ``(loss, metrics)``.

    ``noise`` is standard normal of the latent's shape. Squared error decides PSNR; a little absolute error keeps
    edges; the latent's mean square is held near one so that the noise means something.
    """
    mean = vae.encode(pixels).latent_dist.mean
    latent = mean + config.latent_noise * noise
    difference = vae.decode(latent).sample - pixels
    weights = torch.ones(pixels.shape[2])
    weights[0] = config.first_frame_weight
    weights = (weights / weights.mean()).to(pixels)[:, None, None]
    squared = (weights * difference.square()).mean()
    penalty = mean.square().mean()
    loss = squared + 0.05 * (weights * difference.abs()).mean() + config.latent_penalty * penalty
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


def export(vae: AutoencoderKLWan, ema: EMAModel, held_out: HeldOut, folder: Path, log: RunLog, step: int) -> None:
    """Validate the averaged weights, write them with their latent statistics, contact sheets and the curves."""
    vae.eval()
    metrics = {}
    with averaged(ema, [p for p in vae.parameters() if p.requires_grad]), swapped_folder(folder / "vae") as target:
        for name, clips in held_out.parts().items():
            clip_psnr, frame_psnr, decoded = validate(vae, clips.to(vae.device))
            metrics |= {f"psnr/{name}": clip_psnr, f"psnr/{name}_first_frame": frame_psnr}
            truth, result = clips[:8].movedim(1, -1).numpy(), to_frames(decoded[:8])
            sheet = [row for pair in zip(truth, result, strict=True) for row in pair]
            contact_sheet(sheet, folder / f"contact_sheet{name.removeprefix('validation')}.png")
        mean, std = latent_statistics(vae, held_out.clips().to(vae.device))
        vae.register_to_config(latents_mean=mean, latents_std=std)
        save_model(vae, target)
    vae.train()
    log.write(step, **metrics)
    mark_exported(folder, step + 1)
    log.plot()


def main(config: VAEConfig) -> None:
    """Train, validate and export; running the same command again resumes where the last state was saved."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    set_seed(config.seed)
    folder = Path(config.output_dir)
    start_on_hub(config, accelerator, folder)
    vae = build_vae(config)
    if accelerator.device.type == "cpu":
        fold_causal_convs(vae)
    if config.freeze_encoder:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    optimizer = MuonAdamW(vae.named_parameters(), config.muon_lr, config.adamw_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: warmup_cosine(s, config.warmup, config.steps))
    vae.to(accelerator.device)
    trained = [p for p in vae.parameters() if p.requires_grad]
    ema = EMAModel(trained, decay=config.ema_decay, use_ema_warmup=True, power=0.75)
    state = RunState(accelerator, config, {"vae": vae}, {"vae": optimizer}, ema, [schedule])
    vae, optimizer, schedule = accelerator.prepare(vae, optimizer, schedule)
    model = accelerator.unwrap_model(vae)
    first = state.load()
    log = start_log(accelerator, config, first)
    sources = open_sources(config)
    held_out = open_held_out(config)
    started = time.monotonic()
    for step in tqdm(range(first, config.steps), initial=first, total=config.steps, desc="vae", mininterval=30):
        pixels, noise = training_batch(sources, config, step, accelerator.process_index)
        loss, metrics = vae_loss(model, pixels.to(accelerator.device), noise.to(accelerator.device), config)
        require_finite(loss, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ema.step(trained)
        if step % config.log_every == 0 and accelerator.is_main_process:
            log.write(step, **metrics, **{"time/hours": (time.monotonic() - started) / 3600})
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            state.save(step + 1)
            if step + 1 < config.steps and accelerator.is_main_process:
                export(model, ema, held_out, folder, log, step)
                push_run(accelerator, config, "training.train_vae", step + 1)
    if accelerator.is_main_process:
        last = max(first, config.steps)
        if exported_step(folder) != last:
            export(model, ema, held_out, folder, log, last - 1)
        push_run(accelerator, config, "training.train_vae", config.steps)


if __name__ == "__main__":
    main(parse_config(VAEConfig))
