"""How much memory stages 2 and 3 need on each GPU, from the shapes of a model alone (nothing is allocated).

    python -m training.memory                                  # stage 2 of the 1.3B model, 21 latents of 480x368
    python -m training.memory --stage grpo --lora_rank 64 --batch_size 4
    python -m training.memory --transformer FOLDER --height 128 --width 128 --num_latents 9

Bytes per parameter in mixed precision: a trained model has a float32 master copy (4), momentum and square of AdamW
(8; 4 for matrices under Muon), a bfloat16 copy and its gradient (2 + 2); a frozen one 2; the average 4. Trained parts,
their optimizers and the average are sharded over the GPUs, the frozen teacher too. Activations are those of one clip
with every block recomputed: the input of each block, and once the inside of one block. Stage 3 trains with AdamW (all
weights) or a LoRA adapter beside frozen weights, which are then the reference as well; its batch is the group of one
prompt. VAE, encoders and reward models are not counted: they are small, or can be run before or elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from ardrag.transformer import CausalWanTransformer
from training.losses.gan import Critic, head_layers
from training.run.config import parse_config
from training.run.optim import split_parameters
from training.run.runtime import add_lora


WAN_1_3B: dict[str, Any] = {
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "in_channels": 48,
    "out_channels": 16,
    "ffn_dim": 8960,
    "num_layers": 30,
    "image_dim": 1280,
    "added_kv_proj_dim": 1536,
    "input_layout": {"latents": 16, "motion": 16, "image": 16},
    "image_context": "first",
}
"""Wan2.1 1.3B with the image branch (1.56 billion parameters), in the layout of the public Fun-Control checkpoint."""
INSIDE_A_BLOCK = 34
"""Numbers per token and channel that one block keeps for its backward pass, feed-forward included (ffn about 6 D)."""
GIB = 2**30


@dataclass
class MemoryConfig:
    """What to plan for."""

    transformer: str = field(default="", metadata={"help": "Folder of a transformer; default: the 1.3B model."})
    height: int = field(default=480, metadata={"help": "Pixels."})
    width: int = field(default=368, metadata={"help": "Pixels."})
    num_latents: int = field(default=21, metadata={"help": "Latent frames per clip."})
    stage: str = field(default="distill", metadata={"help": "distill (stage 2) or grpo (stage 3)."})
    lora_rank: int = field(default=0, metadata={"help": "Stage 3: rank of the adapter; 0 trains all weights."})
    batch_size: int = field(default=1, metadata={"help": "Clips per GPU; in stage 3 the members of the group."})
    gpus: list[int] = field(default_factory=lambda: [1, 8], metadata={"help": "Numbers of GPUs to plan for."})
    gradient_checkpointing: bool = field(default=True, metadata={"help": "Recompute activations."})

    def __post_init__(self) -> None:
        if self.stage not in ("distill", "grpo"):
            raise ValueError(f"stage: {self.stage!r} is unknown; use distill or grpo")
        if self.lora_rank and self.stage == "distill":
            raise ValueError("lora_rank: planned for stage 3 only; add --stage grpo")


def build_on_meta(config: MemoryConfig) -> CausalWanTransformer:
    """The transformer without its weights."""
    settings = CausalWanTransformer.load_config(config.transformer) if config.transformer else WAN_1_3B
    with torch.device("meta"):
        model: CausalWanTransformer = CausalWanTransformer.from_config(settings)
    return model


def trained_bytes(model: torch.nn.Module) -> int:
    """Master copy, optimizer state, half-precision copy and gradient of a trained model."""
    matrices, rest = (sum(p.numel() for p in part) for part in split_parameters(model.named_parameters()))
    return matrices * (4 + 4 + 4) + rest * (4 + 8 + 4)


ADAMW = 4 + 8 + 2 + 2
"""Bytes of a parameter that AdamW trains."""


def distill_parts(student: CausalWanTransformer, config: MemoryConfig, gpus: int) -> dict[str, float]:
    """Bytes of the models of stage 2."""
    with torch.device("meta"):
        critic = Critic(build_on_meta(config), head_layers(student.config.num_layers))
    count = sum(p.numel() for p in student.parameters())
    return {
        "student: weights, gradient, optimizer": trained_bytes(student) / gpus,
        "critic with heads: weights, gradient, optimizer": trained_bytes(critic) / gpus,
        "teacher, frozen": 2 * count / gpus,
        "averaged student": 4 * count / gpus,
    }


def grpo_parts(policy: CausalWanTransformer, config: MemoryConfig, gpus: int) -> dict[str, float]:
    """Bytes of the models of stage 3."""
    count = sum(p.numel() for p in policy.parameters())
    if not config.lora_rank:
        return {
            "policy: weights, gradient, optimizer": ADAMW * count / gpus,
            "reference, frozen": 2 * count / gpus,
            "averaged policy": 4 * count / gpus,
        }
    add_lora(policy, config.lora_rank, alpha=config.lora_rank)
    adapter = sum(p.numel() for p in policy.parameters()) - count
    return {
        "policy without adapter, frozen (and reference)": 2 * count / gpus,
        "adapter: weights, gradient, optimizer, average": (ADAMW + 4) * adapter,
    }


def plan(config: MemoryConfig, gpus: int) -> dict[str, float]:
    """GiB on each of ``gpus`` GPUs, part by part, and their sum."""
    student = build_on_meta(config)
    settings = student.config
    count = sum(p.numel() for p in student.parameters())
    width = settings.num_attention_heads * settings.attention_head_dim
    # 8 pixels are one latent in height and width, a patch of latents is one token.
    tokens = math.prod(
        side // (8 * patch) for side, patch in zip((config.height, config.width), settings.patch_size[1:], strict=True)
    )
    clip = config.batch_size * tokens * config.num_latents * width * 2
    inside = INSIDE_A_BLOCK * clip
    activations = (
        settings.num_layers * clip + inside if config.gradient_checkpointing else settings.num_layers * inside
    )
    cache = settings.window_frames + settings.chunk_frames
    parts_of = distill_parts if config.stage == "distill" else grpo_parts
    parts = {
        **parts_of(student, config, gpus),
        "activations of the replay": activations,
        "history of the clip (keys, values)": 2 * settings.num_layers * clip,
        "ring cache of the rollout": 2 * settings.num_layers * clip * cache / config.num_latents,
        "one gathered model": 2 * count if gpus > 1 else 0,
    }
    found = {name: size / GIB for name, size in parts.items()}
    return {**found, "sum": sum(found.values())}


def main(config: MemoryConfig) -> None:
    """Print the plan as a Markdown table."""
    plans = [plan(config, gpus) for gpus in config.gpus]
    count = sum(p.numel() for p in build_on_meta(config).parameters())
    name = config.transformer or "1.3B"
    size = f"{config.num_latents} latents of {config.height}x{config.width}, {config.batch_size} clips a GPU"
    way = f"LoRA of rank {config.lora_rank}" if config.lora_rank else "all weights"
    print(f"{config.stage}, {name}: {count / 1e6:.1f} M parameters, {way}, {size}, GiB\n")
    print(f"| part | {' | '.join(f'{gpus} GPU' for gpus in config.gpus)} |")
    print("|---" * (1 + len(plans)) + "|")
    for part in plans[0]:
        print(f"| {part} | {' | '.join(f'{found[part]:.2f}' for found in plans)} |")


if __name__ == "__main__":
    main(parse_config(MemoryConfig))
