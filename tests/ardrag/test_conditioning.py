"""What the transformer is told: slots in the order of the layout, the image at latent 0 only, chunks, padded text."""

import pytest
import torch

from ardrag.conditioning import (
    Conditions,
    encode_image_tokens,
    encode_text,
    encode_token_ids,
    image_slot,
    transformer_input,
)


FRAMES, HEIGHT, WIDTH = 5, 2, 3


def block(channels, value=None, frames=FRAMES):
    shape = (2, channels, frames, HEIGHT, WIDTH)
    return torch.randn(shape) if value is None else torch.full(shape, float(value))


@pytest.fixture
def conditions():
    return Conditions(block(4), block(3), torch.randn(2, 6, 8), torch.randn(2, 9, 7))


@pytest.mark.parametrize(
    "layout",
    [
        {"latents": 2, "motion": 4, "image": 3},
        {"image": 3, "latents": 2, "motion": 4},
        {"latents": 2, "mask": 4, "image": 3, "motion": 4},
        {"latents": 2},
    ],
)
def test_slots_stand_in_the_order_of_the_layout(conditions, layout):
    latents = block(2)
    mask = torch.zeros(2, 4, FRAMES, HEIGHT, WIDTH)
    mask[:, :, 0] = 1
    known = {"latents": latents, "motion": conditions.motion, "image": conditions.image, "mask": mask}
    expected = torch.cat([known[name] for name in layout], dim=1)
    assert torch.equal(transformer_input(latents, conditions, layout), expected)


def test_mask_marks_latent_0_only(conditions):
    layout = {"mask": 4}
    first = transformer_input(block(2), conditions, layout)
    assert first[:, :, 0].eq(1).all() and first[:, :, 1:].eq(0).all()
    later = conditions.chunk(2, 4)
    assert transformer_input(block(2, frames=2), later, layout).eq(0).all()


def test_input_has_the_type_of_the_latents(conditions):
    assert transformer_input(block(2).half(), conditions, {"latents": 2, "motion": 4}).dtype == torch.float16


def test_wrong_layouts_are_refused(conditions):
    with pytest.raises(ValueError, match="slot 'depth' is unknown; known slots are latents, motion, image, mask"):
        transformer_input(block(2), conditions, {"latents": 2, "depth": 1})
    with pytest.raises(ValueError, match="slot 'motion' has 5 channels, but 4 were given"):
        transformer_input(block(2), conditions, {"latents": 2, "motion": 5})


def test_image_stands_at_latent_0_only():
    reference, noise = block(3, frames=1), block(3)
    slot = image_slot(reference, noise)
    assert torch.equal(slot[:, :, :1], reference) and torch.equal(slot[:, :, 1:], noise[:, :, 1:])
    assert torch.equal(image_slot(reference, noise, first_latent=3), noise)
    assert image_slot(reference.double(), noise).dtype == noise.dtype
    zeros = image_slot(reference, noise, fill="zeros")
    assert torch.equal(zeros[:, :, :1], reference) and not zeros[:, :, 1:].any()
    assert not image_slot(reference, noise, first_latent=3, fill="zeros").any()
    for first in (0, 3):
        assert torch.equal(image_slot(reference, noise, first, fill="picture"), reference.expand_as(noise))
    grey = torch.full_like(noise, 0.5)
    assert torch.equal(image_slot(reference, noise, fill="grey", grey=grey)[:, :, 1:], grey[:, :, 1:])
    assert torch.equal(image_slot(reference, noise, 3, "grey", grey), grey)


def test_chunks_count_from_the_start_of_the_clip(conditions):
    chunk = conditions.chunk(1, 4)
    assert (chunk.num_latents, chunk.first_latent) == (3, 1)
    assert torch.equal(chunk.motion, conditions.motion[:, :, 1:4])
    assert torch.equal(chunk.image, conditions.image[:, :, 1:4])
    assert chunk.text is conditions.text and chunk.image_tokens is conditions.image_tokens
    again = chunk.chunk(2, 3)
    assert torch.equal(again.motion, conditions.motion[:, :, 2:3]) and again.first_latent == 2


def test_rows_and_repeats(conditions):
    index = torch.tensor([1])
    row, thrice = conditions.rows(index), conditions.repeated(3)
    for name in ("motion", "image", "text", "image_tokens"):
        whole = getattr(conditions, name)
        assert torch.equal(getattr(row, name), whole[index])
        assert torch.equal(getattr(thrice, name), torch.cat([whole] * 3))
    assert conditions.chunk(1, 3).rows(index).first_latent == 1


def test_detached_conditions_are_float32_and_constant(conditions):
    motion = conditions.motion.double().requires_grad_(True)
    without_tokens = Conditions(motion, conditions.image, conditions.text.half())
    detached = without_tokens.detach()
    assert not detached.motion.requires_grad and detached.image_tokens is None
    assert {x.dtype for x in (detached.motion, detached.image, detached.text)} == {torch.float32}


@pytest.mark.parametrize(("start", "stop"), [(0, 2), (1, 5), (2, 2)])
def test_chunk_outside_is_our_own_mistake(conditions, start, stop):
    with pytest.raises(AssertionError):
        conditions.chunk(1, 4).chunk(start, stop)


def test_motion_and_image_must_agree():
    with pytest.raises(ValueError, match="motion and image: shapes"):
        Conditions(block(4), block(3, frames=FRAMES - 1), torch.randn(2, 6, 8))


def test_text_is_zero_after_its_end(pipeline):
    texts = ["a red star moves right", "", "a blue circle"]
    tokens = encode_text(pipeline.tokenizer, pipeline.text_encoder, texts)
    lengths = [len(pipeline.tokenizer(text).input_ids) for text in texts]
    assert tokens.shape[:2] == (3, pipeline.tokenizer.model_max_length)
    for row, length in zip(tokens, lengths, strict=True):
        assert row[length:].eq(0).all() and row[:length].abs().sum(1).gt(0).all()


def test_padding_changes_nothing_before_it(pipeline):
    ids = torch.tensor([pipeline.tokenizer("a red star").input_ids])
    padded = torch.cat([ids, torch.zeros(1, 5, dtype=ids.dtype)], dim=1)
    mask = torch.tensor([[1] * ids.shape[1] + [0] * 5])
    alone = encode_token_ids(pipeline.text_encoder, ids, torch.ones_like(ids))
    both = encode_token_ids(pipeline.text_encoder, padded, mask)
    torch.testing.assert_close(both[:, : ids.shape[1]], alone, rtol=0, atol=1e-5)
    assert both[:, ids.shape[1] :].eq(0).all()


def test_a_long_text_is_cut(pipeline):
    tokens = encode_text(pipeline.tokenizer, pipeline.text_encoder, ["star " * 500])
    assert tokens.shape[1] == pipeline.tokenizer.model_max_length


def test_image_tokens_are_the_last_hidden_layer_but_one(pipeline):
    pixels = torch.randn(2, 3, 32, 32)
    tokens = encode_image_tokens(pipeline.image_encoder, pixels)
    layers = pipeline.image_encoder(pixels, output_hidden_states=True).hidden_states
    assert torch.equal(tokens, layers[-2]) and not torch.equal(tokens, layers[-1])
