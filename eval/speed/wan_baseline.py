"""The yardsticks of the speed benchmark: two pipelines of diffusers on random models of the same size.

`WanImageToVideoPipeline` is bidirectional; `AnyFlowFARPipeline` is causal, in chunks of three latents against a cache,
but hands out nothing before the clip is done.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AnyFlowFARPipeline,
    AnyFlowFARTransformer3DModel,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from diffusers.schedulers.scheduling_flow_map_euler_discrete import FlowMapEulerDiscreteScheduler

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


def anyflow_pipeline(pipeline: ARDragPipeline, seed: int = 0) -> AnyFlowFARPipeline:
    """diffusers' causal pipeline around the same text encoder and VAE weights, with a random model of the same size.

    It has no picture tokens and no control; the first frame is given as a video of one frame. Frames beyond its three
    newest chunks are seen in patches twice as large.
    """
    config = pipeline.transformer.config
    shared = {name: config[name] for name in SHARED_FIELDS if name not in ("out_channels", "qk_norm", "image_dim")}
    shared.pop("added_kv_proj_dim")
    frames, rows, columns = config["patch_size"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AnyFlowFARTransformer3DModel(
            in_channels=pipeline.vae.config.z_dim,
            out_channels=pipeline.vae.config.z_dim,
            compressed_patch_size=[frames, 2 * rows, 2 * columns],
            **shared,
        )
    baseline = AnyFlowFARPipeline(
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder,
        transformer=model.to(pipeline.transformer.device).eval(),
        vae=unfolded_vae(pipeline.vae),
        scheduler=FlowMapEulerDiscreteScheduler(shift=pipeline.scheduler.config.shift),
    )
    baseline.set_progress_bar_config(disable=True)
    return baseline


def chunk_partition(num_latents: int, chunk: int = 3) -> list[int]:
    """Chunks as AnyFlow's checkpoints take them: one latent, then ``chunk`` at a time, then the rest."""
    whole, rest = divmod(num_latents - 1, chunk)
    return [1, *[chunk] * whole, *([rest] if rest else [])]


def parameters_in_millions(model: Any) -> float:
    """Size of a model, millions of parameters."""
    return round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2)
