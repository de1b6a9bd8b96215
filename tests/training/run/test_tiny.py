"""The small components: real classes, any text, pictures of any size, the layout of the public checkpoint."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from training.run import tiny


CAPTIONS = ["a red star moves right on a noise background", "a blue circle with a face moves up"]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.train_tokenizer(CAPTIONS, vocab_size=300)


def test_tokenizer_ends_and_pads(tokenizer):
    ids = tokenizer(["a red star", "a"], padding="max_length", truncation=True).input_ids
    assert all(len(row) == tiny.MAX_TEXT_TOKENS for row in ids)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    row = [token for token in ids[0] if token != 0]
    assert row[-1] == 1 and tokenizer.decode(row, skip_special_tokens=True).strip() == "a red star"


@pytest.mark.parametrize("text", ["", "A RED STAR!", "\u661f moves \u2192", "\x00\n\t", "star " * 200])
def test_any_text_can_be_encoded(tokenizer, text):
    row = tokenizer([text], padding="max_length", truncation=True).input_ids[0]
    assert len(row) == tiny.MAX_TEXT_TOKENS and max(row) < len(tokenizer) and None not in row


def test_capitals_do_not_matter(tokenizer):
    assert tokenizer("Red STAR").input_ids == tokenizer("red star").input_ids


def test_the_same_captions_make_the_same_tokenizer(tokenizer):
    assert tiny.train_tokenizer(CAPTIONS, vocab_size=300).get_vocab() == tokenizer.get_vocab()


def test_tokenizer_survives_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    options = {"padding": "max_length", "truncation": True}
    assert loaded(CAPTIONS, **options).input_ids == tokenizer(CAPTIONS, **options).input_ids


def test_text_encoder(tokenizer):
    encoder = tiny.build_text_encoder(len(tokenizer))
    assert encoder(torch.tensor([[2, 3, 1]])).last_hidden_state.shape == (1, 3, tiny.TEXT_WIDTH)


@pytest.mark.parametrize("side", [32, 64])
def test_image_encoder_takes_pictures_of_any_size(side):
    encoder, processor = tiny.build_image_encoder(side)
    pictures = [Image.new("RGB", (50, 20), (9, 9, 9)), np.zeros((side, side, 3), np.uint8)]
    values = tiny.pixel_values(processor, pictures)
    assert values.shape == (2, 3, side, side)
    assert encoder(values).last_hidden_state.shape == (2, 65, tiny.IMAGE_WIDTH)


def test_transformer_has_the_layout_of_the_public_checkpoint(pipeline):
    transformer = tiny.build_transformer(pipeline.vae, num_layers=1, num_heads=2, head_dim=12, ffn_dim=16)
    channels = pipeline.vae.config.z_dim
    assert list(transformer.config.input_layout.items()) == [(s, channels) for s in ("latents", "motion", "image")]
    assert transformer.config.image_context == "first" and transformer.config.out_channels == channels
    assert transformer.config.text_dim == tiny.TEXT_WIDTH and transformer.config.image_dim == tiny.IMAGE_WIDTH
