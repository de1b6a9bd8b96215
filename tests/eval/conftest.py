"""A random pipeline of the right classes, small enough for a test, saved as a user would save it."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from ardrag.flow import FewStepScheduler
from ardrag.worlds.sprites import make_clip
from pipelines import ARDragPipeline
from tests.app_assets.conftest import run_space as run_space
from training.run.tiny import build_image_encoder, build_text_encoder, build_transformer, train_tokenizer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        z_dim=4,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    tokenizer = train_tokenizer(make_clip("train", index, 5).caption for index in range(4))
    encoder, processor = build_image_encoder(32)
    folder = tmp_path_factory.mktemp("model")
    ARDragPipeline(
        transformer=build_transformer(vae, num_layers=1, num_heads=2, head_dim=12, ffn_dim=24),
        vae=vae,
        text_encoder=build_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        scheduler=FewStepScheduler(),
        image_encoder=encoder,
        image_processor=processor,
        buckets=[[128, 128]],
    ).save_pretrained(folder)
    return folder
