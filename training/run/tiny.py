"""The small components of `ardrag-tiny`: transformer, text encoder and tokenizer, image encoder and processor.

All are real classes of diffusers and transformers in small sizes; nothing here is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from diffusers import AutoencoderKLWan
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

from ardrag.transformer import CausalWanTransformer


TEXT_WIDTH = 64
IMAGE_WIDTH = 64
MAX_TEXT_TOKENS = 32


def train_tokenizer(captions: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; any text can be encoded, also what no caption ever said."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(captions, trainer)
    end = ("</s>", tokenizer.token_to_id("</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[end])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=MAX_TEXT_TOKENS
    )


def build_text_encoder(vocab_size: int) -> UMT5EncoderModel:
    """A two-layer UMT5 encoder."""
    config = UMT5Config(
        vocab_size=vocab_size,
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


def build_image_encoder(side: int) -> tuple[CLIPVisionModel, CLIPImageProcessorPil]:
    """A small CLIP vision tower for pictures of ``side`` pixels, with its processor."""
    config = CLIPVisionConfig(
        hidden_size=IMAGE_WIDTH,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=side,
        patch_size=side // 8,
    )
    size = {"height": side, "width": side}
    processor = CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False)
    return CLIPVisionModel(config), processor


def build_transformer(
    vae: AutoencoderKLWan, num_layers: int, num_heads: int, head_dim: int, ffn_dim: int
) -> CausalWanTransformer:
    """A small `CausalWanTransformer` for the latents of ``vae``, laid out as the public Fun-Control checkpoint."""
    channels = vae.config.z_dim
    return CausalWanTransformer(
        patch_size=(1, 2, 2),
        num_attention_heads=num_heads,
        attention_head_dim=head_dim,
        in_channels=3 * channels,
        out_channels=channels,
        text_dim=TEXT_WIDTH,
        freq_dim=128,
        ffn_dim=ffn_dim,
        num_layers=num_layers,
        image_dim=IMAGE_WIDTH,
        added_kv_proj_dim=num_heads * head_dim,
        input_layout={"latents": channels, "motion": channels, "image": channels},
        image_context="first",
        activation_fn="gelu",
    )


def began_here(pipeline: Any) -> bool:
    """The text encoder is a small one that was trained with its transformer, and goes on being so."""
    return bool(pipeline.text_encoder.config.d_model == TEXT_WIDTH)


def pixel_values(processor: CLIPImageProcessorPil, images: Sequence[Any]) -> Any:
    """Processed pictures ``[B, 3, S, S]`` for the image encoder."""
    return processor(images=list(images), return_tensors="pt").pixel_values
