"""Original encoder and VAE files against the models that they were written from."""

import pytest
import torch

from ardrag.convert.encoders import convert_image_encoder, convert_text_encoder, convert_vae
from ardrag.convert.reading import open_weights
from tests import wan_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return wan_files.save_originals(tmp_path_factory.mktemp("originals"))


def test_vae(folder):
    vae, original = convert_vae(open_weights(folder / wan_files.VAE_FILE)), wan_files.small_vae()
    assert vae.config.base_dim == 8 and not vae.training
    pixels = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = original.encode(pixels).latent_dist.mode()
        assert torch.equal(vae.encode(pixels).latent_dist.mode(), latents)
        assert torch.equal(vae.decode(latents).sample, original.decode(latents).sample)


def test_text_encoder(folder):
    model = convert_text_encoder(open_weights(folder / wan_files.TEXT_FILE))
    original = wan_files.small_text_encoder(model.config.vocab_size)
    ids, mask = torch.tensor([[5, 9, 2, 0]]), torch.tensor([[1, 1, 1, 0]])
    with torch.no_grad():
        assert torch.allclose(model(ids, mask)[0], original(ids, mask)[0], atol=1e-6)


def test_image_encoder(folder):
    model, original = (
        convert_image_encoder(open_weights(folder / wan_files.IMAGE_FILE)),
        wan_files.small_image_encoder(),
    )
    pixels = torch.rand(1, 3, 28, 28)
    with torch.no_grad():
        ours, theirs = (m(pixels, output_hidden_states=True).hidden_states[-2] for m in (model, original))
    assert torch.allclose(ours, theirs, atol=1e-6) and ours.shape == (1, 5, 80)


@pytest.mark.parametrize("make", [convert_vae, convert_text_encoder, convert_image_encoder])
def test_files_that_are_something_else(make, tmp_path):
    torch.save({"visual.other.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"components: other\.pth .* give Wan2\.1's"):
        make(open_weights(tmp_path / "other.pth"))
