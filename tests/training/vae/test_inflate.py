"""An inflated VAE treats every later frame as a frame on its own."""

import torch

from ardrag.streaming_vae import fold_causal_convs
from training.train_vae import build_vae
from training.vae.config import VAEConfig
from training.vae.inflate import inflate


def encode(vae, pixels):
    with torch.no_grad():
        return vae.encode(pixels).latent_dist.mean


def test_of_a_still_clip_all_later_latents_are_equal_at_once():
    """Before, the untrained taps tell the third latent from the second."""
    config = VAEConfig(output_dir="", base_dim=8, decoder_base_dim=8, z_dim=4)
    still = torch.rand(1, 3, 1, 16, 16).expand(-1, -1, 13, -1, -1) * 2 - 1
    vae = fold_causal_convs(build_vae(config).eval())
    first = encode(vae, still[:, :, :1])
    before = encode(vae, still)
    assert not torch.allclose(before[:, :, 1], before[:, :, 2], atol=1e-4)
    after = encode(inflate(vae), still)
    torch.testing.assert_close(after[:, :, 1], after[:, :, 2])
    torch.testing.assert_close(after[:, :, 2], after[:, :, 3])
    torch.testing.assert_close(encode(vae, still[:, :, :1]), first)
    with torch.no_grad():
        decoded = vae.decode(after).sample
    torch.testing.assert_close(decoded[:, :, 5:9], decoded[:, :, 9:])


def test_frames_do_not_see_each_other():
    config = VAEConfig(output_dir="", base_dim=8, decoder_base_dim=8, z_dim=4)
    vae = inflate(fold_causal_convs(build_vae(config).eval()))
    pixels = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    changed = pixels.clone()
    changed[:, :, :5] = 0
    torch.testing.assert_close(encode(vae, pixels)[:, :, 2], encode(vae, changed)[:, :, 2])
