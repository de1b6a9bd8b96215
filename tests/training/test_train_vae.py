"""The VAE stage on a tiny model by its own command: interrupted and resumed to the same bits; crops and heat maps."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file

from ardrag.tracks.tracks import rasterize
from training import train_vae
from training.run.runtime import RunLog
from training.train_vae import SPOT_PIXELS, VAEConfig, main, sample_heatmaps, sample_pixels, training_batch, vae_loss


SMALL = {"base_dim": 8, "decoder_base_dim": 8, "z_dim": 4, "steps": 4, "clip_start": 2, "batch_size": 2}
SMALL |= {"clip_batch_size": 2, "clip_frames": 5, "pool_frames": 5, "crop": 16, "pool_clips": 2, "warmup": 1}
SMALL |= {"log_every": 1, "save_every": 2, "heatmap_share": 0.4}


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Small pictures instead of Sprite World's."""

    def pool(split, count, num_frames):
        generator = torch.Generator().manual_seed(len(split))
        low = torch.rand((min(count, 2), 3, num_frames, 4, 4), generator=generator).mul(255).byte()
        return low.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)

    monkeypatch.setattr(train_vae, "sprite_pool", pool)
    return lambda name="run", **changes: VAEConfig(output_dir=str(tmp_path / name), **{**SMALL, **changes})


def weights_of(config, folder="vae"):
    (path,) = (Path(config.output_dir) / folder).glob("*.safetensors")
    return load_file(path)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_interrupted_and_resumed_is_the_same_run(configure, monkeypatch):
    whole, parts = configure("whole"), configure("parts")
    main(whole)
    with monkeypatch.context() as patch:
        patch.setattr(
            train_vae, "require_finite", lambda _, step: (_ for _ in ()).throw(OSError) if step == 3 else None
        )
        with pytest.raises(OSError):
            main(parts)
    main(parts)
    for folder in ("vae", "state"):
        assert same(weights_of(whole, folder), weights_of(parts, folder)), folder
    configs = [AutoencoderKLWan.load_config(Path(config.output_dir) / "vae") for config in (whole, parts)]
    assert configs[0]["latents_mean"] == configs[1]["latents_mean"] != [0.0] * 4
    rows = [RunLog(Path(config.output_dir), 99).rows() for config in (whole, parts)]
    for one, other in zip(*rows, strict=True):
        assert {**one, "time/hours": 0} == {**other, "time/hours": 0}


def test_what_is_exported(configure):
    config = configure(steps=2)
    main(config)
    names = {"config.yaml", "log.jsonl", "curves.png", "contact_sheet.png", "state", "vae"}
    assert {path.name for path in Path(config.output_dir).iterdir()} == names
    vae = AutoencoderKLWan.from_pretrained(Path(config.output_dir) / "vae")
    assert min(vae.config.latents_std) > 0 and len(vae.config.latents_std) == 4
    assert RunLog(Path(config.output_dir), 99).rows()[-1].keys() >= {"psnr/validation", "psnr/validation_first_frame"}


def test_a_frozen_encoder_stays(configure):
    first = configure("first", steps=1)
    main(first)
    second = configure("second", steps=2, init_from=f"{first.output_dir}/vae", freeze_encoder=True)
    main(second)
    before, after = weights_of(first), weights_of(second)
    frozen = [name for name in before if name.startswith(("encoder.", "quant_conv."))]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert not same(before, after)


def test_statistics_make_latents_standard(configure):
    config = configure()
    vae = train_vae.build_vae(config).eval()
    clips = train_vae.sprite_pool("train", 2, 5)
    mean, std = train_vae.latent_statistics(vae, clips)
    with torch.no_grad():
        latents = torch.cat([vae.encode(clip[None].float() / 127.5 - 1).latent_dist.mean for clip in clips])
    scaled = (latents - torch.tensor(mean).view(1, -1, 1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1, 1)
    assert scaled.mean((0, 2, 3, 4)).abs().max() < 1e-4 and (scaled.std((0, 2, 3, 4)) - 1).abs().max() < 1e-4


def test_validation_psnr_is_its_formula(configure, monkeypatch):
    class Off(torch.nn.Module):
        """Reconstructs everything 0.2 (of a range of 2) too bright."""

        def encode(self, pixels):
            distribution = type("D", (), {"mean": pixels})
            return type("E", (), {"latent_dist": distribution})

        def decode(self, latent):
            return type("O", (), {"sample": latent + 0.2})

    clip, frame, decoded = train_vae.validate(Off(), torch.zeros(2, 3, 5, 8, 8, dtype=torch.uint8))
    assert (clip, frame) == (pytest.approx(20, abs=1e-4), pytest.approx(20, abs=1e-4))
    assert decoded.shape == (2, 3, 5, 8, 8)


def test_loss_is_its_formula(configure):
    config = configure(latent_noise=0.0)
    vae = train_vae.build_vae(config)
    pixels = torch.rand(1, 3, 1, 16, 16) * 2 - 1
    mean = vae.encode(pixels).latent_dist.mean
    difference = vae.decode(mean).sample - pixels
    loss, metrics = vae_loss(vae, pixels, torch.randn(1, 4, 1, 2, 2), config)
    expected = difference.square().mean() + 0.05 * difference.abs().mean() + 1e-3 * mean.square().mean()
    torch.testing.assert_close(loss, expected)
    assert metrics["latent/mean_square"] == pytest.approx(mean.square().mean().item(), rel=1e-4)


def test_heatmaps_are_those_of_the_tracks():
    """One spot, drawn by the project's own rasteriser, has the same shape and size."""
    heat = sample_heatmaps(40, 5, 64, torch.Generator().manual_seed(0))
    assert heat.shape == (40, 3, 5, 64, 64) and heat.min() >= -1 and heat.max() <= 1
    assert torch.equal(heat[:, 0], heat[:, 1]) and torch.equal(heat[:, 0], heat[:, 2])
    axis = torch.arange(128) + 0.5
    spot = torch.exp(-((axis[:, None] - 60) ** 2 + (axis[None] - 70) ** 2) / (2 * SPOT_PIXELS**2))
    ours = rasterize(torch.tensor([[[70 / 128, 60 / 128]]]), torch.tensor([[True]]), torch.ones(1, 1), 128, 128)[0]
    torch.testing.assert_close(ours, spot, rtol=0, atol=1e-5)


def test_crops_come_from_the_pool():
    pool = torch.arange(2 * 3 * 9 * 6 * 6).reshape(2, 3, 9, 6, 6).remainder(251).byte()
    crops = sample_pixels(pool, 30, 5, 4, torch.Generator().manual_seed(0))
    assert crops.shape == (30, 3, 5, 4, 4) and crops.min() >= -1 and crops.max() <= 1
    values = set(((crops + 1) * 127.5).round().int().flatten().tolist())
    assert values <= set(pool.int().flatten().tolist())


def test_batches_depend_on_seed_step_and_rank(configure):
    config = configure()
    pool = train_vae.sprite_pool("train", 2, 5)
    for step, frames, latents in ((0, 1, 1), (2, 5, 2)):
        pixels, noise = training_batch(pool, config, step, 0)
        assert pixels.shape == (2, 3, frames, 16, 16) and noise.shape == (2, 4, latents, 2, 2)
        again = training_batch(pool, config, step, 0)
        assert torch.equal(pixels, again[0]) and torch.equal(noise, again[1])
        assert not torch.equal(noise, training_batch(pool, config, step, 1)[1])


def test_every_save_is_pushed(configure, monkeypatch):
    pushed = []
    monkeypatch.setattr(train_vae, "start_on_hub", lambda *arguments: None)
    monkeypatch.setattr(train_vae, "push_run", lambda config, folder, stage, step: pushed.append((stage, step)))
    main(configure(steps=4, save_every=2))
    assert pushed == [("training.train_vae", 2), ("training.train_vae", 4)]
