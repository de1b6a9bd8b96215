"""Attention of the causal transformer: rotary positions without a table, block-causal window, cross-attention.

A query of the chunk that starts at latent frame `s` sees its own whole chunk and the latent frames `f` with
`s - window_frames <= f < s` (AR-Drag, section 3.2 and B.2: chunks of 1, window of 7). The rule is applied by
choosing keys, chunk by chunk, rather than by a dense mask: on a CPU more than twice as fast for a packed training
pass, and on a GPU it keeps the fused kernels.

The packed pass runs [clean | noisy] at once: the clean half is block-causal among itself, each chunk of the noisy half
sees itself and the *clean* window before it. It computes what the KV cache computes chunk by chunk.

Shapes: `B` batch, `F` latent frames, `L` tokens per latent frame, `N` heads, `D` head dim; attention works on
`[B, tokens, N, D]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import nn

from ardrag.kv_cache import ClipHistory, KeysValues, KVCache


ROPE_THETA = 10000.0


def _angles(first: int, count: int, dim: int, device: torch.device) -> torch.Tensor:
    """Angles `[count, dim/2]` of positions `first..first+count`, in float64 where the device has it."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    frequencies = ROPE_THETA ** (-torch.arange(0, dim, 2, dtype=dtype, device=device) / dim)
    return torch.outer(torch.arange(first, first + count, dtype=dtype, device=device), frequencies)


def _split_head(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head that turn with time, height and width, as in Wan."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


@lru_cache(maxsize=32)
def rotary_factors(
    head_dim: int, first_frame: int, num_frames: int, height: int, width: int, device: torch.device
) -> torch.Tensor:
    """Unit complex numbers `[F*H*W, 1, D/2]` that turn the tokens of `num_frames` latent frames from `first_frame`.

    `height` and `width` are in tokens. Any frame index will do; no table has to be long enough.
    """
    time_dim, height_dim, width_dim = _split_head(head_dim)
    # Kept for later calls, so it must not be an inference tensor: those cannot take part in training.
    with torch.inference_mode(False):
        grid = (num_frames, height, width, -1)
        time = _angles(first_frame, num_frames, time_dim, device)[:, None, None].expand(grid)
        rows = _angles(0, height, height_dim, device)[None, :, None].expand(grid)
        columns = _angles(0, width, width_dim, device)[None, None].expand(grid)
        angles = torch.cat([time, rows, columns], dim=-1).flatten(0, 2).unsqueeze(1)
        return torch.complex(angles.cos().float(), angles.sin().float())


def rotate(tokens: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Turns neighbouring channel pairs of `tokens [B, n, N, D]` by `factors [n, 1, D/2]`."""
    pairs = torch.view_as_complex(tokens.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * factors).flatten(-2).type_as(tokens)


def shift_keys(keys: torch.Tensor, frames: int) -> torch.Tensor:
    """Moves rotated keys `[B, n, N, D]` by `frames` in time: what the KV cache does to its sink."""
    time_dim, height_dim, width_dim = _split_head(keys.shape[-1])
    time = _angles(frames, 1, time_dim, keys.device)
    angles = F.pad(time, (0, (height_dim + width_dim) // 2)).unsqueeze(1)
    return rotate(keys, torch.complex(angles.cos().float(), angles.sin().float()))


class Span(NamedTuple):
    """The latent frames `start..stop` of one chunk, and what it sees before them."""

    start: int
    stop: int
    context: int
    """First latent frame of the window."""
    sink_shift: int
    """Frames by which the sink is moved up to the window; 0 while the window still reaches back to it."""


@lru_cache(maxsize=64)
def chunk_spans(
    num_frames: int, *, chunk_frames: int, first_chunk_frames: int, window_frames: int, sink_frames: int = 0
) -> tuple[Span, ...]:
    """Cuts `num_frames` latent frames into one chunk of `first_chunk_frames`, then chunks of `chunk_frames`."""
    if not 1 <= first_chunk_frames <= chunk_frames:
        raise ValueError(f"first_chunk_frames must be in 1..{chunk_frames} (chunk_frames), got {first_chunk_frames}.")
    if num_frames < first_chunk_frames or (num_frames - first_chunk_frames) % chunk_frames:
        raise ValueError(
            f"{num_frames} latent frames are not a first chunk of {first_chunk_frames} and whole chunks of "
            f"{chunk_frames}: pass {first_chunk_frames} + n*{chunk_frames} of them, or another first_chunk_frames."
        )
    spans = []
    for start in (0, *range(first_chunk_frames, num_frames, chunk_frames)):
        stop = start + chunk_frames if start else first_chunk_frames
        gap = max(0, start - window_frames - sink_frames)
        spans.append(Span(start, stop, context=start - window_frames if gap else 0, sink_shift=gap))
    return tuple(spans)


@dataclass(frozen=True)
class AttentionPlan:
    """Which tokens see which in one pass of the transformer, alike in all layers."""

    tokens_per_frame: int
    num_frames: int
    """Latent frames of the pass; of each half, if it is packed."""
    spans: tuple[Span, ...] = ()
    """Chunks of a block-causal pass; empty where every token of the pass sees every other."""
    sink_frames: int = 0
    packed: bool = False
    """The tokens are [clean | noisy]."""
    kv_cache: KVCache | None = None
    history: ClipHistory | None = None
    """The clean past of a block-causal pass, recorded before."""
    recording: bool = False
    """This pass fills `history` rather than reading it."""
    image_frames: int = 0
    """How many latent frames, from the first of the pass (or of each half), the image tokens reach."""


def check_pass(
    kv_cache: KVCache | None,
    frame_offset: int,
    causal: bool,
    packed: bool,
    update_cache: bool,
    first_chunk_frames: int | None,
    history: bool = False,
) -> None:
    """Raises ValueError where the arguments of the transformer ask for a pass that does not exist."""
    if frame_offset < 0:
        raise ValueError(f"frame_offset must be 0 or more, got {frame_offset}.")
    if kv_cache is None and update_cache:
        raise ValueError("update_cache=True needs a kv_cache: make one with new_cache(...).")
    if kv_cache is None and not causal and (packed or first_chunk_frames is not None):
        raise ValueError("clean_context and first_chunk_frames are for a causal pass: set causal=True.")
    if history and (packed or kv_cache is not None or not causal or frame_offset):
        raise ValueError(
            "history is the past of a causal pass over a whole clip: set causal=True and leave out clean_context, "
            "kv_cache and frame_offset."
        )
    if kv_cache is None:
        return
    if packed or first_chunk_frames is not None:
        raise ValueError("A pass with a kv_cache is one chunk: leave out clean_context and first_chunk_frames.")
    if kv_cache.position != frame_offset:
        raise ValueError(
            f"frame_offset is {frame_offset} but the cache is at latent frame {kv_cache.position}: pass "
            "frame_offset=kv_cache.position, after rollback(...) or reset() if you want to go back."
        )


Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Softmax attention of queries, keys and values `[B, n, N, D]`, everyone to everyone."""


class AttentionKernel:
    """The processor of an attention layer: softmax attention by the backend that was chosen for it in diffusers' ways.

    These are `set_attention_backend`, the context `attention_backend` and the environment. What a layer makes queries,
    keys and values of is not its business, so another `Attend` in its place is a processor too.
    """

    _attention_backend = None
    _parallel_config = None

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Softmax attention of `[B, n, N, D]` tokens, everyone to everyone."""
        attended: torch.Tensor = dispatch_attention_fn(query, key, value, backend=self._attention_backend)
        return attended


def _join(frames: Sequence[torch.Tensor]) -> torch.Tensor:
    return frames[0] if len(frames) == 1 else torch.cat(tuple(frames), dim=1)


def _past(frames: Sequence[torch.Tensor], span: Span, plan: AttentionPlan, *, turn: bool) -> list[torch.Tensor]:
    """Keys (`turn`: the sink re-rotated) or values of the clean latent frames that the chunk `span` looks back at."""
    window = list(frames[span.context : span.start])
    if not span.sink_shift or not plan.sink_frames:
        return window
    sink = _join(frames[: plan.sink_frames])
    return [shift_keys(sink, span.sink_shift) if turn else sink, *window]


def block_causal_attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    plan: AttentionPlan,
    attend: Attend,
    past: KeysValues | None = None,
) -> torch.Tensor:
    """Attention by the window rule of this module; a packed pass takes and returns [clean | noisy] tokens.

    `attend` is run once for each chunk. `past` are recorded keys and values `[B, F*L, N, D]` to look back at instead
    of the pass's own.
    """
    # One split into latent frames, not a slice for every chunk: the gradient of each slice would be as big as `key`.
    queries, keys, values = (x.split(plan.tokens_per_frame, dim=1) for x in (query, key, value))
    clean_keys, clean_values = (
        (keys, values) if past is None else (x.split(plan.tokens_per_frame, dim=1) for x in past)
    )
    halves: list[list[torch.Tensor]] = [[], []] if plan.packed else [[]]
    for span in plan.spans:
        past_keys = _past(clean_keys, span, plan, turn=True)
        past_values = _past(clean_values, span, plan, turn=False)
        for index, outputs in enumerate(halves):
            own = slice(index * plan.num_frames + span.start, index * plan.num_frames + span.stop)
            seen = _join([*past_keys, *keys[own]]), _join([*past_values, *values[own]])
            outputs.append(attend(_join(queries[own]), *seen))
    return torch.cat([output for outputs in halves for output in outputs], dim=1)


class _WanProjections(nn.Module, AttentionModuleMixin):
    """The parameters of an attention layer under the names that Wan checkpoints and LoRA files use."""

    processor: Attend
    fused_projections: bool
    to_qkv: nn.Linear
    to_kv: nn.Linear
    to_added_kv: nn.Linear
    _default_processor_cls = AttentionKernel
    _available_processors = [AttentionKernel]
    _fusions: dict[str, tuple[str, ...]] = {
        "to_kv": ("to_k", "to_v"),
        "to_added_kv": ("add_k_proj", "add_v_proj"),
    }
    """Layers that `fuse_projections` makes, and what they are made of."""

    def __init__(self, dim: int, heads: int, eps: float, added_kv_proj_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Dropout(0.0)])
        self.norm_q = nn.RMSNorm(dim, eps=eps)
        self.norm_k = nn.RMSNorm(dim, eps=eps)
        if added_kv_proj_dim is not None:
            self.add_k_proj = nn.Linear(added_kv_proj_dim, dim)
            self.add_v_proj = nn.Linear(added_kv_proj_dim, dim)
            self.norm_added_k = nn.RMSNorm(dim, eps=eps)
        self.processor = AttentionKernel()

    @torch.no_grad()
    def fuse_projections(self) -> None:
        """Make one matrix of those that read the same tokens; results do not change.

        Raises:
            ValueError: if an adapter is loaded, which the one matrix would leave out.
        """
        present = {name: parts for name, parts in self._fusions.items() if hasattr(self, parts[0])}
        for name, parts in {} if self.fused_projections else present.items():
            layers = [getattr(self, part) for part in parts]
            if not all(isinstance(layer, nn.Linear) for layer in layers):
                raise ValueError("fuse_qkv_projections: an adapter is loaded; call fuse_lora and unload_lora_weights")
            fused = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), device="meta")
            joined = {kind: torch.cat([getattr(layer, kind) for layer in layers]) for kind in ("weight", "bias")}
            fused.load_state_dict(joined, assign=True)
            setattr(self, name, fused)
        self.fused_projections = True

    def unfuse_projections(self) -> None:
        """Back to separate matrices."""
        for name in self._fusions:
            if hasattr(self, name):
                delattr(self, name)
        self.fused_projections = False

    def _heads(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`[B, n, N*D]` -> `[B, n, N, D]`; of one dtype, also where autocast leaves norms in another."""
        return tuple(x.unflatten(2, (self.heads, -1)).type_as(tokens[-1]) for x in tokens)

    def _keys_values(self, hidden_states: torch.Tensor) -> KeysValues:
        if self.fused_projections:
            key, value = self.to_kv(hidden_states).chunk(2, dim=-1)
        else:
            key, value = self.to_k(hidden_states), self.to_v(hidden_states)
        key, value = self._heads(self.norm_k(key), value)
        return key, value

    def _image_keys_values(self, image: torch.Tensor) -> KeysValues:
        if self.fused_projections:
            key, value = self.to_added_kv(image).chunk(2, dim=-1)
        else:
            key, value = self.add_k_proj(image), self.add_v_proj(image)
        key, value = self._heads(self.norm_added_k(key), value)
        return key, value

    def _output(self, hidden_states: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.to_out[0](hidden_states)
        return projected


def require_separate(model: nn.Module) -> None:
    """Raise ValueError if projections of `model` are fused: an adapter of the separate ones would do nothing."""
    if any(isinstance(part, _WanProjections) and part.fused_projections for part in model.modules()):
        raise ValueError("lora: the projections are fused; call unfuse_qkv_projections, load it, and fuse_lora first")


class CausalWanAttention(_WanProjections):
    """Self-attention: bidirectional, block-causal (also packed), or one chunk against the KV cache."""

    _fusions: dict[str, tuple[str, ...]] = {"to_qkv": ("to_q", "to_k", "to_v")}

    def forward(
        self, hidden_states: torch.Tensor, rotary: torch.Tensor, plan: AttentionPlan, layer: int
    ) -> torch.Tensor:
        """`hidden_states [B, tokens, N*D]`, `rotary [tokens, 1, D/2]` of `rotary_factors`."""
        query, key, value = self._project(hidden_states)
        query, key = rotate(query, rotary), rotate(key, rotary)
        if plan.kv_cache is not None:
            seen = self.processor(query, *plan.kv_cache.overwrite(layer, key, value))
        elif plan.spans:
            past = None
            if plan.history is not None and plan.recording:
                plan.history.record(layer, key, value)
            elif plan.history is not None:
                past = plan.history.layer(layer)
            seen = block_causal_attend(query, key, value, plan, self.processor, past)
        else:
            seen = self.processor(query, key, value)
        return self._output(seen.flatten(2))

    def _project(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values `[B, tokens, N, D]`."""
        if self.fused_projections:
            query, key, value = self.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, key, value = self.to_q(hidden_states), self.to_k(hidden_states), self.to_v(hidden_states)
        return self._heads(self.norm_q(query), self.norm_k(key), value)


class WanCrossAttention(_WanProjections):
    """Cross-attention to text, and to image tokens as a second context where the plan lets them in (Eq. 6)."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        text: torch.Tensor | None,
        image: torch.Tensor | None,
        plan: AttentionPlan,
        layer: int,
    ) -> torch.Tensor:
        """`text` and `image` are `[B, tokens, N*D]`, or None where the KV cache already holds what they give."""
        query = self.to_q(hidden_states)
        (query,) = self._heads(self.norm_q(query).type_as(query))
        seen = self.processor(query, *self._context("text", text, plan, layer)).flatten(2)
        if plan.image_frames:
            seen = seen + self._attend_image(query, self._context("image", image, plan, layer), plan)
        return self._output(seen)

    def _context(self, name: str, tokens: torch.Tensor | None, plan: AttentionPlan, layer: int) -> KeysValues:
        kept = None if plan.kv_cache is None else plan.kv_cache.context(layer, name)
        if kept is not None:
            return kept
        assert tokens is not None, f"{name} tokens are missing and the cache does not hold them"
        keys_values = self._image_keys_values(tokens) if name == "image" else self._keys_values(tokens)
        if plan.kv_cache is not None:
            plan.kv_cache.set_context(layer, name, keys_values)
        return keys_values

    def _attend_image(self, query: torch.Tensor, image: KeysValues, plan: AttentionPlan) -> torch.Tensor:
        """What the first `image_frames` of each half take from the image; zero for all other latent frames."""
        halves = query.unflatten(1, (2 if plan.packed else 1, -1))
        reached = halves[:, :, : plan.image_frames * plan.tokens_per_frame]
        seen = self.processor(reached.flatten(1, 2), *image).flatten(2).unflatten(1, reached.shape[1:3])
        return F.pad(seen, (0, 0, 0, halves.shape[2] - reached.shape[2])).flatten(1, 2)
