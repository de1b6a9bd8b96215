"""How much memory generating takes, model by model and phase by phase, and what each way of offloading leaves of it.

All of it follows from shapes: weights, cache and the transformer's pass by formulas, and what the VAE holds while it
works by running it without numbers. `PeakMemory` counts, here and in the tests.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan, ModelMixin
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ardrag.streaming_vae import StreamingVAE


OFFLOADS = ("all on the device", "one model at a time", "one layer at a time")
"""No offloading, `enable_model_cpu_offload`, `enable_sequential_cpu_offload`."""


class PeakMemory(TorchDispatchMode):
    """Within, counts the bytes of tensors that are made and still alive; ``peak`` is the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (args, kwargs or {})
        for tensor in tree_flatten(given)[0]:
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), new=False)
        answer = func(*args, **given[1])
        for tensor in tree_flatten(answer)[0]:
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), new=True)
        return answer

    def _count(self, storage: Any, new: bool) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if new else 0  # what was there before, weights and the like, is not counted
        self._known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


@dataclass(frozen=True)
class Work:
    """What is generated: a picture's size, latents of the clip, answers that guidance takes, bytes a number."""

    height: int
    width: int
    num_latents: int = 21
    rows: int = 1
    itemsize: int = 2


def weight_bytes(model: nn.Module, itemsize: int) -> int:
    """Bytes of a model's weights; those that diffusers keeps in float32 have four each."""
    kept = tuple(model._keep_in_fp32_modules or ()) if isinstance(model, ModelMixin) else ()
    return sum(p.numel() * (4 if any(k in name for k in kept) else itemsize) for name, p in model.named_parameters())


def layer_bytes(model: nn.Module, itemsize: int) -> int:
    """Bytes of the layer with the most weights of its own."""
    return itemsize * max(sum(p.numel() for p in part.parameters(recurse=False)) for part in model.modules())


def tokens_of(config: Any, work: Work, scale: int = 8) -> int:
    """Tokens of one latent frame."""
    return (work.height // (scale * config.patch_size[1])) * (work.width // (scale * config.patch_size[2]))


def pass_bytes(config: Any, work: Work, num_latents: int, rows: int) -> int:
    """What a pass of the transformer holds at most: in a block's feed-forward, its inner layer twice.

    Beside that the block's input, what was added to it twice, the norm and its answer.
    """
    width = config.num_attention_heads * config.attention_head_dim
    return work.itemsize * rows * num_latents * tokens_of(config, work) * (5 * width + 2 * config.ffn_dim)


def cache_bytes(config: Any, work: Work, context_tokens: int) -> int:
    """Keys and values of window, sink and chunk, and of text and image tokens, in all layers."""
    width = config.num_attention_heads * config.attention_head_dim
    frames = config.window_frames + config.sink_frames + config.chunk_frames
    tokens = frames * tokens_of(config, work) + context_tokens
    return 2 * work.itemsize * config.num_layers * work.rows * tokens * width


@dataclass(frozen=True)
class VAEBytes:
    """What a half of the VAE holds beside its weights: at most at ``works``, and ``kept`` for the next latent."""

    works: int
    kept: int


def vae_bytes(config: Any, work: Work) -> dict[str, VAEBytes]:
    """Encoding and decoding latent by latent, run without numbers, and counted."""
    kind = {2: torch.bfloat16, 4: torch.float32}[work.itemsize]
    with torch.device("meta"):
        vae = AutoencoderKLWan.from_config(config)
        for part in vae.parameters():
            part.data = part.data.to(kind)
    factor = vae.config.scale_factor_spatial
    options: dict[str, Any] = {"dtype": kind, "device": "meta"}

    def encode(stream: StreamingVAE) -> None:
        for frames in (1, stream.temporal_factor, stream.temporal_factor):
            stream.encode_next(torch.zeros(1, 3, frames, work.height, work.width, **options))

    def decode(stream: StreamingVAE) -> None:
        for _ in range(3):
            stream.decode_next(torch.zeros(1, config.z_dim, 1, work.height // factor, work.width // factor, **options))

    return {"encoding": counted(vae, encode), "decoding": counted(vae, decode)}


def counted(vae: AutoencoderKLWan, phase: Callable[[StreamingVAE], None]) -> VAEBytes:
    """Bytes of the tensors that ``phase`` makes on a new stream."""
    stream = StreamingVAE(vae)
    with PeakMemory() as memory, torch.no_grad():
        phase(stream)
        return VAEBytes(memory.peak, memory.alive)


def table(models: Mapping[str, nn.Module], work: Work, context_tokens: int) -> dict[str, list[int]]:
    """Bytes at the worst moment of each phase, under each of `OFFLOADS`.

    Args:
        models: ``transformer``, ``vae``, and the encoders by name, on any device: meta is enough.
        work: what is generated.
        context_tokens: text and image tokens that the cache keeps keys of.
    """
    config: Any = models["transformer"].config
    vae = vae_bytes(models["vae"].config, work)
    remembered = cache_bytes(config, work, context_tokens) + sum(half.kept for half in vae.values())
    held = dict.fromkeys((name for name in models if name.endswith("encoder")), 0)
    for name, half in vae.items():
        held[f"vae, {name}, causal"] = remembered + half.works - half.kept
    held["transformer, causal"] = remembered + pass_bytes(config, work, config.chunk_frames, work.rows)
    for name, half in vae.items():
        held[f"vae, {name}, whole clip"] = half.works
    held["transformer, whole clip"] = pass_bytes(config, work, work.num_latents, 1)
    weights = {name: weight_bytes(model, work.itemsize) for name, model in models.items()}
    found = {}
    for phase, size in held.items():
        name = phase.split(",")[0]
        resident = sum(weights.values()), weights[name], layer_bytes(models[name], work.itemsize)
        found[phase] = [part + size for part in resident]
    return found
