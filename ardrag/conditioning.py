"""Control signals of AR-Drag Eq. 6, put into the slots that the transformer eats, chunk by chunk.

At latent 0 the model sees the trajectory, the text and the reference image; at later latents the trajectory and the
text, with Gaussian noise in the place of the image. The transformer's input channels are named slots whose order and
width are saved in its config as ``input_layout``, e.g. ``{"latents": 16, "motion": 16, "image": 16}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


SLOTS = ("latents", "motion", "image", "mask")
SMALLEST_SIGMA = 1e-3
"""The lowest noise level at which a velocity means anything: one of a thousand timesteps."""


@dataclass(frozen=True)
class Conditions:
    """What the transformer is told about a clip or a chunk of it.

    Shapes: ``motion`` and ``image`` ``[B, C, F, H, W]``, ``text`` ``[B, Lt, Dt]``, ``image_tokens`` ``[B, Li, Di]`` or
    None. ``image`` holds the reference latent at latent 0 and noise elsewhere (Eq. 6). ``attention_kwargs`` go to the
    transformer as they are.
    """

    motion: Tensor
    image: Tensor
    text: Tensor
    image_tokens: Tensor | None = None
    first_latent: int = 0
    attention_kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.motion.shape[0] != self.image.shape[0] or self.motion.shape[2:] != self.image.shape[2:]:
            raise ValueError(
                f"motion and image: shapes {tuple(self.motion.shape)} and {tuple(self.image.shape)} must agree in "
                "batch, latent frames, height and width"
            )

    @property
    def num_latents(self) -> int:
        """Latent frames that these conditions cover."""
        return self.motion.shape[2]

    def detach(self) -> Conditions:
        """The same in float32 and without a gradient: what a rollout is steered by."""
        parts = {name: getattr(self, name) for name in ("motion", "image", "text", "image_tokens")}
        return replace(self, **{name: part.detach().float() for name, part in parts.items() if part is not None})

    def repeated(self, count: int) -> Conditions:
        """The same conditions ``count`` times over, one batch after the other."""
        return self.rows(torch.arange(len(self.motion), device=self.motion.device).repeat(count))

    def rows(self, index: Tensor) -> Conditions:
        """Conditions of the samples ``index`` of the batch."""
        tokens = None if self.image_tokens is None else self.image_tokens[index]
        return replace(
            self, motion=self.motion[index], image=self.image[index], text=self.text[index], image_tokens=tokens
        )

    def chunk(self, start: int, stop: int) -> Conditions:
        """Conditions of latent frames ``start .. stop``, counted from the start of the clip."""
        low, high = start - self.first_latent, stop - self.first_latent
        assert 0 <= low < high <= self.num_latents, "chunk outside of the conditions"
        return replace(self, motion=self.motion[:, :, low:high], image=self.image[:, :, low:high], first_latent=start)


def image_slot(
    reference: Tensor, noise: Tensor, first_latent: int = 0, fill: str = "noise", grey: Tensor | None = None
) -> Tensor:
    """The image slot of Eq. 6: the reference latent ``[B, C, 1, H, W]`` at latent 0, ``noise`` elsewhere.

    ``noise`` ``[B, C, F, H, W]`` comes from each sample's own generator: a result does not depend on its batch.
    ``fill`` is the transformer's ``image_fill``: ``"zeros"`` where a public checkpoint knows zeros instead of noise,
    ``"grey"`` where it knows a grey video after the picture, whose latents (`grey_after`) are then given as ``grey``,
    ``"picture"``, ours for small models, the reference at every latent, so that what rests need not be remembered.
    """
    picture = reference.expand_as(noise)
    rest = {"noise": noise, "zeros": torch.zeros_like(noise), "grey": grey, "picture": picture}[fill]
    assert rest is not None, "grey latents are missing"
    if first_latent > 0:
        return rest.to(noise)
    return torch.cat([reference.to(noise), rest[:, :, 1:].to(noise)], dim=2)


def transformer_input(latents: Tensor, conditions: Conditions, layout: Mapping[str, int]) -> Tensor:
    """Concatenate latents and conditions ``[B, sum(layout), F, H, W]`` in the order of ``layout``.

    The ``mask`` slot, where a layout has one, is 1 at latent 0 and 0 elsewhere (the public InP checkpoints' polarity).

    Raises:
        ValueError: if the layout names an unknown slot or a slot's width does not fit.
    """
    parts = []
    for name, width in layout.items():
        if name not in SLOTS:
            raise ValueError(f"input_layout: slot {name!r} is unknown; known slots are {', '.join(SLOTS)}")
        part = _slot(name, width, latents, conditions)
        if part.shape[1] != width:
            raise ValueError(f"input_layout: slot {name!r} has {width} channels, but {part.shape[1]} were given")
        parts.append(part.to(latents.dtype))
    return torch.cat(parts, dim=1)


def check_forward(
    config: Any, latents: Tensor, timestep: Tensor, text: Tensor, image: Tensor | None, clean: Tensor | None
) -> None:
    """Check what a transformer of that configuration is given; arguments are those of its ``forward``.

    Raises:
        ValueError: by the name that the argument has there.
    """
    if latents.ndim != 5 or latents.shape[1] != config.in_channels:
        raise ValueError(
            f"hidden_states must be [B, {config.in_channels}, F, H, W] (input_layout {dict(config.input_layout)}), "
            f"got {list(latents.shape)}."
        )
    batch_size, _, num_frames = latents.shape[:3]
    if timestep.shape not in ((batch_size,), (batch_size, num_frames)):
        raise ValueError(
            f"timestep must be [B] or [B, F], here [{batch_size}] or [{batch_size}, {num_frames}], got "
            f"{list(timestep.shape)}: expand it."
        )
    if text.ndim != 3 or (text.shape[0], text.shape[2]) != (batch_size, config.text_dim):
        raise ValueError(
            f"encoder_hidden_states must be [{batch_size}, any, {config.text_dim}], got {list(text.shape)}."
        )
    if image is not None and config.image_dim is None:
        raise ValueError("This model has no image branch: leave out encoder_hidden_states_image or set image_dim.")
    if clean is not None and clean.shape != latents.shape:
        raise ValueError(
            f"clean_context {list(clean.shape)} must have the shape of hidden_states {list(latents.shape)}."
        )


class SlotGates(nn.Linear):
    """How much of each slot the answer takes over as it is; ours, for small models.

    A token of 2x2 latents of 32 channels has 128 numbers in each slot, and all slots together would have to pass
    through a stream of 192. Most of what is asked for is there already: what moves in the slot of a control that shows
    it (`ardrag.controls.carried.Collage`), what rests in the picture's. So the transformer's last layer says what is
    to be *added* to what passes its gates, and the sum is taken for the clean latents. New gates let the motion slot
    through and nothing else: untrained, the video is the control.

    Args:
        dim: width of the transformer.
        layout: the transformer's ``input_layout``.
        channels: of the velocity, and of every slot.
        patch_size: latents in a token.
    """

    def __init__(self, dim: int, layout: Mapping[str, int], channels: int, patch_size: int) -> None:
        if set(layout.values()) != {channels} or not {"latents", "motion"} <= set(layout):
            raise ValueError(
                f"gated_slots: every slot must have {channels} channels, and latents and motion be among them, got "
                f"input_layout {dict(layout)}"
            )
        super().__init__(dim, sum(layout.values()) * patch_size)
        self.names = tuple(layout)
        nn.init.zeros_(self.weight)
        shut = torch.zeros(patch_size, len(layout), channels)
        shut[:, self.names.index("motion")] = 1
        self.bias.data.copy_(shut.flatten())

    def velocity(self, added: Tensor, gates: Tensor, slots: Tensor, sigma: Tensor) -> Tensor:
        """The velocity ``[B, C, F, H, W]`` towards the clean latents, as `ardrag.flow.clean_from_velocity` reads it.

        Args:
            added: ``[B, C, F, H, W]``, the transformer's own.
            gates: of all slots ``[B, slots * C, F, H, W]``.
            slots: the transformer's input, of that shape.
            sigma: noise level of each latent frame, ``[B, F]`` or ``[B, 1]``; a clean latent has no velocity, and what
                is said at 0 means nothing.
        """
        clean = added + (gates * slots).unflatten(1, (len(self.names), -1)).sum(1)
        noisy = slots.unflatten(1, (len(self.names), -1))[:, self.names.index("latents")]
        return (noisy - clean) / sigma.clamp(min=SMALLEST_SIGMA)[:, None, :, None, None].to(clean.dtype)


def _slot(name: str, width: int, latents: Tensor, conditions: Conditions) -> Tensor:
    if name == "latents":
        return latents
    if name == "motion":
        return conditions.motion
    if name == "image":
        return conditions.image
    batch, _, frames, height, width_px = latents.shape
    mask = latents.new_zeros(batch, width, frames, height, width_px)
    if conditions.first_latent == 0:
        mask[:, :, 0] = 1
    return mask


def encode_text(
    tokenizer: Any,
    text_encoder: Any,
    prompts: Sequence[str],
    device: torch.device | None = None,
    max_length: int | None = None,
) -> Tensor:
    """Text tokens ``[B, Lt, Dt]`` of ``prompts``, zero after each prompt's end, as Wan does.

    ``Lt`` is ``max_length``, or the tokenizer's ``model_max_length`` (512 for Wan, less for the tiny model).
    ``device`` is where the encoder runs; None is where its weights lie.
    """
    place = text_encoder.device if device is None else device
    return encode_token_ids(text_encoder, *(part.to(place) for part in token_ids(tokenizer, prompts, max_length)))


def token_ids(tokenizer: Any, prompts: Sequence[str], max_length: int | None = None) -> tuple[Tensor, Tensor]:
    """Token ids ``[B, Lt]`` of ``prompts`` and where they are, 1, not beyond a prompt's end, 0."""
    options = {"padding": "max_length", "truncation": True, "return_tensors": "pt", "return_attention_mask": True}
    batch = tokenizer(list(prompts), max_length=max_length, **options)
    return batch.input_ids, batch.attention_mask


def encode_token_ids(text_encoder: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Text tokens ``[B, Lt, Dt]`` of token ids ``[B, Lt]``; positions outside the mask become zero."""
    hidden: Tensor = text_encoder(input_ids, attention_mask).last_hidden_state
    return hidden * attention_mask[..., None].to(hidden.dtype)


def encode_image_tokens(image_encoder: Any, pixel_values: Tensor) -> Tensor:
    """Image tokens ``[B, Li, Di]`` for latent 0 (Eq. 6): the CLIP tower's last hidden layer but one, as Wan uses."""
    tokens: Tensor = image_encoder(pixel_values, output_hidden_states=True).hidden_states[-2]
    return tokens
