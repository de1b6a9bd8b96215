"""The yardstick of the speed benchmark: diffusers' `WanImageToVideoPipeline` on a random model of the same size."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)

from ardrag.streaming_vae import fold_causal_convs
from pipelines import ARDragPipeline


SHARED_FIELDS = (
    "patch_size",
    "num_attention_heads",
    "attention_head_dim",
    "out_channels",
    "text_dim",
    "freq_dim",
    "ffn_dim",
    "num_layers",
    "cross_attn_norm",
    "qk_norm",
    "eps",
    "image_dim",
    "added_kv_proj_dim",
)


def unfolded_vae(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """A copy of ``vae`` with diffusers' own convolutions and the same weights."""
    twin: AutoencoderKLWan = AutoencoderKLWan.from_config(vae.config)
    twin.load_state_dict(vae.state_dict())
    return twin.to(vae.device).eval()


def random_transformer(pipeline: ARDragPipeline, seed: int = 0) -> WanTransformer3DModel:
    """A bidirectional Wan model with the layers, heads and widths of the pipeline's transformer.

    Its input is that of Wan 2.1 image-to-video: latents, a mask of as many channels as a latent has pixel frames, and
    the encoded picture. Weights are random; time does not depend on them.
    """
    config, vae = pipeline.transformer.config, pipeline.vae.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WanTransformer3DModel(
            in_channels=2 * vae.z_dim + vae.scale_factor_temporal,
            **{name: config[name] for name in SHARED_FIELDS},
        )
    return model.to(pipeline.transformer.device).eval()


def wan_pipeline(pipeline: ARDragPipeline, folded: bool) -> WanImageToVideoPipeline:
    """diffusers' pipeline around the same encoders and VAE weights.

    Args:
        pipeline: whose size and components are taken.
        folded: give it our folded convolutions too, which leaves the model's order of work as the only difference.
    """
    vae = unfolded_vae(pipeline.vae)
    baseline = WanImageToVideoPipeline(
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder,
        vae=fold_causal_convs(vae) if folded else vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=pipeline.scheduler.config.shift),
        image_processor=pipeline.image_processor,
        image_encoder=pipeline.image_encoder,
        transformer=random_transformer(pipeline),
    )
    baseline.set_progress_bar_config(disable=True)
    return baseline


def parameters_in_millions(model: Any) -> float:
    """Size of a model, millions of parameters."""
    return round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2)
