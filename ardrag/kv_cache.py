"""The context of a causal transformer: a preallocated ring of keys and values (AR-Drag, section 3.2 and B.2).

AR-Drag makes one latent frame at a time (`chunk_frames = 1`) and looks back at seven (`window_frames = 7`). Keys are
stored after RoPE: attention sees position differences only, so a sliding window needs neither rolling nor
re-rotation, and the order of the frames in the buffer does not matter. Frame `m` has its own place,

    slot(m) = m                                 m < sink_frames
    slot(m) = sink_frames + (m - sink_frames) mod (window_frames + chunk_frames)    otherwise

and the chunk in the making lives in the spare slots: each denoising step `overwrite`s it there, `append` makes it
context once it is clean. What attention reads is always one slice of the buffer, starting at its first slot.

Shapes: `B` batch, `N` heads, `D` head dim, `L` tokens per latent frame; keys and values are `[B, frames*L, N, D]`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch


ShiftKeys = Callable[[torch.Tensor, int], torch.Tensor]
KeysValues = tuple[torch.Tensor, torch.Tensor]
Made = TypeVar("Made")
MAX_KEPT = 32
"""Tensors (noise levels, and what the model makes of them) that a cache remembers the modulation of."""


class ClipHistory:
    """Keys and values of all latent frames of a finished clip, layer by layer: what training looks back at.

    It never evicts and is never overwritten (the window is a matter of slicing), so that activations which are
    computed again in the backward pass see the same past as the first time. It carries no gradient, like the cache
    that it stands for. Filled by a pass of `CausalWanTransformer` with `record_history=True`.
    """

    def __init__(self) -> None:
        self._layers: dict[int, KeysValues] = {}

    def record(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keep the keys (after RoPE) and values `[B, F*L, N, D]` of one layer."""
        self._layers[layer] = (key.detach(), value.detach())

    def layer(self, layer: int) -> KeysValues:
        """Keys and values of one layer."""
        return self._layers[layer]


class KVCache:
    """Keys and values of the latest `window_frames` latent frames of every layer, for inference.

    Args:
        num_layers, batch_size, num_heads, head_dim, tokens_per_frame: sizes of the transformer and its input.
        window_frames: how many latent frames before a chunk the chunk can see.
        chunk_frames: latent frames of one autoregressive step.
        sink_frames: first latent frames that stay visible for ever, as if they stood directly before the window.
        history_frames: how many latent frames `rollback` can go back once the window has begun to slide.
        shift_keys: `(keys [B, n, N, D], frames) -> keys`, turns rotated keys further by some latent frames; needed
            with `sink_frames` only.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        batch_size: int,
        num_heads: int,
        head_dim: int,
        tokens_per_frame: int,
        window_frames: int,
        chunk_frames: int,
        sink_frames: int = 0,
        history_frames: int = 0,
        shift_keys: ShiftKeys | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        sizes = {"num_layers": num_layers, "batch_size": batch_size, "num_heads": num_heads, "head_dim": head_dim}
        sizes |= {"tokens_per_frame": tokens_per_frame, "window_frames": window_frames, "chunk_frames": chunk_frames}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}.")
        for name, size in {"sink_frames": sink_frames, "history_frames": history_frames}.items():
            if size < 0:
                raise ValueError(f"{name} must be 0 or more, got {size}.")
        if sink_frames and shift_keys is None:
            raise ValueError(
                "sink_frames needs shift_keys, which re-rotates the sink: use transformer.new_cache(...)."
            )
        self.num_layers = num_layers
        self.batch_size = batch_size
        self.tokens_per_frame = tokens_per_frame
        self.window_frames = window_frames
        self.chunk_frames = chunk_frames
        self.sink_frames = sink_frames
        self.history_frames = history_frames
        self.dtype = dtype
        self._shift_keys = shift_keys
        self._position = self._oldest = self._sink_shift = 0
        self._context: dict[str, tuple[torch.Tensor, list[KeysValues | None]]] = {}
        self._kept: dict[int, tuple[torch.Tensor, dict[int | None, Any]]] = {}

        # Nothing is read that was not written before, so nothing is cleared: that took 2 ms of every new session.
        def allocate(frames: int) -> list[torch.Tensor]:
            shape = (batch_size, frames * tokens_per_frame, num_heads, head_dim)
            return [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)]

        slots = sink_frames + window_frames + chunk_frames
        # A buffer born under inference_mode could not be written outside it.
        with torch.inference_mode(False):
            self._keys, self._values = allocate(slots), allocate(slots)
            self._past_keys, self._past_values = allocate(history_frames), allocate(history_frames)
            self._sink_keys = allocate(sink_frames)

    # Positions: Python integers, so that nothing waits for the device.

    @property
    def position(self) -> int:
        """The latent frame that comes next; all frames before it are context."""
        return self._position

    @property
    def earliest(self) -> int:
        """The earliest latent frame that `rollback` can go to."""
        return 0 if self._oldest == 0 else self._oldest + self.window_frames

    @property
    def nbytes(self) -> int:
        """Memory of the preallocated buffers in bytes; it does not grow with the length of the video."""
        return sum(buffer.nbytes for buffers in self._buffers() for buffer in buffers)

    def _buffers(self) -> tuple[list[torch.Tensor], ...]:
        return self._keys, self._values, self._past_keys, self._past_values, self._sink_keys

    @property
    def _ring_frames(self) -> int:
        return self.window_frames + self.chunk_frames

    def _slot(self, frame: int) -> int:
        return frame if frame < self.sink_frames else self.sink_frames + (frame - self.sink_frames) % self._ring_frames

    def _tokens(self, slot: int, num_frames: int) -> slice:
        return slice(slot * self.tokens_per_frame, (slot + num_frames) * self.tokens_per_frame)

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Splits frames `start..stop` where their slots wrap round: pairs (first frame, number of frames)."""
        while start < stop:
            slots_left = self.sink_frames + self._ring_frames - self._slot(start)
            count = min(stop - start, slots_left)
            yield start, count
            start += count

    # The four verbs.

    def check_chunk(self, num_frames: int) -> None:
        """Raises ValueError unless a chunk of `num_frames` can come next."""
        sliding = self._position - self.sink_frames > self.window_frames
        if num_frames == self.chunk_frames or (not sliding and 0 < num_frames < self.chunk_frames):
            return
        raise ValueError(
            f"A chunk of {num_frames} latent frames does not fit at position {self._position}: the cache was made for "
            f"chunks of {self.chunk_frames}; only up to position {self.sink_frames + self.window_frames} may one be "
            "shorter. Build the cache with that chunk_frames."
        )

    def overwrite(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> KeysValues:
        """Puts the chunk in the making at the next position and returns what it sees: context and itself.

        `key` (after RoPE) and `value` are `[B, num_frames*L, N, D]`. The result is two views of the buffer; writing
        the same chunk again (the next denoising step) replaces it.
        """
        if torch.is_grad_enabled() and (key.requires_grad or value.requires_grad):
            raise ValueError(
                "KVCache is for inference and is overwritten in place, so no gradient can flow through it. Wrap the "
                "call in torch.no_grad(), or train with a causal pass: causal=True and clean_context or history."
            )
        if key.dtype != self.dtype:
            raise ValueError(f"The cache holds {self.dtype} but the keys are {key.dtype}: make it with that dtype.")
        num_frames, rest = divmod(key.shape[1], self.tokens_per_frame)
        if rest or key.shape[0] != self.batch_size:
            raise ValueError(
                f"Expected keys [{self.batch_size}, n*{self.tokens_per_frame}, N, D] as the cache was made for, got "
                f"{list(key.shape)}: make a new cache for another batch size or resolution."
            )
        self.check_chunk(num_frames)
        keys, values = self._keys[layer], self._values[layer]
        stop = self._position + num_frames
        for frame, count in self._runs(self._position, stop):
            target = self._tokens(self._slot(frame), count)
            source = self._tokens(frame - self._position, count)
            keys[:, target] = key[:, source]
            values[:, target] = value[:, source]
        valid = self._tokens(0, min(stop, self.sink_frames + self._ring_frames))
        return keys[:, valid], values[:, valid]

    def append(self, num_frames: int) -> None:
        """The chunk last written by `overwrite` becomes context: the position moves on by `num_frames`."""
        self.check_chunk(num_frames)
        start, stop = self._position, self._position + num_frames
        self._archive(start - self.window_frames, stop - self.window_frames)
        for frame in range(start, min(stop, self.sink_frames)):
            for keys, sink_keys in zip(self._keys, self._sink_keys, strict=True):
                sink_keys[:, self._tokens(frame, 1)] = keys[:, self._tokens(frame, 1)]
        self._position = stop
        self._place_sink()

    def rollback(self, frame: int) -> None:
        """Forgets latent frame `frame` and all after it, so that `frame` comes next.

        Once the window slides, frames that must become visible again come from the history.
        """
        if not self.earliest <= frame <= self._position:
            raise ValueError(
                f"Cannot roll back to latent frame {frame}: this cache can go to {self.earliest}..{self._position}. "
                f"Make it with a larger history_frames (now {self.history_frames}) to go further."
            )
        gone = min(frame, self._position - self.window_frames)
        for past in range(max(self.sink_frames, frame - self.window_frames), gone):
            source, target = self._tokens(past % max(self.history_frames, 1), 1), self._tokens(self._slot(past), 1)
            for layer in range(self.num_layers):
                self._keys[layer][:, target] = self._past_keys[layer][:, source]
                self._values[layer][:, target] = self._past_values[layer][:, source]
        self._position = frame
        self._place_sink()

    def retract(self, frame: int) -> None:
        """Takes the last `append` back, or what was done of it when it broke off, so that `frame` comes next again.

        Possible until the next `overwrite`, whatever the history: the chunk that was appended stood in spare slots.
        """
        assert frame <= self._position <= frame + self.chunk_frames
        self._position = frame
        self._place_sink()

    def reset(self) -> None:
        """Back to an empty cache at position 0; the prompt's keys and values are forgotten too."""
        self._position = self._oldest = self._sink_shift = 0
        self.reset_context()

    def fork(self) -> KVCache:
        """An independent copy: what happens to one of them no longer touches the other."""
        other = copy.copy(self)
        with torch.inference_mode(False):
            other._keys, other._values, other._past_keys, other._past_values, other._sink_keys = (
                [buffer.clone() for buffer in buffers] for buffers in self._buffers()
            )
        other._context = {name: (source, list(kept)) for name, (source, kept) in self._context.items()}
        other._kept = {key: (source, dict(made)) for key, (source, made) in self._kept.items()}
        return other

    def _archive(self, start: int, stop: int) -> None:
        """Keeps frames `start..stop`, which leave the window, while their slots are still intact."""
        self._oldest = max(self._oldest, stop - self.history_frames)  # what is overwritten is gone from here on
        for frame in range(max(start, 0), stop) if self.history_frames else ():
            source, target = self._tokens(self._slot(frame), 1), self._tokens(frame % self.history_frames, 1)
            for layer in range(self.num_layers):
                self._past_keys[layer][:, target] = self._keys[layer][:, source]
                self._past_values[layer][:, target] = self._values[layer][:, source]

    def _place_sink(self) -> None:
        """Turns the sink's keys so that they stand directly before the window."""
        shift = max(0, self._position - self.window_frames - self.sink_frames)
        if self._shift_keys is None or shift == self._sink_shift:
            return
        sink = self._tokens(0, self.sink_frames)
        self._sink_shift = -1  # neither the old nor the new one, until all keys are turned
        for keys, sink_keys in zip(self._keys, self._sink_keys, strict=True):
            keys[:, sink] = self._shift_keys(sink_keys, shift) if shift else sink_keys
        self._sink_shift = shift

    # Cross-attention: keys and values of the text and of the image are the same in every pass of one prompt.

    def use_context(self, name: str, source: torch.Tensor) -> bool:
        """True if every layer holds the keys and values of the tokens `source` (`name` is "text" or "image").

        Another tensor object than last time is another prompt: what was kept under `name` is then forgotten.
        """
        if name in self._context and self._context[name][0] is source:
            return None not in self._context[name][1]
        self._context[name] = (source, [None] * self.num_layers)
        return False

    def context(self, layer: int, name: str) -> KeysValues | None:
        """Keys and values `[B, tokens, N, D]` of one layer, or None where `set_context` has to bring them."""
        return self._context[name][1][layer]

    def set_context(self, layer: int, name: str, keys_values: KeysValues) -> None:
        """Keeps what one layer made from the tokens announced by `use_context`."""
        self._context[name][1][layer] = keys_values

    def reset_context(self) -> None:
        """Forgets text, image and `kept`; call it after changing them in place, or changing weights or adapters."""
        self._context, self._kept = {}, {}

    # Modulation: the same at every latent frame for each of the few noise levels of a schedule.

    def kept(self, source: torch.Tensor, layer: int | None, make: Callable[[torch.Tensor], Made]) -> Made:
        """`make(source)`, made once for each layer and tensor object `source` (the latest `MAX_KEPT` of them)."""
        if id(source) not in self._kept:
            while len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[id(source)] = (source, {})  # holds the object, so that its id is nobody else's
        made = self._kept[id(source)][1]
        if layer not in made:
            made[layer] = make(source)
        found: Made = made[layer]
        return found
