"""The blocks of the transformer against the KV cache on a CPU, with nothing in it but their operations.

A pass of the tiny model is 64 tokens wide: its products take two thirds of its time, and much of the rest is calling
forty modules a block. Here a block is its operations in a row. Its weights are laid out once: queries, keys and values
as one product, each matrix in the order that a product of few tokens reads fastest. Every number is the one that the
modules give.

`UnrolledBlocks.of` gives them where they are the same, else None: of plain blocks in float32, without adapters, hooks,
autocast or gradients. They are laid out again when weights or modules have changed.

Shapes: `n` tokens of the pass, `D` here the width of the model, `N` heads.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import chain
from operator import is_
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from diffusers.models.activations import GELU
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from torch import Tensor, nn

from ardrag.attention import AttentionPlan, CausalWanAttention, WanCrossAttention, rotate
from ardrag.block import CausalWanTransformerBlock
from ardrag.kv_cache import KVCache


PLAIN = (
    CausalWanTransformerBlock,
    CausalWanAttention,
    WanCrossAttention,
    FeedForward,
    FP32LayerNorm,
    GELU,
    nn.Dropout,
    nn.Linear,
    nn.ModuleList,
    nn.RMSNorm,
)
"""Modules whose operations are known here; a subclass is another."""
ALL_BLOCKS = -1
"""The layer under which a cache keeps the levels of all blocks."""
MAX_LAID_OUT_BYTES = 256 << 20
"""Of weights that are laid out beside the model's own. What larger models do between their products takes no time."""


class Matrix(NamedTuple):
    """A linear layer, ``weight [out, in]`` in the memory order of its transpose."""

    weight: Tensor
    bias: Tensor

    def __call__(self, tokens: Tensor) -> Tensor:
        """``tokens [1, n, in]`` to ``[1, n, out]``."""
        return F.linear(tokens, self.weight, self.bias)


def _matrix(*layers: Any) -> Matrix:
    """One layer of some linear ones that read the same tokens."""
    weight, bias = (torch.cat([getattr(layer, kind) for layer in layers]) for kind in ("weight", "bias"))
    return Matrix(weight.t().contiguous().t(), bias)


class Level(NamedTuple):
    """What a noise level does in one block, each ``[D]``: see `ardrag.block.Modulation`."""

    shift: Tensor
    scale: Tensor
    gate: Tensor
    late_shift: Tensor
    late_scale: Tensor
    late_gate: Tensor


class UnrolledBlock:
    """The operations of one `CausalWanTransformerBlock`."""

    def __init__(self, block: CausalWanTransformerBlock) -> None:
        own, cross = block.attn1, block.attn2
        feed: Any = block.ffn.net
        between: Any = block.norm2
        self._block, self._own, self._cross = block, own, cross
        self._read = _matrix(own.to_q, own.to_k, own.to_v)
        self._read_norm = torch.stack([own.norm_q.weight, own.norm_k.weight])
        self._answer = _matrix(own.to_out[0])
        self._ask, self._ask_norm = _matrix(cross.to_q), cross.norm_q.weight.detach()
        self._told = _matrix(cross.to_out[0])
        self._between = between.weight.detach(), between.bias.detach(), between.eps
        self._widen, self._narrow, self._gelu = _matrix(feed[0].proj), _matrix(feed[2]), feed[0].approximate

    def level(self, modulation: Tensor) -> Level:
        """Of ``modulation [1, 1, 6, D]``."""
        early, late = self._block._modulations(modulation)
        return Level(*(part.flatten() for part in (*early, *late)))

    def __call__(self, tokens: Tensor, level: Level, rotary: Tensor, cache: KVCache) -> Tensor:
        """``tokens [1, n, D]`` after the block."""
        own, cross, size = self._own, self._cross, tokens.shape[2:]
        read = self._read(F.layer_norm(tokens, size, level.scale, level.shift, self._block.norm1.eps))
        read = read.unflatten(2, (3, -1))
        turned = F.rms_norm(read[:, :, :2], size, None, own.norm_q.eps) * self._read_norm
        query, key = rotate(turned.view(1, -1, 2 * own.heads, size[0] // own.heads), rotary).chunk(2, dim=2)
        context = cache.overwrite(self._block.layer, key, read[:, :, 2].unflatten(2, (own.heads, -1)))
        tokens = torch.addcmul(tokens, self._answer(own.processor(query, *context).flatten(2)), level.gate)

        normed = F.layer_norm(tokens, size, *self._between)
        query = F.rms_norm(self._ask(normed), size, self._ask_norm, cross.norm_q.eps).unflatten(2, (cross.heads, -1))
        text = cache.context(self._block.layer, "text")
        assert text is not None
        tokens = tokens + self._told(cross.processor(query, *text).flatten(2))

        normed = F.layer_norm(tokens, size, level.late_scale, level.late_shift, self._block.norm3.eps)
        fed = self._narrow(F.gelu(self._widen(normed), approximate=self._gelu))
        return torch.addcmul(tokens, fed, level.late_gate)


class UnrolledBlocks:
    """All blocks of a transformer, as they were when they were laid out."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        parts = list(blocks.modules())
        self._homes: list[dict[str, Any]] = [home for part in parts for home in (part._modules, part._parameters)]
        self._held = [*self._there()]
        self._weights = [part for part in self._held if isinstance(part, Tensor)]
        watched = [own for part in parts[1:] for own in (vars(part), part._forward_hooks, part._forward_pre_hooks)]
        self._sized = [*self._homes, *watched]
        self._then = self._marks()
        self._asked: tuple[Any, int] = None, 0
        self._blocks = [UnrolledBlock(cast(CausalWanTransformerBlock, block)) for block in blocks]

    @classmethod
    def of(
        cls, blocks: nn.ModuleList, tokens: Tensor, modulation: Tensor, plan: AttentionPlan
    ) -> UnrolledBlocks | None:
        """Those of ``blocks``, or None where the modules themselves must be called.

        Args:
            blocks: of a `CausalWanTransformer`.
            tokens: ``[B, n, D]`` that will go in, of one latent clip: for B = 1.
            modulation: ``[B, M, 6, D]`` of their noise levels: for M = 1.
            plan: of the pass; for passes against a KV cache that holds the text, no image token being seen.
        """
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return None
        plain = tokens.device.type == "cpu" and tokens.dtype == torch.float32 and modulation.shape[:2] == (1, 1)
        if not plain or plan.kv_cache is None or plan.image_frames:
            return None
        known = _laid_out.get(blocks)
        if known is None or not known._serve(plan.kv_cache):
            forget(blocks)
            if not _can_be(blocks):
                return None
            with torch.inference_mode(False), torch.no_grad():
                known = _laid_out[blocks] = cls(blocks)
        return known

    def __call__(self, tokens: Tensor, modulation: Tensor, rotary: Tensor, cache: KVCache) -> Tensor:
        """``tokens [1, n, D]`` after all blocks; see `CausalWanTransformer.forward`."""
        levels = cache.kept(modulation, ALL_BLOCKS, self._levels)
        for block, level in zip(self._blocks, levels, strict=True):
            tokens = block(tokens, level, rotary, cache)
        return tokens

    def _levels(self, modulation: Tensor) -> list[Level]:
        return [block.level(modulation) for block in self._blocks]

    def _serve(self, cache: KVCache) -> bool:
        """Whether modules and weights are the same, and nobody has hung anything on them; asked once a latent."""
        place, position = self._asked
        if place is not None and place() is cache and position == cache.position:
            return True
        self._asked = weakref.ref(cache), cache.position
        return self._marks() == self._then and all(map(is_, self._there(), self._held))

    def _there(self) -> Iterator[Any]:
        """Modules and weights in their places."""
        return chain.from_iterable(home.values() for home in self._homes)

    def _marks(self) -> tuple[list[int], ...]:
        """What changes with a weight, and with what a module has, found in few steps of Python."""
        versions, places = [part._version for part in self._weights], [part.data_ptr() for part in self._weights]
        return [*map(len, self._sized)], versions, places


_laid_out: weakref.WeakKeyDictionary[nn.ModuleList, UnrolledBlocks] = weakref.WeakKeyDictionary()


def forget(blocks: nn.ModuleList) -> None:
    """Lay ``blocks`` out again next time: before adapters, which are merged into `Tensor.data` without a trace."""
    _laid_out.pop(blocks, None)


def _is_watched(part: nn.Module) -> bool:
    """Whether calling ``part`` does more than its class says."""
    return bool(
        part._forward_hooks or part._forward_pre_hooks or not {"forward", "_compiled_call_impl"}.isdisjoint(vars(part))
    )


def _can_be(blocks: nn.ModuleList) -> bool:
    """Whether the operations of ``blocks`` are the ones of this module."""
    weights = list(blocks.parameters())
    return (
        all(type(part) in PLAIN and not _is_watched(part) for part in blocks.modules())
        and all(type(weight) is nn.Parameter and _is_plain(weight) for weight in weights)
        and sum(weight.nbytes for weight in weights) <= MAX_LAID_OUT_BYTES
        and not any(part.p for part in blocks.modules() if isinstance(part, nn.Dropout))
        and not any(
            part.fused_projections
            for part in blocks.modules()
            if isinstance(part, CausalWanAttention | WanCrossAttention)
        )
    )


def _is_plain(weight: nn.Parameter) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and not weight.is_inference()
