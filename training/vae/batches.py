"""Batches of the VAE stage: crops of both worlds' clips and pictures, and control videos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ardrag.controls.heat import SPOT_COLOURS
from ardrag.worlds.photo_library import PhotoLibrary, default_library
from ardrag.worlds.photos import make_photo_clip
from ardrag.worlds.sprites import make_clip
from training.run.runtime import step_generator
from training.vae.config import VAEConfig
from training.vae.pictures import held_out_photos, sample_carried, sample_photos


SPOT_PIXELS = 0.0206 * 128
"""Radius of a heat spot (design: 0.0206 * sqrt(H * W)) in the 128 x 128 pictures that the crops are cut from."""


@dataclass
class Sources:
    """What batches are cut from: clips of both worlds (uint8 ``[N, 3, T, H, W]``) and the library of photographs."""

    sprites: Tensor
    library: PhotoLibrary | None
    photos: Tensor | None

    def pictures(self, count: int, frames: int, crop: int, generator: torch.Generator) -> Tensor:
        """Crops of Photo World: of photographs where a single frame is asked for, else of its clips."""
        assert self.library is not None
        if frames == 1 or self.photos is None:
            return sample_photos(self.library, count, crop, generator).expand(-1, -1, frames, -1, -1)
        return sample_pixels(self.photos, count, frames, crop, generator, permute=False)


def sprite_pool(split: str, count: int, num_frames: int) -> Tensor:
    """Sprite World clips as uint8 ``[N, 3, T, H, W]``."""
    clips = [make_clip(split, i, num_frames).frames for i in tqdm(range(count), desc=f"{split} clips")]
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).contiguous()


def photo_pool(split: str, count: int, num_frames: int) -> Tensor:
    """Photo World clips as uint8 ``[N, 3, T, H, W]``."""
    clips = [make_photo_clip(split, i, num_frames).frames for i in tqdm(range(count), desc=f"{split} photo clips")]
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).contiguous()


def open_sources(config: VAEConfig) -> Sources:
    """The clips and pictures that the configuration asks for."""
    sprites = sprite_pool("train", config.pool_clips, config.pool_frames)
    if not config.photo_share and not config.carried_share:
        return Sources(sprites, None, None)
    clips = photo_pool("train", config.photo_pool_clips, config.pool_frames) if config.photo_pool_clips else None
    return Sources(sprites, default_library(), clips)


@dataclass
class HeldOut:
    """What a VAE is validated on: clips of both worlds and photographs, uint8 ``[N, 3, T, H, W]``."""

    sprites: Tensor
    photo_clips: Tensor | None
    photos: Tensor | None

    def parts(self) -> dict[str, Tensor]:
        """By the names of their metrics."""
        named = {
            "validation": self.sprites,
            "validation_photo_clips": self.photo_clips,
            "validation_photos": self.photos,
        }
        return {name: part for name, part in named.items() if part is not None}

    def clips(self) -> Tensor:
        """Clips of both worlds, which decide the statistics of the latents."""
        return self.sprites if self.photo_clips is None else torch.cat([self.sprites, self.photo_clips])


def open_held_out(config: VAEConfig) -> HeldOut:
    """The clips and pictures to validate on; those of Photo World come from sources that training never sees."""
    sprites = sprite_pool("validation", config.held_out_clips, config.pool_frames)
    if not config.photo_share:
        return HeldOut(sprites, None, None)
    clips = photo_pool("test", config.held_out_clips, config.pool_frames)
    return HeldOut(sprites, clips, held_out_photos(default_library()))


def sample_pixels(
    pool: Tensor, count: int, frames: int, crop: int, generator: torch.Generator, permute: bool = True
) -> Tensor:
    """Random crops, mirrored and with permuted colours, ``[count, 3, frames, crop, crop]`` in [-1, 1]."""
    height, width = pool.shape[-2:]

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    crops = []
    for _ in range(count):
        top, left, first = draw(height - crop + 1), draw(width - crop + 1), draw(pool.shape[2] - frames + 1)
        part = pool[draw(len(pool)), :, first : first + frames, top : top + crop, left : left + crop]
        part = part[torch.randperm(3, generator=generator)] if permute else part
        part = part.flip(-1) if draw(2) else part
        part = part.transpose(-1, -2) if draw(2) else part
        crops.append(part)
    return torch.stack(crops).float() / 127.5 - 1


def sample_heatmaps(count: int, frames: int, crop: int, generator: torch.Generator) -> Tensor:
    """Heat of one to three points that drift through the crop, ``[count, 3, frames, crop, crop]`` in [-1, 1].

    Half of the rows are white, as the paper's, in the others each point has one of the colours of coloured tracks.
    """
    points, radius = 3, SPOT_PIXELS
    start = (torch.rand((count, 1, points, 2), generator=generator) * 1.2 - 0.1) * crop
    drift = torch.randn((count, 1, points, 2), generator=generator) * 2.5
    xy = start + drift * torch.arange(frames)[:, None, None]  # [count, frames, points, 2]
    force = torch.rand((count, 1, points, 1, 1), generator=generator) * 1.5 - 0.4
    squares = (xy[..., None] - (torch.arange(crop) + 0.5)).square()  # [count, frames, points, 2, crop]
    distance = squares[..., 1, :, None] + squares[..., 0, None, :]
    heat = force.clamp(0, 1) * torch.exp(-distance / (2 * radius**2))
    colours = torch.tensor(SPOT_COLOURS)[torch.randint(len(SPOT_COLOURS), (count, points), generator=generator)]
    colours[torch.rand(count, generator=generator) < 0.5] = 1
    shown = [(heat * colours[:, None, :, channel, None, None]).amax(2) for channel in range(3)]
    return torch.stack(shown, 1) * 2 - 1


def batch_counts(count: int, config: VAEConfig, generator: torch.Generator) -> list[int]:
    """How many rows of a batch are sprites, Photo World, heat maps and carried pieces."""
    controls = config.heatmap_share + config.carried_share
    worlds = 1 - controls
    shares = torch.tensor(
        [worlds * (1 - config.photo_share), worlds * config.photo_share, config.heatmap_share, config.carried_share]
    )
    return torch.multinomial(shares, count, True, generator=generator).bincount(minlength=4).tolist()


def training_batch(sources: Sources, config: VAEConfig, step: int, rank: int) -> tuple[Tensor, Tensor]:
    """Pixels and latent noise of one step."""
    generator = step_generator(config.seed, step, rank)
    single = step < config.clip_start
    frames, count = (1, config.batch_size) if single else (config.clip_frames, config.clip_batch_size)
    crop = config.crop
    sprites, photos, heat, carried = batch_counts(count, config, generator)
    parts = [sample_pixels(sources.sprites, sprites, frames, crop, generator)] if sprites else []
    parts += [sources.pictures(photos, frames, crop, generator)] if photos else []
    parts += [sample_heatmaps(heat, frames, crop, generator)] if heat else []
    parts += [sample_carried(sources.pictures(carried, 1, crop, generator), frames, generator)] if carried else []
    pixels = torch.cat(parts)
    side = crop // 8
    noise = torch.randn((count, config.z_dim, 1 + (frames - 1) // 4, side, side), generator=generator)
    return pixels, noise
