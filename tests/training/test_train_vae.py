"""The VAE stage on a tiny model by its own command: interrupted and resumed to the same bits; what is exported."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file

from training import train_vae
from training.run.runtime import RunLog
from training.train_vae import main, vae_loss
from training.vae import batches
from training.vae.config import VAEConfig


SMALL = {"base_dim": 8, "decoder_base_dim": 8, "z_dim": 4, "steps": 4, "clip_start": 2, "batch_size": 2}
SMALL |= {"clip_batch_size": 2, "clip_frames": 5, "pool_frames": 5, "crop": 16, "pool_clips": 2, "warmup": 1}
SMALL |= {"log_every": 1, "save_every": 2, "heatmap_share": 0.4}


@pytest.fixture
def configure(tmp_path, monkeypatch):
    """Small pictures instead of those of both worlds."""

    def pool(split, count, num_frames):
        generator = torch.Generator().manual_seed(len(split))
        low = torch.rand((min(count, 2), 3, num_frames, 4, 4), generator=generator).mul(255).byte()
        return low.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)

    monkeypatch.setattr(batches, "sprite_pool", pool)
    monkeypatch.setattr(batches, "photo_pool", pool)
    return lambda name="run", **changes: VAEConfig(output_dir=str(tmp_path / name), **{**SMALL, **changes})


def weights_of(config, folder="vae"):
    (path,) = (Path(config.output_dir) / folder).glob("*.safetensors")
    return load_file(path)


def timeless(row):
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_interrupted_and_resumed_is_the_same_run(configure, monkeypatch, state_of):
    whole, parts = configure("whole"), configure("parts")
    main(whole)
    with monkeypatch.context() as patch:
        patch.setattr(
            train_vae, "require_finite", lambda _, step: (_ for _ in ()).throw(OSError) if step == 3 else None
        )
        with pytest.raises(OSError):
            main(parts)
    main(parts)
    assert same(weights_of(whole), weights_of(parts)) and same(state_of(whole)[0], state_of(parts)[0])
    configs = [AutoencoderKLWan.load_config(Path(config.output_dir) / "vae") for config in (whole, parts)]
    assert configs[0]["latents_mean"] == configs[1]["latents_mean"] != [0.0] * 4
    rows = [RunLog(Path(config.output_dir), 99).rows() for config in (whole, parts)]
    for one, other in zip(*rows, strict=True):
        assert timeless(one) == timeless(other)


def test_another_width_is_refused(configure, refuses_another):
    refuses_another(main, configure(steps=1), configure(steps=1, base_dim=4), "base_dim was 8, is 4")


def test_an_export_that_was_cut_off_is_made_again(configure, mends_its_export):
    mends_its_export(main, configure("whole"), configure("killed"), "vae")


def test_what_is_exported(configure):
    config = configure(steps=2)
    main(config)
    names = {"config.yaml", "log.jsonl", "curves.png", "contact_sheet.png", "state", "vae", "exported.json"}
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
    clips = batches.sprite_pool("train", 2, 5)
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


def test_the_first_frame_can_weigh_more(configure):
    """Weights of mean one: of five frames the first counts 3 of 7 instead of 1 of 5."""
    config, weighted = (configure(latent_noise=0.0, first_frame_weight=weight) for weight in (1.0, 3.0))
    vae = train_vae.build_vae(config)
    pixels, noise = torch.zeros(1, 3, 5, 16, 16), torch.zeros(1, 4, 2, 2, 2)
    difference = (vae.decode(vae.encode(pixels).latent_dist.mean).sample - pixels).square().mean((0, 1, 3, 4))
    share = difference[0] / difference.sum()
    plain, more = (vae_loss(vae, pixels, noise, c)[1]["psnr/train"] for c in (config, weighted))
    expected = (1 + 2 * share) * 5 / 7
    assert 10 ** ((plain - more) / 10) == pytest.approx(expected.item(), rel=1e-3)


def test_both_worlds_are_trained_on_and_validated(configure, picture_folder, monkeypatch):
    monkeypatch.setenv("ARDRAG_PHOTOS", picture_folder)
    config = configure(steps=3, photo_share=0.5, carried_share=0.3, photo_pool_clips=2, held_out_clips=1)
    main(config)
    last = RunLog(Path(config.output_dir), 99).rows()[-1]
    assert last.keys() >= {"psnr/validation", "psnr/validation_photo_clips", "psnr/validation_photos"}
    sheets = {path.name for path in Path(config.output_dir).glob("contact_sheet*")}
    assert sheets == {"contact_sheet.png", "contact_sheet_photo_clips.png", "contact_sheet_photos.png"}


def test_every_save_is_pushed(configure, monkeypatch):
    pushed = []
    monkeypatch.setattr(train_vae, "start_on_hub", lambda *arguments: None)
    monkeypatch.setattr(train_vae, "push_run", lambda accelerator, config, stage, step: pushed.append((stage, step)))
    main(configure(steps=4, save_every=2))
    assert pushed == [("training.train_vae", 2), ("training.train_vae", 4)]
