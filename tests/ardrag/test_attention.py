"""Rotary positions against Wan's own, and the sliced window against a dense mask drawn from its definition."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from ardrag.attention import (
    AttentionKernel,
    AttentionPlan,
    block_causal_attend,
    chunk_spans,
    rotary_factors,
    rotate,
    shift_keys,
)


HEAD_DIM, TOKENS, CPU = 24, 3, torch.device("cpu")


def upstream_rotate(tokens, cos, sin):
    """Rotation of neighbouring channels written out, with Wan's repeated factors `[1, n, 1, D]`."""
    turned = torch.stack([-tokens[..., 1::2], tokens[..., 0::2]], dim=-1).flatten(-2)
    return tokens * cos + turned * sin


@pytest.mark.parametrize("head_dim", [12, 24, 48, 128])
def test_rotary_is_wans(head_dim):
    cos, sin = WanRotaryPosEmbed(head_dim, (1, 2, 2), 64)(torch.zeros(1, 1, 5, 8, 6))
    factors = rotary_factors(head_dim, 0, 5, 4, 3, CPU)
    assert torch.equal(factors.real.repeat_interleave(2, -1)[None], cos)
    assert torch.equal(factors.imag.repeat_interleave(2, -1)[None], sin)
    tokens = torch.randn(2, 60, 3, head_dim)
    torch.testing.assert_close(rotate(tokens, factors), upstream_rotate(tokens, cos, sin), atol=1e-6, rtol=0)


def test_rotary_with_offset_continues_the_table():
    whole = rotary_factors(HEAD_DIM, 0, 9, 2, 2, CPU)
    assert torch.equal(rotary_factors(HEAD_DIM, 6, 3, 2, 2, CPU), whole[6 * 4 :])


def test_rotary_is_exact_far_beyond_any_table():
    """Scores depend on differences of positions only, an hour or a day into a stream alike."""
    query, key = torch.randn(2, 1, 4, 1, HEAD_DIM)

    def score(offset):
        near, far = (rotary_factors(HEAD_DIM, offset + m, 1, 2, 2, CPU) for m in (7, 4))
        return (rotate(query, near) * rotate(key, far)).sum(-1)

    torch.testing.assert_close(score(100_000), score(0), atol=1e-5, rtol=0)


def test_factors_made_under_inference_mode_serve_training():
    rotary_factors.cache_clear()
    with torch.inference_mode():
        factors = rotary_factors(HEAD_DIM, 3, 1, 2, 2, CPU)
    tokens = torch.randn(1, 4, 1, HEAD_DIM, requires_grad=True)
    rotate(tokens, factors).sum().backward()
    assert tokens.grad is not None


def test_shift_keys_moves_in_time_only():
    keys = torch.randn(2, 4, 3, HEAD_DIM)
    moved = shift_keys(rotate(keys, rotary_factors(HEAD_DIM, 1, 1, 2, 2, CPU)), 41)
    torch.testing.assert_close(moved, rotate(keys, rotary_factors(HEAD_DIM, 42, 1, 2, 2, CPU)), atol=1e-6, rtol=0)


def test_rotate_keeps_the_dtype():
    tokens = torch.randn(1, 4, 1, HEAD_DIM, dtype=torch.bfloat16)
    assert rotate(tokens, rotary_factors(HEAD_DIM, 0, 1, 2, 2, CPU)).dtype == torch.bfloat16


def chunk_start(frame, chunk, first):
    return 0 if frame < first else first + (frame - first) // chunk * chunk


def dense_mask(num_frames, chunk, first, window, packed):
    """The rule of the module, asked for every pair of tokens."""

    def sees(query, key):
        q, q_noisy, k, k_noisy = query % num_frames, query >= num_frames, key % num_frames, key >= num_frames
        start, own = chunk_start(q, chunk, first), chunk_start(k, chunk, first) == chunk_start(q, chunk, first)
        past = start - window <= k < start
        return (past and not k_noisy) or (own and q_noisy == k_noisy)

    frames = range(2 * num_frames if packed else num_frames)
    mask = torch.tensor([[sees(q, k) for k in frames] for q in frames])
    return mask.repeat_interleave(TOKENS, 0).repeat_interleave(TOKENS, 1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "num_frames, chunk, first, window", [(12, 1, 1, 7), (12, 3, 3, 7), (13, 3, 1, 7), (9, 1, 1, 2), (7, 2, 1, 1)]
)
def test_window_equals_a_dense_mask(num_frames, chunk, first, window, packed):
    spans = chunk_spans(num_frames, chunk_frames=chunk, first_chunk_frames=first, window_frames=window)
    plan = AttentionPlan(tokens_per_frame=TOKENS, num_frames=num_frames, spans=spans, packed=packed)
    query, key, value = torch.randn(3, 2, TOKENS * num_frames * (1 + packed), 2, HEAD_DIM)
    mask = dense_mask(num_frames, chunk, first, window, packed)
    expected = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)), attn_mask=mask)
    actual = block_causal_attend(query, key, value, plan, AttentionKernel())
    torch.testing.assert_close(actual, expected.transpose(1, 2), atol=1e-5, rtol=0)


def test_sink_equals_explicit_concatenation():
    """Latent frame 9, window 3, sink 2: it sees 6, 7, 8, itself, and frames 0, 1 as if they were 4, 5."""
    plain_query, plain_key, value = torch.randn(3, 1, 10 * 4, 2, HEAD_DIM)
    whole = rotary_factors(HEAD_DIM, 0, 10, 2, 2, CPU)
    spans = chunk_spans(10, chunk_frames=1, first_chunk_frames=1, window_frames=3, sink_frames=2)
    plan = AttentionPlan(tokens_per_frame=4, num_frames=10, spans=spans, sink_frames=2)
    actual = block_causal_attend(rotate(plain_query, whole), rotate(plain_key, whole), value, plan, AttentionKernel())
    seen = torch.tensor([0, 1, 6, 7, 8, 9])
    tokens = (seen[:, None] * 4 + torch.arange(4)).flatten()
    key = rotate(plain_key[:, tokens], rotary_factors(HEAD_DIM, 4, 6, 2, 2, CPU))
    query = rotate(plain_query[:, -4:], rotary_factors(HEAD_DIM, 9, 1, 2, 2, CPU))
    torch.testing.assert_close(actual[:, -4:], AttentionKernel()(query, key, value[:, tokens]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("first", [0, 4])
def test_first_chunk_must_fit(first):
    with pytest.raises(ValueError, match="first_chunk_frames must be in 1..3"):
        chunk_spans(6, chunk_frames=3, first_chunk_frames=first, window_frames=7)


def test_chunks_must_be_whole():
    with pytest.raises(ValueError, match="another first_chunk_frames"):
        chunk_spans(7, chunk_frames=3, first_chunk_frames=3, window_frames=7)
