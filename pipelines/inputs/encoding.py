"""Texts and pictures through a pipeline's encoders, on the device where the pipeline runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from torch import Tensor

from ardrag.conditioning import encode_image_tokens, encode_text
from ardrag.controls.control import Scene
from ardrag.streaming_vae import StreamingVAE
from ardrag.transformer import CausalWanTransformer
from pipelines.image_input import image_pixels


class EncodingMixin:
    """`encode_prompt`, `encode_image`, `encode_reference` and `scene` of a diffusers pipeline."""

    transformer: CausalWanTransformer
    vae: AutoencoderKLWan
    text_encoder: Any
    tokenizer: Any
    image_encoder: Any
    image_processor: Any
    _execution_device: torch.device

    def encode_prompt(self, prompts: Sequence[str]) -> Tensor:
        """Text tokens ``[B, Lt, Dt]``."""
        device = self._execution_device
        return encode_text(self.tokenizer, self.text_encoder, prompts, device).to(device, self.transformer.dtype)

    def encode_image(self, image: Image.Image, rows: int = 1) -> Tensor | None:
        """Image tokens ``[rows, Li, Di]`` for latent 0 (Eq. 6), or None for a model without an image encoder."""
        if self.image_encoder is None:
            return None
        values = self.image_processor(images=image, return_tensors="pt").pixel_values
        values = values.to(self._execution_device, self.image_encoder.dtype)
        return encode_image_tokens(self.image_encoder, values).to(self.transformer.dtype).expand(rows, -1, -1)

    def encode_reference(self, image: Image.Image) -> Tensor:
        """Normalised latent ``[1, C, 1, H, W]`` of the reference picture."""
        pixels = image_pixels(image).to(self._execution_device)
        return StreamingVAE(self.vae).encode(pixels).to(self.transformer.dtype)

    def scene(self, image: Image.Image, masks: Tensor | None = None, seed: int = 0) -> Scene:
        """What a control may know of a picture that has the size of the video.

        Raises:
            ValueError: if ``masks`` are not ``[P, H, W]`` of that size.
        """
        size = (image.height, image.width)
        if masks is not None and (masks.ndim != 3 or masks.shape[1:] != size):
            raise ValueError(f"masks: {list(masks.shape)} must be [P, {size[0]}, {size[1]}], one for each track")
        reference = self.encode_reference(image)
        return Scene(image_pixels(image)[0, :, 0].to(reference.device), reference, masks, seed)
