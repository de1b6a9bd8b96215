"""Texts and pictures through a pipeline's encoders, on the device where the pipeline runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from torch import Tensor

from ardrag.conditioning import encode_image_tokens, encode_token_ids, token_ids
from ardrag.controls.control import Scene
from ardrag.known.answers import answer, digest
from ardrag.outlines.network import Outline
from ardrag.streaming_vae import StreamingVAE
from ardrag.transformer import CausalWanTransformer
from pipelines.image_input import image_pixels
from pipelines.inputs.hooks import is_hooked


class EncodingMixin:
    """`encode_prompt`, `encode_image`, `encode_reference` and `scene` of a diffusers pipeline."""

    transformer: CausalWanTransformer
    vae: AutoencoderKLWan
    text_encoder: Any
    tokenizer: Any
    image_encoder: Any
    image_processor: Any
    outline: Outline | None

    @property
    def _execution_device(self) -> torch.device:
        """Where the models run: where they lie, or where hooks bring them, which takes diffusers long to find out."""
        models = (self.transformer, self.vae, self.text_encoder, self.image_encoder)
        if any(is_hooked(model) for model in models if model is not None):
            asked: torch.device = super()._execution_device  # type: ignore[misc]
            return asked
        return next((self.text_encoder if self.transformer is None else self.transformer).parameters()).device

    def _place(self, device: torch.device | None) -> torch.device:
        """Where the models run: ``device`` for a caller who has asked before."""
        return self._execution_device if device is None else device

    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None,
        negative_prompt: str | Sequence[str] | None = None,
        do_classifier_free_guidance: bool = True,
        num_videos_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        max_sequence_length: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Text tokens ``[B, Lt, Dt]`` of what is wanted and, under guidance, of what is not.

        Args:
            prompt, negative_prompt: texts, one or a list; None is an empty text.
            do_classifier_free_guidance: whether the negative tokens are needed; else they are None.
            num_videos_per_prompt: how often each row is repeated.
            prompt_embeds, negative_prompt_embeds: tokens from an earlier call, instead of texts.
            max_sequence_length: tokens per text; default is the tokenizer's own number.
            device, dtype: of the result; default is where the pipeline runs, and the transformer's.

        Raises:
            ValueError: if there are texts and no text encoder.
        """
        place = self._place(device)
        dtype = (self.text_encoder if self.transformer is None else self.transformer).dtype if dtype is None else dtype
        texts = as_texts(prompt) if prompt_embeds is None else []
        negatives = as_texts(negative_prompt) if do_classifier_free_guidance and negative_prompt_embeds is None else []
        if len(negatives) == 1:
            negatives = negatives * (len(texts) if prompt_embeds is None else len(prompt_embeds))
        if texts or negatives:
            if self.text_encoder is None:
                raise ValueError("prompt: this pipeline has no text encoder; give prompt_embeds and negative ones")
            tokens = torch.cat([self._text(text, place, max_sequence_length) for text in (*texts, *negatives)])
            prompt_embeds = tokens[: len(texts)] if texts else prompt_embeds
            negative_prompt_embeds = tokens[len(texts) :] if negatives else negative_prompt_embeds
        assert prompt_embeds is not None
        repeats = num_videos_per_prompt
        prompt_embeds = prompt_embeds.to(place, dtype).repeat_interleave(repeats, dim=0)
        if do_classifier_free_guidance and negative_prompt_embeds is not None:
            negative_prompt_embeds = negative_prompt_embeds.to(place, dtype).repeat_interleave(repeats, dim=0)
        else:
            negative_prompt_embeds = None
        return prompt_embeds, negative_prompt_embeds

    def _text(self, text: str, place: torch.device, max_length: int | None) -> Tensor:
        """Tokens ``[1, Lt, Dt]`` of one text: it is known alone, whatever stands beside it."""
        encoder, ids = self.text_encoder, token_ids(self.tokenizer, [text], max_length)
        return answer(
            encoder, digest(*ids), place, lambda: encode_token_ids(encoder, *(part.to(place) for part in ids))
        )

    def encode_image(self, image: Image.Image, rows: int = 1, device: torch.device | None = None) -> Tensor | None:
        """Image tokens ``[rows, Li, Di]`` for latent 0 (Eq. 6), or None for a model without an image encoder.

        ``device`` is where the pipeline runs, for a caller who has asked before: all modules are asked for hooks.
        """
        if self.image_encoder is None:
            return None
        encoder, place = self.image_encoder, self._place(device)
        values = self.image_processor(images=image, return_tensors="pt").pixel_values
        tokens = answer(
            encoder, digest(values), place, lambda: encode_image_tokens(encoder, values.to(place, encoder.dtype))
        )
        return tokens.to(self.transformer.dtype).repeat(rows, 1, 1)

    def image_tokens(
        self, image: Image.Image, given: Tensor | None = None, rows: int = 1, device: torch.device | None = None
    ) -> Tensor | None:
        """Image tokens ``[rows, Li, Di]``: of ``image``, or those ``given`` ``[1, Li, Di]`` from an earlier call."""
        if given is None:
            return self.encode_image(image, rows, device)
        return given.to(self._place(device), self.transformer.dtype).expand(rows, -1, -1)

    def encode_reference(self, image: Image.Image, device: torch.device | None = None) -> Tensor:
        """Normalised latent ``[1, C, 1, H, W]`` of the reference picture; see `encode_image` for ``device``."""
        pixels, place = image_pixels(image), self._place(device)
        latent = answer(self.vae, digest(pixels), place, lambda: StreamingVAE(self.vae).encode(pixels.to(place)))
        return latent.to(self.transformer.dtype, copy=True)

    def scene(
        self, image: Image.Image, masks: Tensor | None = None, seed: int = 0, device: torch.device | None = None
    ) -> Scene:
        """What a control may know of a picture that has the size of the video.

        Raises:
            ValueError: if ``masks`` are not ``[P, H, W]`` of that size.
        """
        size = (image.height, image.width)
        if masks is not None and (masks.ndim != 3 or masks.shape[1:] != size):
            raise ValueError(f"masks: {list(masks.shape)} must be [P, {size[0]}, {size[1]}], one for each track")
        reference = self.encode_reference(image, device)
        return Scene(image_pixels(image)[0, :, 0].to(reference.device), reference, masks, seed, self.outline)


def as_texts(prompt: str | Sequence[str] | None) -> list[str]:
    """One or more texts as a list; None is an empty text."""
    return [prompt or ""] if prompt is None or isinstance(prompt, str) else [text or "" for text in prompt]
