"""Write a checkpoint folder from a trained pipeline: small files, another VAE or number of steps where asked for.

    python -m training.export --pipeline runs/student/pipeline --vae runs/vae_decoder/vae \
        --num_inference_steps 8 --output_dir checkpoints/ardrag-tiny
    python -m training.export --pipeline models/fun-control --lora runs/causal/lora --output_dir runs/causal/pipeline

An adapter that was trained becomes part of the weights, so that the next stage can begin from them. A VAE may only
replace another one whose encoder made the same latents: one whose decoder alone was trained further. ``--half`` halves
the files; the weights are rounded (1 in 2,000), what is loaded is as precise as ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan

from ardrag.outlines.network import Outline
from pipelines import ARDragPipeline
from training.run.config import parse_config


HALF = ("transformer", "outline")
"""What is loaded in full precision whatever its files have; transformers' encoders would stay as they are stored."""


@dataclass
class ExportConfig:
    """What to write, and where."""

    pipeline: str = field(metadata={"help": "Folder of the trained pipeline."})
    output_dir: str = field(metadata={"help": "Folder of the checkpoint."})
    vae: str = field(default="", metadata={"help": "Folder of a VAE that takes the place of the pipeline's."})
    outline: str = field(default="", metadata={"help": "Folder of a network of outlines, in place of the pipeline's."})
    lora: str = field(default="", metadata={"help": "Folder of an adapter that was trained on the pipeline."})
    num_inference_steps: int = field(default=0, metadata={"help": "Steps per latent; 0 keeps the pipeline's."})
    half: list[str] = field(
        default_factory=list, metadata={"help": "Parts whose files are in half precision: transformer, outline."}
    )
    max_shard_size: str = field(default="12MB", metadata={"help": "Size at which weight files are split."})

    def __post_init__(self) -> None:
        for name in self.half:
            if name not in HALF:
                raise ValueError(f"half: {name} is not written in half precision; only {' and '.join(HALF)} can be")


def require_same_encoder(old: AutoencoderKLWan, new: AutoencoderKLWan) -> None:
    """Refuse a VAE whose latents differ from those that the transformer was trained on.

    Raises:
        ValueError: naming the part that differs.
    """
    for name, tensor in old.state_dict().items():
        if name.startswith(("encoder.", "quant_conv.")) and not torch.equal(tensor, new.state_dict()[name]):
            raise ValueError(
                f"vae: {name} differs from the pipeline's; only the decoder may have been trained further"
            )


def main(config: ExportConfig) -> None:
    """Load, swap, save."""
    pipeline = ARDragPipeline.from_pretrained(config.pipeline)
    if config.vae:
        vae = AutoencoderKLWan.from_pretrained(config.vae)
        require_same_encoder(pipeline.vae, vae)
        # The statistics belong to the latents, and so to the pipeline that was trained on them.
        old = pipeline.vae.config
        vae.register_to_config(latents_mean=old.latents_mean, latents_std=old.latents_std)
        pipeline.register_modules(vae=vae)
    if config.outline:
        pipeline.register_modules(outline=Outline.from_pretrained(config.outline))
    if config.lora:
        pipeline.load_lora_weights(config.lora)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    if config.num_inference_steps:
        pipeline.scheduler.register_to_config(num_inference_steps=config.num_inference_steps)
    parts = [pipeline, pipeline.transformer, pipeline.vae, *([pipeline.outline] if pipeline.outline else [])]
    for part in parts:  # not the folder where it was trained
        part.register_to_config(_name_or_path=Path(config.output_dir).name)
    for name in config.half:
        if pipeline.components[name] is None:
            raise ValueError(f"half: {config.pipeline} has no {name}; leave it out")
        pipeline.components[name].half()
    pipeline.save_pretrained(config.output_dir, max_shard_size=config.max_shard_size)


if __name__ == "__main__":
    main(parse_config(ExportConfig))
