"""How much memory a stage needs on each GPU, from the shapes of a model alone (nothing is allocated).

    python -m training.memory                                  # stage 2 of the 1.3B model, 21 latents of 480x368
    python -m training.memory --stage grpo --lora_rank 64 --batch_size 4
    python -m training.memory --preset training/configs/finetune_1_3b.yaml --gpus 1 8 16
    python -m training.memory --transformer FOLDER --height 128 --width 128 --num_latents 9
    python -m training.memory --stage inference                # generating, by what is kept on the device
    python -m training.memory --stage inference --pipeline checkpoints/ardrag-tiny --height 128 --width 128

Bytes per parameter in mixed precision: what learns has a float32 master copy and a float32 gradient (4 + 4), momentum
and square of AdamW (8; 4 for matrices under Muon); a frozen model 4, the average 4. On several GPUs all of them are
sharded (`training.run.shard`), and a rollout gathers one model in bfloat16 (2); alone, autocast keeps such a copy of
all that learns. Activations are those of one batch with every block recomputed: the input of each block, and once the
inside of one; a causal pass over clean history holds the clip twice, and so does stage 2, in student and critic. An
adapter (LoRA) learns beside frozen weights, which are then the reference, or the teacher, as well; stage 2 holds their
matrices in half precision, and neither it nor consistency distillation splits them. Stage 3 trains with AdamW; its
batch is the group of one prompt. Text and image encoders are frozen copies in bfloat16 on every GPU; VAE and reward
models are not counted. What generating takes is counted by `pipelines.memory`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from diffusers import AutoencoderKLWan
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from pipelines.memory import OFFLOADS, Work, table
from training.losses.gan import Critic, head_layers
from training.run.config import parse_config
from training.run.optim import split_parameters
from training.run.runtime import add_lora, halve_base


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
WAN_ENCODERS = 5_680_910_336 + 630_766_080
"""Parameters of the text encoder (UMT5-XXL) and the image encoder (CLIP ViT-H/14) that come with it."""
INSIDE_A_BLOCK = 34
"""Numbers per token and channel that one block keeps for its backward pass, feed-forward included (ffn about 6 D)."""
GIB = 2**30
STAGES = ("finetune", "consistency", "distill", "grpo", "inference")
ITEMSIZES = {"bfloat16": 2, "float32": 4}
WAN_TOKENS = 512 + 257
"""Text and image tokens that it is told."""


@dataclass
class MemoryConfig:
    """What to plan for."""

    transformer: str = field(default="", metadata={"help": "Folder of a transformer; default: the 1.3B model."})
    preset: str = field(default="", metadata={"help": "Preset whose stage, batch, length and optimizer to plan for."})
    height: int = field(default=480, metadata={"help": "Pixels."})
    width: int = field(default=368, metadata={"help": "Pixels."})
    num_latents: int = field(default=21, metadata={"help": "Latent frames per clip."})
    stage: str = field(
        default="distill", metadata={"help": "finetune (stage 1), consistency, distill (2), grpo (3), or inference."}
    )
    causal: bool = field(default=False, metadata={"help": "Stage 1: with clean history."})
    lora_rank: int = field(default=0, metadata={"help": "Rank of the adapter; 0 trains all weights."})
    optimizer: str = field(default="muon", metadata={"help": "Stages 1 and 2: muon or adamw."})
    batch_size: int = field(default=1, metadata={"help": "Clips per GPU; in stage 3 the members of the group."})
    gpus: list[int] = field(default_factory=lambda: [1, 8], metadata={"help": "Numbers of GPUs to plan for."})
    gradient_checkpointing: bool = field(default=True, metadata={"help": "Recompute activations."})
    pipeline: str = field(default="", metadata={"help": "Inference: folder of a pipeline; default: Wan 1.3B's sizes."})
    dtype: str = field(default="bfloat16", metadata={"help": "Inference: number format, bfloat16 or float32."})
    guidance_rows: int = field(default=1, metadata={"help": "Inference: 1 without guidance, 2 or 3 with it."})

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage: {self.stage!r} is unknown; use {', '.join(STAGES[:-1])} or {STAGES[-1]}")
        if self.dtype not in ITEMSIZES:
            raise ValueError(f"dtype: {self.dtype!r} is unknown; use {' or '.join(ITEMSIZES)}")


def of_preset(config: MemoryConfig) -> MemoryConfig:
    """``config`` with the settings of its preset, whose name begins with its stage's."""
    values = yaml.safe_load(Path(config.preset).read_text())
    stage = Path(config.preset).stem.partition("_")[0]
    stage = {"causal": "finetune"}.get(stage, stage)
    size = values.get("group_size", values.get("batch_size", 1))
    names = ("num_latents", "causal", "lora_rank", "gradient_checkpointing", "optimizer")
    return replace(config, stage=stage, batch_size=size, **{name: values[name] for name in names if name in values})


def build_on_meta(config: MemoryConfig) -> CausalWanTransformer:
    """The transformer without its weights."""
    settings = CausalWanTransformer.load_config(config.transformer) if config.transformer else WAN_1_3B
    with torch.device("meta"):
        model: CausalWanTransformer = CausalWanTransformer.from_config(settings)
    return model


def size_of(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


ADAMW = 4 + 4 + 8
"""Bytes of a parameter that AdamW trains."""


def trained_bytes(model: torch.nn.Module, optimizer: str = "muon") -> int:
    """Master copy, gradient and optimizer state of a trained model."""
    matrices, rest = (sum(p.numel() for p in part) for part in split_parameters(model.named_parameters()))
    return (matrices + rest) * ADAMW - (matrices * 4 if optimizer == "muon" else 0)


def finetune_parts(model: CausalWanTransformer, config: MemoryConfig, gpus: int) -> dict[str, float]:
    """Bytes of the models of stage 1."""
    if config.lora_rank:
        return adapter_parts(model, config, gpus)
    return {
        "model: weights, gradient, optimizer": trained_bytes(model, config.optimizer) / gpus,
        "averaged model": 4 * size_of(model) / gpus,
    }


def consistency_parts(student: CausalWanTransformer, config: MemoryConfig, gpus: int) -> dict[str, float]:
    """Bytes of the models of consistency distillation."""
    if config.lora_rank:
        return adapter_parts(student, config, gpus)
    return {
        "student: weights, gradient, optimizer": ADAMW * size_of(student) / gpus,
        "averaged student, which is the target": 4 * size_of(student) / gpus,
        "teacher, frozen": 4 * size_of(student) / gpus,
    }


def distill_parts(student: CausalWanTransformer, config: MemoryConfig, gpus: int) -> dict[str, float]:
    """Bytes of the models of stage 2."""
    with torch.device("meta"):
        trunk = CausalWanTransformer.from_config(student.config)
        critic = Critic(trunk, head_layers(student.config.num_layers))
    if config.lora_rank:
        heads = ADAMW * size_of(critic.heads)
        add_lora(student, config.lora_rank, alpha=config.lora_rank)
        adapter, base = adapter_size(student), half_base_bytes(student)
        return {
            "student without adapter, frozen, matrices in half": base,
            "teacher and critic without adapter, frozen, matrices in half": base,
            "adapters and heads: weights, gradient, optimizer, average": (2 * ADAMW + 4) * adapter + heads,
        }
    return {
        "student: weights, gradient, optimizer": trained_bytes(student, config.optimizer) / gpus,
        "critic with heads: weights, gradient, optimizer": trained_bytes(critic, config.optimizer) / gpus,
        "teacher, frozen": 4 * size_of(student) / gpus,
        "averaged student": 4 * size_of(student) / gpus,
    }


def grpo_parts(policy: CausalWanTransformer, config: MemoryConfig, gpus: int) -> dict[str, float]:
    """Bytes of the models of stage 3."""
    if config.lora_rank:
        return adapter_parts(policy, config, gpus)
    return {
        "policy: weights, gradient, optimizer": ADAMW * size_of(policy) / gpus,
        "reference, frozen": 4 * size_of(policy) / gpus,
        "averaged policy": 4 * size_of(policy) / gpus,
    }


def adapter_parts(model: CausalWanTransformer, config: MemoryConfig, gpus: int) -> dict[str, float]:
    """Bytes of a model and its adapter; without it the model is the reference too."""
    count = size_of(model)
    add_lora(model, config.lora_rank, alpha=config.lora_rank)
    return {
        "model without adapter, frozen (and reference)": 4 * count / gpus,
        "adapter: weights, gradient, optimizer, average": (ADAMW + 4) * adapter_size(model) / gpus,
    }


def adapter_size(model: torch.nn.Module) -> int:
    """Number of parameters of the adapter, which alone learns."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def half_base_bytes(model: torch.nn.Module) -> int:
    """Bytes of the weights beside the adapter, those in half precision that `halve_base` halves."""
    halve_base(model)
    return sum(p.nbytes for p in model.parameters() if not p.requires_grad)


PARTS = {"finetune": finetune_parts, "consistency": consistency_parts, "distill": distill_parts, "grpo": grpo_parts}


def plan(
    config: MemoryConfig, gpus: int, model: CausalWanTransformer | None = None, encoders: int = 0
) -> dict[str, float]:
    """GiB on each of ``gpus`` GPUs, part by part, and their sum; ``encoders`` counts their parameters."""
    model = build_on_meta(config) if model is None else model
    if config.lora_rank and config.stage in ("consistency", "distill"):
        gpus = 1
    settings, count = model.config, size_of(model)
    width = settings.num_attention_heads * settings.attention_head_dim
    # 8 pixels are one latent in height and width, a patch of latents is one token.
    tokens = math.prod(
        side // (8 * patch) for side, patch in zip((config.height, config.width), settings.patch_size[1:], strict=True)
    )
    clip = config.batch_size * tokens * config.num_latents * width * 2
    packed = 2 if config.stage in ("consistency", "distill") or config.causal else 1
    inside = INSIDE_A_BLOCK * clip
    activations = (
        settings.num_layers * clip + inside if config.gradient_checkpointing else settings.num_layers * inside
    )
    rolls_out = config.stage in ("distill", "grpo")
    cache = settings.window_frames + settings.chunk_frames
    learning = 0 if config.lora_rank else 2 if config.stage == "distill" else 1
    history = 2 * settings.num_layers * clip if rolls_out else 0
    parts = {
        **PARTS[config.stage](model, config, gpus),
        "activations of the pass": packed * activations,
        "history of the clip (keys, values)": history,
        "ring cache of the rollout": history * cache / config.num_latents,
        "copies in half precision": 2 * count * (learning if gpus == 1 else 1),
        "encoders, frozen": 2 * encoders,
    }
    found = {name: size / GIB for name, size in parts.items()}
    return {**found, "sum": sum(found.values())}


def require_memory(config: MemoryConfig, model: CausalWanTransformer, encoders: int, gpus: int, gib: float) -> None:
    """Refuse a run that cannot fit into ``gib`` on each of ``gpus`` GPUs.

    Raises:
        ValueError: with what is needed, and the remedies.
    """
    with torch.device("meta"):
        bare = CausalWanTransformer.from_config(model.config)
    need = plan(config, gpus, bare, encoders)["sum"]
    if need > gib:
        raise ValueError(
            f"batch_size: {config.stage} needs about {need:.0f} GiB on each of {gpus} GPU(s), which have {gib:.0f}; "
            "use more processes with --shard true, smaller batches with more gradient_accumulation_steps, fewer "
            "num_latents, gradient_checkpointing, or lora_rank"
        )


def require_room(
    stage: str, settings: Any, pipeline: ARDragPipeline, size: Sequence[int], accelerator: Accelerator
) -> None:
    """Refuse a run that its GPUs cannot hold, before it starts; ``size`` (height, width) is that of its pictures.

    Raises:
        ValueError: see `require_memory`.
    """
    if accelerator.device.type != "cuda":
        return
    options = vars(settings)
    names = ("num_latents", "causal", "lora_rank", "gradient_checkpointing", "optimizer")
    known = {name: options[name] for name in names if name in options}
    batch = options.get("group_size", options.get("batch_size"))
    config = MemoryConfig(stage=stage, height=size[0], width=size[1], batch_size=int(batch or 1), **known)
    parts = [part for part in (pipeline.text_encoder, pipeline.image_encoder) if part is not None]
    gib = torch.cuda.get_device_properties(accelerator.device).total_memory / GIB
    gpus = accelerator.num_processes if settings.shard else 1
    require_memory(config, pipeline.transformer, sum(map(size_of, parts)), gpus, gib)


def wan_models() -> dict[str, torch.nn.Module]:
    """The models of Wan 1.3B without numbers."""
    text = UMT5Config(vocab_size=256_384, d_model=4096, d_kv=64, d_ff=10_240, num_layers=24, num_heads=64)
    image = CLIPVisionConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16)
    with torch.device("meta"):
        return {
            "text_encoder": UMT5EncoderModel(text),
            "image_encoder": CLIPVisionModel(image),
            "transformer": CausalWanTransformer(**WAN_1_3B),
            "vae": AutoencoderKLWan(),
        }


def inference_lines(config: MemoryConfig) -> list[str]:
    """The table of what generating takes, Markdown."""
    if config.pipeline:
        pipe = ARDragPipeline.from_pretrained(config.pipeline)
        models = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
        tokens = pipe.tokenizer.model_max_length
    else:
        models, tokens = wan_models(), WAN_TOKENS
    work = Work(config.height, config.width, config.num_latents, config.guidance_rows, ITEMSIZES[config.dtype])
    rows = table(models, work, tokens)
    named = config.pipeline or "Wan 1.3B"
    lines = [
        f"{named}: {config.num_latents} latents of {config.height}x{config.width}, {config.dtype}, guidance over "
        f"{config.guidance_rows} rows; GiB on the device at the worst moment",
        "",
        f"| phase | {' | '.join(OFFLOADS)} |",
        "|---" * (1 + len(OFFLOADS)) + "|",
    ]
    return lines + [
        f"| {name} | {' | '.join(f'{size / GIB:.2f}' for size in sizes)} |" for name, sizes in rows.items()
    ]


def main(config: MemoryConfig) -> None:
    """Print the plan as a Markdown table."""
    if config.stage == "inference":
        print("\n".join(inference_lines(config)))
        return
    config = of_preset(config) if config.preset else config
    encoders = 0 if config.transformer else WAN_ENCODERS
    plans = [plan(config, gpus, encoders=encoders) for gpus in config.gpus]
    name = config.transformer or "1.3B"
    size = f"{config.num_latents} latents of {config.height}x{config.width}, {config.batch_size} clips a GPU"
    way = f"LoRA of rank {config.lora_rank}" if config.lora_rank else "all weights"
    print(f"{config.stage}, {name}: {size_of(build_on_meta(config)) / 1e6:.1f} M parameters, {way}, {size}, GiB\n")
    print(f"| part | {' | '.join(f'{gpus} GPU' for gpus in config.gpus)} |")
    print("|---" * (1 + len(plans)) + "|")
    for part in plans[0]:
        print(f"| {part} | {' | '.join(f'{found[part]:.2f}' for found in plans)} |")


if __name__ == "__main__":
    main(parse_config(MemoryConfig))
