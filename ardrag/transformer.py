"""CausalWanTransformer: Wan's video transformer made autoregressive (AR-Drag, section 3.2 and B.2).

The parameters are those of diffusers' `WanTransformer3DModel`, name by name and shape by shape, and so is the result
of a plain call. What is new is who sees whom:

- `causal=True`: chunks of latent frames see themselves and the `window_frames` latent frames before them, each latent
  frame with a timestep of its own; with `clean_context` the packed pass [clean | noisy] that training and RL use;
- `kv_cache=...`: one chunk at `frame_offset` against the keys and values of the clean past;
- `image_context="first"`: image tokens reach latent frame 0 only (AR-Drag, Eq. 6).

Shapes: `B` batch, `C` channels, `F` latent frames, `H W` latent height/width, `L` tokens per latent frame, `D` here
the width of the model.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanTimeTextImageEmbedding
from diffusers.utils import apply_lora_scale
from torch import nn

from ardrag.attention import (
    AttentionPlan,
    Span,
    check_pass,
    chunk_spans,
    require_separate,
    rotary_factors,
    shift_keys,
)
from ardrag.block import CausalWanTransformerBlock, modulate
from ardrag.conditioning import SlotGates, check_forward
from ardrag.controls.build import attach
from ardrag.kv_cache import ClipHistory, KVCache
from ardrag.saving import SavedWhole
from ardrag.unrolled.blocks import UnrolledBlocks, forget


class CausalWanTransformer(SavedWhole, ModelMixin, AttentionMixin, ConfigMixin, PeftAdapterMixin):
    """Wan's transformer with a block-causal mode and a KV cache; state dicts fit `WanTransformer3DModel` both ways.

    Args (those of `WanTransformer3DModel`, and):
        input_layout: names and channels of what is stacked along `C` of the input, in order; None is one slot
            "latents" of `in_channels`.
        input_order: the names of `input_layout` in order. Not for you to give: diffusers sorts the keys of a saved
            configuration, so the order of a dict alone would be lost.
        window_frames: latent frames before a chunk that it can see (B.2: 7).
        chunk_frames: latent frames of one autoregressive step (B.2: 1); `first_chunk_frames` of the first one.
        sink_frames: first latent frames that stay visible for ever, as if directly before the window.
        image_context: "all", image tokens reach every latent frame as in Wan; "first", latent frame 0 only (Eq. 6).
        image_fill: what the image slot holds beyond latent frame 0 (`ardrag.conditioning.image_slot`).
        activation_fn: of the feed-forward layers; public Wan checkpoints need "gelu-approximate", while "gelu" is
            several times cheaper on a CPU.
        control_module: what a control needs inside the transformer, by name with settings (`ardrag.controls.build`);
            None, as for the plain model, is nothing.
        gated_slots: the answer is what passes from the input's slots and what the blocks add to it
            (`ardrag.conditioning.SlotGates`); False, Wan's way, is a velocity made by the blocks alone.

    Attributes:
        unrolls: whether blocks may run without their modules on a CPU (`ardrag.unrolled`); the numbers are the same.
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ["patch_embedding", "condition_embedder", "norm"]
    _no_split_modules = ["CausalWanTransformerBlock"]
    _keep_in_fp32_modules = ["time_embedder", "scale_shift_table", "norm1", "norm2", "norm3"]
    _keys_to_ignore_on_load_unexpected = ["norm_added_q"]
    _repeated_blocks = ["CausalWanTransformerBlock"]
    _skip_keys = ["kv_cache"]

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        input_layout: dict[str, int] | None = None,
        input_order: list[str] | None = None,
        window_frames: int = 7,
        chunk_frames: int = 1,
        sink_frames: int = 0,
        image_context: Literal["all", "first"] = "all",
        image_fill: Literal["noise", "zeros", "grey", "picture"] = "noise",
        first_chunk_frames: int | None = None,
        activation_fn: str = "gelu-approximate",
        control_module: dict[str, Any] | None = None,
        gated_slots: bool = False,
    ) -> None:
        super().__init__()
        layout = {"latents": in_channels} if input_layout is None else dict(input_layout)
        if input_order is not None and sorted(input_order) != sorted(layout):
            raise ValueError(f"input_order {input_order} must name the slots of input_layout {layout}: leave it out.")
        layout = layout if input_order is None else {name: layout[name] for name in input_order}
        self.register_to_config(input_layout=layout, input_order=list(layout))
        self._check_config()
        dim = num_attention_heads * attention_head_dim
        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.condition_embedder = WanTimeTextImageEmbedding(
            dim=dim,
            time_freq_dim=freq_dim,
            time_proj_dim=6 * dim,
            text_embed_dim=text_dim,
            image_embed_dim=image_dim,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        self.blocks = nn.ModuleList(
            CausalWanTransformerBlock(
                dim, ffn_dim, num_attention_heads, layer, cross_attn_norm, eps, added_kv_proj_dim, activation_fn
            )
            for layer in range(num_layers)
        )
        self.norm_out = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, (out_channels or in_channels) * math.prod(patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.gradient_checkpointing, self.unrolls = False, True
        self.slot_gates: SlotGates | None = None
        if gated_slots:
            self.add_slot_gates()
        if control_module is not None:
            attach(self, control_module)

    def add_slot_gates(self) -> None:
        """Begin anew from what the motion slot shows: with new gates, and nothing added to what passes them."""
        config = self.config
        dim = config.num_attention_heads * config.attention_head_dim
        channels = config.out_channels or config.in_channels
        self.slot_gates = SlotGates(dim, config.input_layout, channels, math.prod(config.patch_size))
        self.register_to_config(gated_slots=True)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def _check_config(self) -> None:
        config = self.config
        if sum(config.input_layout.values()) != config.in_channels:
            raise ValueError(
                f"The slots of input_layout {dict(config.input_layout)} have {sum(config.input_layout.values())} "
                f"channels together, but in_channels is {config.in_channels}: make them equal."
            )
        if config.patch_size[0] != 1:
            raise ValueError(f"patch_size must be 1 in time (one latent frame is one step), got {config.patch_size}.")
        if config.qk_norm != "rms_norm_across_heads":
            raise ValueError(f"qk_norm must be 'rms_norm_across_heads' as in Wan, got {config.qk_norm!r}.")
        if config.image_context not in ("all", "first"):
            raise ValueError(f"image_context must be 'all' or 'first', got {config.image_context!r}.")
        if config.image_fill not in ("noise", "zeros", "grey", "picture"):
            raise ValueError(f"image_fill must be 'noise', 'zeros', 'grey' or 'picture', got {config.image_fill!r}.")
        if config.window_frames < 1 or config.chunk_frames < 1 or config.sink_frames < 0:
            raise ValueError(
                "window_frames and chunk_frames must be at least 1 and sink_frames 0 or more, got "
                f"{config.window_frames}, {config.chunk_frames} and {config.sink_frames}."
            )
        if config.first_chunk_frames is not None and not 1 <= config.first_chunk_frames <= config.chunk_frames:
            raise ValueError(
                f"first_chunk_frames must be 1 .. {config.chunk_frames}, got {config.first_chunk_frames}."
            )
        if (config.image_dim is None) != (config.added_kv_proj_dim is None):
            raise ValueError("Give both image_dim and added_kv_proj_dim (image tokens), or neither.")

    @property
    def dtype(self) -> torch.dtype:
        """Number format that the model works in, however its weights are kept. diffusers asks all modules for it."""
        return self.patch_embedding.weight.dtype

    def new_cache(
        self,
        batch_size: int,
        height: int,
        width: int,
        history_frames: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> KVCache:
        """An empty KV cache for latents `[batch_size, C, F, height, width]` on `device`, where the model will run.

        `dtype` is that of the keys; None is the model's, or that of the autocast which the cache is made under.
        """
        config, place = self.config, self.device if device is None else device
        own = torch.get_autocast_dtype(place.type) if torch.is_autocast_enabled(place.type) else self.dtype
        rows, columns = self._grid(height, width)
        return KVCache(
            num_layers=config.num_layers,
            batch_size=batch_size,
            num_heads=config.num_attention_heads,
            head_dim=config.attention_head_dim,
            tokens_per_frame=rows * columns,
            window_frames=config.window_frames,
            chunk_frames=config.chunk_frames,
            sink_frames=config.sink_frames,
            history_frames=history_frames,
            shift_keys=shift_keys,
            dtype=own if dtype is None else dtype,
            device=place,
        )

    def add_adapter(self, *args: Any, **kwargs: Any) -> None:
        """As diffusers' own; ValueError if `fuse_qkv_projections` has been called."""
        require_separate(self)
        forget(self.blocks)
        super().add_adapter(*args, **kwargs)

    def load_lora_adapter(self, *args: Any, **kwargs: Any) -> None:
        """As diffusers' own; ValueError if `fuse_qkv_projections` has been called."""
        require_separate(self)
        forget(self.blocks)
        super().load_lora_adapter(*args, **kwargs)

    def enable_cache(self, config: Any) -> None:
        """Refused: caches of diffusers (`CacheMixin`) skip blocks, whose keys and values later latents look back at.

        Raises:
            ValueError: always, with what to do instead.
        """
        raise ValueError(
            f"enable_cache: {type(config).__name__} skips blocks, which would leave keys and values of an earlier, "
            "noisier step in the KV cache; for fewer passes lower num_inference_steps"
        )

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_image: torch.Tensor | None = None,
        kv_cache: KVCache | None = None,
        frame_offset: int = 0,
        causal: bool = False,
        clean_context: torch.Tensor | None = None,
        update_cache: bool = False,
        first_chunk_frames: int | None = None,
        history: ClipHistory | None = None,
        record_history: bool = False,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predicts the velocity of `hidden_states`.

        Args:
            hidden_states: `[B, C, F, H, W]`, the slots of `input_layout` stacked along `C`.
            timestep: `[B]`, or `[B, F]` with one for each latent frame; 1000 * sigma.
            encoder_hidden_states: text tokens `[B, any number, text_dim]`.
            encoder_hidden_states_image: image tokens `[B, any number, image_dim]`.
            kv_cache: the context of the chunk `hidden_states`, which stands at `frame_offset` = its position.
            frame_offset: latent frame index of the first latent frame of the input.
            causal: block-causal pass without a cache.
            clean_context: `[B, C, F, H, W]`, clean counterpart of `hidden_states`: the packed pass. Every chunk
                sees the clean latent frames before it (at timestep 0) as if they were in the cache.
            update_cache: afterwards the chunk becomes context; for the pass on the clean chunk at timestep 0.
            first_chunk_frames: latent frames of the first chunk of a causal pass, default the configuration's.
            history: the recorded clean clip that a causal pass looks back at instead of its own input: the packed
                pass again, but the gradient stops there, as at the cache. `record_history` fills it: timestep 0.
            attention_kwargs: {"scale": ...} scales LoRA layers.

        Returns `.sample [B, out_channels, F, H, W]`, or a tuple of it with `return_dict=False`.
        """
        texts = encoder_hidden_states, encoder_hidden_states_image
        check_forward(self.config, hidden_states, timestep, *texts, clean_context)
        packed = clean_context is not None
        check_pass(kv_cache, frame_offset, causal, packed, update_cache, first_chunk_frames, history is not None)
        slots, level = hidden_states, timestep.reshape(len(timestep), -1) / 1000
        num_frames, grid = hidden_states.shape[2], self._grid(*hidden_states.shape[3:])
        plan = AttentionPlan(
            tokens_per_frame=math.prod(grid),
            num_frames=num_frames,
            spans=self._spans(num_frames, first_chunk_frames) if causal and kv_cache is None else (),
            sink_frames=self.config.sink_frames,
            packed=packed,
            kv_cache=kv_cache,
            history=history,
            recording=record_history,
            image_frames=0 if encoder_hidden_states_image is None else self._image_frames(num_frames, frame_offset),
        )
        rotary = rotary_factors(self.config.attention_head_dim, frame_offset, num_frames, *grid, hidden_states.device)
        if clean_context is not None:
            hidden_states = torch.cat([clean_context, hidden_states], dim=2)
            noisy = timestep.reshape(len(timestep), -1).expand(-1, num_frames)
            timestep = torch.cat([torch.zeros_like(noisy), noisy], dim=1)
            rotary = torch.cat([rotary, rotary])

        # Latents may be in float32 where the weights are in half precision: rounded here, and nowhere before.
        hidden_states = self.patch_embedding(hidden_states.to(self.patch_embedding.weight.dtype))
        hidden_states = hidden_states.flatten(2).transpose(1, 2).contiguous()
        dtype = hidden_states.dtype
        if kv_cache is None:
            temb, modulation = self._embed_time(timestep, dtype)
        else:
            temb, modulation = kv_cache.kept(timestep, None, lambda level: self._embed_time(level, dtype))
        text, image = self._embed_context(encoder_hidden_states, encoder_hidden_states_image, plan)
        unrolled = None
        if self.unrolls and text is None:
            unrolled = UnrolledBlocks.of(self.blocks, hidden_states, modulation, plan)
        if unrolled is not None and kv_cache is not None:
            hidden_states = unrolled(hidden_states, modulation, rotary, kv_cache)
        for block in self.blocks if unrolled is None else ():
            # here, where nobody else holds on to what goes into the first
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(
                    block, hidden_states, text, image, modulation, rotary, plan
                )
            else:
                hidden_states = block(hidden_states, text, image, modulation, rotary, plan)
        if clean_context is not None:
            hidden_states, temb = (x[:, x.shape[1] // 2 :] for x in (hidden_states, temb))
        sample = self._velocity(hidden_states, temb, slots, level, grid)
        if update_cache and kv_cache is not None:
            kv_cache.append(num_frames)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def _spans(self, num_frames: int, first_chunk_frames: int | None) -> tuple[Span, ...]:
        config = self.config
        return chunk_spans(
            num_frames,
            chunk_frames=config.chunk_frames,
            first_chunk_frames=first_chunk_frames or config.first_chunk_frames or config.chunk_frames,
            window_frames=config.window_frames,
            sink_frames=config.sink_frames,
        )

    def _image_frames(self, num_frames: int, frame_offset: int) -> int:
        # AR-Drag, Eq. 6: the reference image speaks to latent frame 0, and to it alone.
        return num_frames if self.config.image_context == "all" else int(frame_offset == 0)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens of one latent frame."""
        _, patch_height, patch_width = self.config.patch_size
        if height % patch_height or width % patch_width:
            raise ValueError(
                f"Latents of {height}x{width} do not divide into patches of {patch_height}x{patch_width}: "
                "choose another height and width."
            )
        return height // patch_height, width // patch_width

    def _embed_time(self, timestep: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """`timestep [B]` or `[B, F]` -> embedding `[B, M, D]` and modulation `[B, M, 6, D]`, M = 1 or F."""
        embedder = self.condition_embedder
        waves = embedder.timesteps_proj(timestep.flatten())
        weight_dtype = next(embedder.time_embedder.parameters()).dtype
        temb = embedder.time_embedder(waves.to(weight_dtype) if weight_dtype.is_floating_point else waves).to(dtype)
        modulation = embedder.time_proj(embedder.act_fn(temb)).unflatten(1, (6, -1))
        batch_size = timestep.shape[0]
        return temb.unflatten(0, (batch_size, -1)), modulation.unflatten(0, (batch_size, -1))

    def _embed_context(
        self, text: torch.Tensor, image: torch.Tensor | None, plan: AttentionPlan
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Text and image tokens at the width of the model; None where nobody will read them."""
        cache, embedder, kind = plan.kv_cache, self.condition_embedder, self.patch_embedding.weight.dtype
        text_known = cache is not None and cache.use_context("text", text)
        if image is None or not plan.image_frames or (cache is not None and cache.use_context("image", image)):
            return None if text_known else embedder.text_embedder(text.to(kind)), None
        return None if text_known else embedder.text_embedder(text.to(kind)), embedder.image_embedder(image.to(kind))

    def _velocity(
        self,
        hidden_states: torch.Tensor,
        temb: torch.Tensor,
        slots: torch.Tensor,
        sigma: torch.Tensor,
        grid: tuple[int, int],
    ) -> torch.Tensor:
        """The last layers, `[B, C, F, H, W]`; `slots` is the input `[B, in_channels, F, H, W]` at `sigma [B, M]`."""
        shift, scale = (self.scale_shift_table.to(temb.device) + temb.unsqueeze(2)).chunk(2, dim=2)
        hidden_states = modulate(hidden_states, self.norm_out, 1 + scale, shift)
        projected = self._unpatchify(self.proj_out(hidden_states), grid)
        if self.slot_gates is None:
            return projected
        gates = self._unpatchify(self.slot_gates(hidden_states), grid)
        return self.slot_gates.velocity(projected, gates, slots.to(gates.dtype), sigma)

    def _unpatchify(self, patches: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """`[B, tokens, patch*C]` -> `[B, C, F, H, W]`."""
        _, patch_height, patch_width = self.config.patch_size
        cells = patches.unflatten(2, (patch_height, patch_width, -1)).unflatten(1, (-1, *grid))
        return cells.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
