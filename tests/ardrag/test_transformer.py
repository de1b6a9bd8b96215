"""CausalWanTransformer: equal to diffusers' Wan where it should be, causal and cached where Wan is not."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig, WanTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry, attention_backend
from peft import LoraConfig

from ardrag.flow import clean_from_velocity
from ardrag.transformer import CausalWanTransformer


WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 6,
    "out_channels": 4,
    "text_dim": 10,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
}
IMAGE = {"image_dim": 8, "added_kv_proj_dim": 24}
BATCH, HEIGHT, WIDTH = 2, 4, 4


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(**options):
    return CausalWanTransformer(**{**WAN, **IMAGE, **options}).eval()


def make_inputs(num_frames, batch=BATCH, text_tokens=5):
    """Noisy and clean latents, timesteps [B, F], text and image tokens."""
    noisy, clean = torch.randn(2, batch, WAN["in_channels"], num_frames, HEIGHT, WIDTH)
    timestep = 1000 * torch.rand(batch, num_frames)
    return noisy, clean, timestep, torch.randn(batch, text_tokens, WAN["text_dim"]), torch.randn(batch, 3, 8)


@torch.no_grad()
def run_cached(model, noisy, clean, timestep, text, image, first=None, cache=None):
    """Predicts every chunk against the cache, then appends its clean counterpart."""
    cache = model.new_cache(len(noisy), HEIGHT, WIDTH) if cache is None else cache
    chunk, outputs = model.config.chunk_frames, []
    while cache.position < noisy.shape[2]:
        start = cache.position
        stop = start + (first if first is not None and start == 0 else chunk)
        at = {"kv_cache": cache, "frame_offset": start}
        outputs.append(model(noisy[:, :, start:stop], timestep[:, start:stop], text, image, **at).sample)
        zero = torch.zeros(len(noisy))
        model(clean[:, :, start:stop], zero, text, image, update_cache=True, **at)
    return torch.cat(outputs, dim=2)


@pytest.mark.parametrize("image", [False, True])
def test_bidirectional_pass_is_wan(image):
    """Text of 512 tokens, because diffusers' processor counts on that number."""
    options = IMAGE if image else {}
    wan = WanTransformer3DModel(**WAN, **options).eval()
    ours = CausalWanTransformer(**WAN, **options).eval()
    ours.load_state_dict(wan.state_dict(), strict=True)
    wan.load_state_dict(ours.state_dict(), strict=True)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in wan.named_parameters()]
    latents, _, _, text, tokens = make_inputs(5, text_tokens=512)
    arguments = (latents, torch.tensor([731.0, 20.0]), text, tokens if image else None)
    with torch.no_grad():
        assert (wan(*arguments).sample - ours(*arguments).sample).abs().max() < 1e-5


@pytest.mark.parametrize("image_context", ["all", "first"])
@pytest.mark.parametrize("chunk, first, window, frames", [(1, 1, 7, 24), (3, 3, 7, 24), (3, 1, 7, 22), (2, 1, 1, 7)])
def test_cached_equals_packed(chunk, first, window, frames, image_context):
    model = make(chunk_frames=chunk, window_frames=window, image_context=image_context)
    noisy, clean, timestep, text, image = make_inputs(frames)
    with torch.no_grad():
        packed = model(noisy, timestep, text, image, causal=True, clean_context=clean, first_chunk_frames=first).sample
    assert packed.shape == (BATCH, WAN["out_channels"], frames, HEIGHT, WIDTH)
    cached = run_cached(model, noisy, clean, timestep, text, image, first)
    torch.testing.assert_close(cached, packed, atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunk, sink, window", [(1, 2, 3), (3, 2, 4), (2, 3, 2)])
def test_cached_equals_packed_with_sink(chunk, sink, window):
    model = make(chunk_frames=chunk, window_frames=window, sink_frames=sink)
    noisy, clean, timestep, text, image = make_inputs(18)
    with torch.no_grad():
        packed = model(noisy, timestep, text, image, causal=True, clean_context=clean).sample
        plain = make(chunk_frames=chunk, window_frames=window)
        plain.load_state_dict(model.state_dict())
        without = plain(noisy, timestep, text, image, causal=True, clean_context=clean).sample
    cached = run_cached(model, noisy, clean, timestep, text, image)
    torch.testing.assert_close(cached, packed, atol=1e-5, rtol=0)
    assert not torch.allclose(without[:, :, -1], packed[:, :, -1], atol=1e-5)


def test_causal_pass_is_the_clean_half():
    """What the cache pass predicts on the clean chunk is what a causal pass over all chunks predicts."""
    model = make()
    _, clean, _, text, image = make_inputs(12)
    zero = torch.zeros(BATCH, 12)
    with torch.no_grad():
        causal = model(clean, zero, text, image, causal=True).sample
    torch.testing.assert_close(run_cached(model, clean, clean, zero, text, image), causal, atol=1e-5, rtol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_the_future_never_reaches_the_past(packed):
    model = make(chunk_frames=2)
    noisy, clean, timestep, text, image = make_inputs(8)

    def predict():
        with torch.no_grad():
            context = {"clean_context": clean} if packed else {}
            return model(noisy, timestep, text, image, causal=True, **context).sample

    before = predict()
    for latents in (noisy, clean):
        latents[:, :, 4:] += 1
    timestep[:, 4:] = 1
    after = predict()
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert not torch.allclose(before[:, :, 4:], after[:, :, 4:])


def test_the_past_reaches_as_far_as_window_times_layers():
    model = make(window_frames=2)
    reach = 2 * model.config.num_layers
    noisy, clean, timestep, text, image = make_inputs(reach + 3)

    def predict():
        with torch.no_grad():
            return model(noisy, timestep, text, image, causal=True, clean_context=clean).sample

    before = predict()
    clean[:, :, 0] += 1
    after = predict()
    moved = [not torch.equal(before[:, :, m], after[:, :, m]) for m in range(reach + 3)]
    assert moved == [False, *[True] * reach, False, False]


def test_packed_chunk_ignores_its_own_clean_latents():
    """Otherwise training would show the answer."""
    model = make()
    noisy, clean, timestep, text, image = make_inputs(6)
    with torch.no_grad():
        before = model(noisy, timestep, text, image, causal=True, clean_context=clean).sample
        clean[:, :, 3] += 1
        after = model(noisy, timestep, text, image, causal=True, clean_context=clean).sample
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    assert not torch.allclose(before[:, :, 4], after[:, :, 4])


@pytest.mark.parametrize("mode", ["bidirectional", "packed", "cached"])
def test_image_reaches_latent_frame_0_only(mode):
    """Eq. 6: with the past given, another reference image changes the prediction of latent frame 0 alone."""
    model = make(image_context="first", num_layers=1)
    noisy, clean, timestep, text, image = make_inputs(4)

    @torch.no_grad()
    def predict(image):
        if mode == "cached":
            return run_cached(model, noisy, clean, timestep, text, image)
        context = {"causal": True, "clean_context": clean} if mode == "packed" else {}
        return model(noisy, timestep, text, image, **context).sample

    one, other, none = predict(image), predict(image.flip(-1)), predict(None)
    assert not torch.allclose(one[:, :, 0], other[:, :, 0])
    for prediction in (one, other):
        assert torch.equal(prediction[:, :, 1:], none[:, :, 1:])


@pytest.mark.parametrize("mode", ["bidirectional", "packed"])
def test_sample_does_not_depend_on_its_batch(mode):
    model = make()
    noisy, clean, timestep, text, image = make_inputs(6)

    @torch.no_grad()
    def predict(rows):
        context = {"causal": True, "clean_context": clean[rows]} if mode == "packed" else {}
        return model(noisy[rows], timestep[rows], text[rows], image[rows], **context).sample

    both = predict(slice(None))
    alone = torch.cat([predict(slice(row, row + 1)) for row in range(BATCH)])
    torch.testing.assert_close(alone, both, atol=1e-6, rtol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_timestep_per_frame_equals_one_for_all(packed):
    model = make()
    noisy, clean, timestep, text, image = make_inputs(4)
    context = {"causal": True, "clean_context": clean} if packed else {}
    with torch.no_grad():
        one = model(noisy, timestep[:, 0], text, image, **context).sample
        each = model(noisy, timestep[:, :1].expand(-1, 4), text, image, **context).sample
    torch.testing.assert_close(each, one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sink", [0, 2])
@pytest.mark.parametrize("chunk, back, history", [(1, 3, 20), (1, 11, 3), (3, 9, 6), (3, 0, 20)])
def test_rollback_is_as_if_never_gone(chunk, back, history, sink):
    model = make(chunk_frames=chunk, window_frames=3, sink_frames=sink, image_context="first")
    straight, detour = make_inputs(18), make_inputs(12)
    cache = model.new_cache(BATCH, HEIGHT, WIDTH, history_frames=history)
    expected = run_cached(model, *straight)
    first = [x[:, :, :back] if x.ndim == 5 else x for x in straight]
    if back:
        run_cached(model, *first, cache=cache)
    run_cached(model, *detour, cache=cache)
    cache.rollback(back)
    assert torch.equal(run_cached(model, *straight, cache=cache), expected[:, :, back:])


def test_fork_goes_its_own_way():
    model = make(window_frames=3)
    straight, other = make_inputs(12), make_inputs(12)
    expected = run_cached(model, *straight)
    cache = model.new_cache(BATCH, HEIGHT, WIDTH)
    run_cached(model, *(x[:, :, :6] if x.ndim == 5 else x for x in straight), cache=cache)
    branch = cache.fork()
    run_cached(model, *other, cache=branch)
    assert torch.equal(run_cached(model, *straight, cache=cache), expected[:, :, 6:])


def test_prompt_is_projected_once_and_again_when_it_changes():
    model = make(image_context="first")
    noisy, clean, timestep, text, image = make_inputs(4)
    calls = []
    handle = model.condition_embedder.text_embedder.register_forward_hook(lambda *_: calls.append(1))
    cache = model.new_cache(BATCH, HEIGHT, WIDTH)
    early = [x[:, :, :2] if x.ndim == 5 else x for x in (noisy, clean, timestep, text, image)]
    run_cached(model, *early, cache=cache)
    assert len(calls) == 1
    branch = cache.fork()
    changed = run_cached(model, noisy, clean, timestep, text + 1, image, cache=cache)
    same = run_cached(model, noisy, clean, timestep, text, image, cache=branch)
    assert len(calls) == 2
    assert not torch.allclose(changed, same)
    handle.remove()


def test_stream_beyond_any_table():
    """A stream has no end: the same context far out gives the same prediction, with room for nothing but rounding."""
    model = make()
    noisy, _, timestep, text, _ = make_inputs(5)
    with torch.no_grad():
        near = model(noisy, timestep, text, causal=True).sample
        far = model(noisy, timestep, text, causal=True, frame_offset=100_000).sample
    torch.testing.assert_close(far, near, atol=1e-5, rtol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_gradient_checkpointing_changes_no_gradient(packed):
    model = make(image_context="first", activation_fn="gelu").train()
    noisy, clean, timestep, text, image = make_inputs(5)

    def gradients():
        model.zero_grad()
        context = {"causal": True, "clean_context": clean} if packed else {}
        model(noisy, timestep, text, image, **context).sample.square().mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    plain = gradients()
    model.enable_gradient_checkpointing()
    checkpointed = gradients()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)
    assert all(gradient.abs().sum() > 0 for name, gradient in plain.items() if "norm_k" not in name)


def test_save_and_load(tmp_path):
    layout = {"latents": 4, "motion": 1, "image": 1}
    model = make(input_layout=layout, window_frames=5, image_context="first", activation_fn="gelu")
    model.save_pretrained(tmp_path)
    loaded = CausalWanTransformer.from_pretrained(tmp_path)
    assert list(loaded.config.input_layout.items()) == list(layout.items())
    private = {name for name in {*loaded.config, *model.config} if name.startswith("_")} | {"patch_size"}
    kept, saved = ({k: v for k, v in config.items() if k not in private} for config in (loaded.config, model.config))
    assert kept == saved
    noisy, clean, timestep, text, image = make_inputs(3)
    with torch.no_grad():
        arguments = (noisy, timestep, text, image)
        assert torch.equal(loaded.eval()(*arguments).sample, model(*arguments).sample)


def test_half_precision_keeps_the_sensitive_parts_in_float32(tmp_path):
    make().save_pretrained(tmp_path)
    model = CausalWanTransformer.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.blocks[0].scale_shift_table.dtype == model.blocks[0].norm2.weight.dtype == torch.float32
    noisy, clean, timestep, text, image = (x.bfloat16() for x in make_inputs(4))
    assert run_cached(model, noisy, clean, timestep.float(), text, image).dtype == torch.bfloat16


def test_lora_adapter_adds_and_disables():
    model = make()
    noisy, clean, timestep, text, image = make_inputs(3)
    arguments = {"causal": True, "clean_context": clean}

    @torch.no_grad()
    def predict(**more):
        return model(noisy, timestep, text, image, **arguments, **more).sample

    plain = predict()
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    model.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    adapted = predict()
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == WAN["num_layers"] * 8
    assert not torch.allclose(adapted, plain)
    torch.testing.assert_close(predict(attention_kwargs={"scale": 0.0}), plain, atol=1e-6, rtol=0)
    model.disable_adapters()
    assert torch.equal(predict(), plain)


@torch.no_grad()
def test_fused_projections_change_nothing():
    model, inputs = make(), make_inputs(3)
    plain = model(inputs[0], *inputs[2:]).sample, run_cached(model, *inputs)
    model.fuse_qkv_projections()
    assert model.blocks[0].attn1.to_qkv.out_features == 3 * model.blocks[0].attn1.to_q.out_features
    for linear in (model.blocks[0].attn1.to_q, model.blocks[1].attn2.to_k, model.blocks[1].attn2.add_v_proj):
        linear.weight.zero_()  # not read any more
    fused = model(inputs[0], *inputs[2:]).sample, run_cached(model, *inputs)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, fused, strict=True))
    model.unfuse_qkv_projections()
    assert not torch.allclose(model(inputs[0], *inputs[2:]).sample, plain[0], atol=1e-4)


def test_adapters_and_fused_projections_do_not_meet():
    adapter = LoraConfig(r=2, target_modules=["to_q", "to_k"])
    model = make()
    model.fuse_qkv_projections()
    with pytest.raises(ValueError, match="lora: the projections are fused; call unfuse_qkv_projections"):
        model.add_adapter(adapter)
    with pytest.raises(ValueError, match="lora: the projections are fused"):
        model.load_lora_adapter({"blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 24)}, prefix=None)
    model.unfuse_qkv_projections()
    model.add_adapter(adapter)
    with pytest.raises(ValueError, match="an adapter is loaded; call fuse_lora and unload_lora_weights"):
        model.fuse_qkv_projections()


@torch.no_grad()
def test_processors_are_replaced_and_backends_chosen(monkeypatch):
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName.NATIVE)  # it is for all
    model, (noisy, _, timestep, text, image) = make(), make_inputs(2)
    plain = model(noisy, timestep, text, image).sample
    assert len(model.attn_processors) == 2 * WAN["num_layers"]
    seen = []

    def softmax_by_hand(query, key, value):
        seen.append(query.shape)
        scores = torch.einsum("bqnd,bknd->bnqk", query, key) / query.shape[-1] ** 0.5
        return torch.einsum("bnqk,bknd->bqnd", scores.softmax(-1), value)

    model.set_attention_backend("_native_math")
    assert {processor._attention_backend.value for processor in model.attn_processors.values()} == {"_native_math"}
    assert torch.allclose(model(noisy, timestep, text, image).sample, plain, atol=1e-5)
    model.set_attn_processor(softmax_by_hand)
    assert torch.allclose(model(noisy, timestep, text, image).sample, plain, atol=1e-5)
    assert len(seen) == 3 * WAN["num_layers"]  # to itself, to the text, to the picture


@torch.no_grad()
def test_the_context_of_a_backend_is_heard(monkeypatch):
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName.NATIVE)
    model, (noisy, _, timestep, text, image) = make(), make_inputs(2)
    plain, name, seen = model(noisy, timestep, text, image).sample, AttentionBackendName._NATIVE_MATH, []
    kernel = _AttentionBackendRegistry._backends[name]

    def counted(*arguments, **options):
        seen.append(name)
        return kernel(*arguments, **options)

    monkeypatch.setitem(_AttentionBackendRegistry._backends, name, counted)
    with attention_backend("_native_math"):
        assert torch.allclose(model(noisy, timestep, text, image).sample, plain, atol=1e-5)
    assert len(seen) == 3 * WAN["num_layers"]
    model(noisy, timestep, text, image)
    assert len(seen) == 3 * WAN["num_layers"]


def test_caches_of_diffusers_are_refused_with_a_reason():
    with pytest.raises(
        ValueError, match="enable_cache: FirstBlockCacheConfig skips blocks.*lower num_inference_steps"
    ):
        make().enable_cache(FirstBlockCacheConfig(threshold=0.2))


def test_layout_defaults_to_one_slot():
    assert make().config.input_layout == {"latents": WAN["in_channels"]}


def test_tuple_output():
    model, (noisy, _, timestep, text, image) = make(), make_inputs(2)
    with torch.no_grad():
        (sample,) = model(noisy, timestep, text, image, return_dict=False)
        assert torch.equal(sample, model(noisy, timestep, text, image).sample)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"input_layout": {"latents": 4, "motion": 4}}, "8 channels together, but in_channels is 6"),
        ({"input_order": ["motion"]}, "leave it out"),
        ({"patch_size": (2, 2, 2)}, "patch_size must be 1 in time"),
        ({"qk_norm": "none"}, "qk_norm"),
        ({"image_context": "last"}, "'all' or 'first'"),
        ({"window_frames": 0}, "window_frames"),
        ({"chunk_frames": 0}, "chunk_frames"),
        ({"sink_frames": -1}, "sink_frames"),
        ({"image_dim": None}, "Give both image_dim and added_kv_proj_dim"),
    ],
)
def test_refuses_configuration(options, match):
    with pytest.raises(ValueError, match=match):
        make(**options)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"hidden_states": torch.zeros(2, 5, 3, 4, 4)}, "hidden_states must be"),
        ({"hidden_states": torch.zeros(2, 6, 3, 5, 4)}, "do not divide into patches"),
        ({"timestep": torch.zeros(2, 4)}, r"timestep must be \[B\] or \[B, F\]"),
        ({"encoder_hidden_states": torch.zeros(1, 5, 10)}, "encoder_hidden_states must be"),
        ({"clean_context": torch.zeros(2, 6, 2, 4, 4), "causal": True}, "must have the shape of hidden_states"),
        ({"clean_context": torch.zeros(2, 6, 3, 4, 4)}, "set causal=True"),
        ({"first_chunk_frames": 1}, "set causal=True"),
        ({"first_chunk_frames": 2, "causal": True}, "first_chunk_frames must be in 1..1"),
        ({"update_cache": True}, "needs a kv_cache"),
        ({"frame_offset": -1}, "frame_offset must be 0 or more"),
    ],
)
def test_refuses_inputs(change, match):
    noisy, _, timestep, text, image = make_inputs(3)
    inputs = {"hidden_states": noisy, "timestep": timestep, "encoder_hidden_states": text}
    with pytest.raises(ValueError, match=match):
        make()(**{**inputs, **change})


def test_refuses_an_image_it_cannot_read():
    noisy, _, timestep, text, image = make_inputs(3)
    with pytest.raises(ValueError, match="no image branch"):
        make(image_dim=None, added_kv_proj_dim=None)(noisy, timestep, text, image)


def test_refuses_misused_caches():
    model, (noisy, clean, timestep, text, image) = make(), make_inputs(1)
    cache = model.new_cache(BATCH, HEIGHT, WIDTH)
    with torch.no_grad(), pytest.raises(ValueError, match="cache is at latent frame 0"):
        model(noisy, timestep, text, image, kv_cache=cache, frame_offset=1)
    with torch.no_grad(), pytest.raises(ValueError, match="one chunk"):
        model(noisy, timestep, text, image, kv_cache=cache, causal=True, clean_context=clean)
    with pytest.raises(ValueError, match="no_grad"):
        model(noisy, timestep, text, image, kv_cache=cache)
    with torch.no_grad(), pytest.raises(ValueError, match="another batch size or resolution"):
        model(noisy[:1], timestep[:1], text[:1], image[:1], kv_cache=cache)
    assert cache.position == 0


GATED = {"in_channels": 12, "input_layout": {"latents": 4, "motion": 4, "image": 4}, "gated_slots": True}


def make_gated(**options):
    return make(**{**GATED, **options})


def open_gates(model):
    for part in (model.slot_gates, model.proj_out):
        for parameter in part.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def gated_inputs(num_frames):
    noisy, clean, timestep, text, image = make_inputs(num_frames)
    return noisy.repeat(1, 2, 1, 1, 1), clean.repeat(1, 2, 1, 1, 1), timestep, text, image


@torch.no_grad()
def answer(model, noisy, timestep, text, image):
    """The clean latents that a model with gates means."""
    velocity = model(noisy, timestep, text, image).sample
    return clean_from_velocity(noisy[:, :4], velocity, timestep[:, None, :, None, None] / 1000)


def test_with_new_gates_the_answer_is_the_motion_slot():
    noisy, _, timestep, text, image = gated_inputs(3)
    torch.testing.assert_close(answer(make_gated(), noisy, timestep, text, image), noisy[:, 4:8], atol=1e-4, rtol=0)
    trained = make_gated(gated_slots=False)
    trained.add_slot_gates()
    assert trained.config.gated_slots
    torch.testing.assert_close(answer(trained, noisy, timestep, text, image), noisy[:, 4:8], atol=1e-4, rtol=0)
    one_level = timestep[:, :1].expand(-1, 3)
    velocity = trained(noisy, timestep[:, 0], text, image).sample
    torch.testing.assert_close(velocity, trained(noisy, one_level, text, image).sample, atol=1e-4, rtol=1e-4)


def test_what_passes_a_gate_is_its_slot():
    """A gate of the image's slot that is open for one latent of each token passes that latent, and nothing else."""
    model, (noisy, _, timestep, text, image) = make_gated(), gated_inputs(2)
    before = answer(model, noisy, timestep, text, image)
    row, column, channel, slot = 1, 0, 2, 8
    model.slot_gates.bias.data[(row * 2 + column) * 12 + slot + channel] = 0.5
    passed = answer(model, noisy, timestep, text, image) - before
    expected = torch.zeros_like(passed)
    expected[:, channel, :, row::2, column::2] = 0.5 * noisy[:, slot + channel, :, row::2, column::2]
    torch.testing.assert_close(passed, expected, atol=1e-4, rtol=0)


def test_what_the_blocks_say_is_added():
    model, (noisy, _, timestep, text, image) = make_gated(), gated_inputs(2)
    model.proj_out.bias.data.fill_(0.25)
    found = answer(model, noisy, timestep, text, image)
    torch.testing.assert_close(found, noisy[:, 4:8] + 0.25, atol=1e-4, rtol=0)


def test_cached_equals_packed_with_gates():
    model = open_gates(make_gated(window_frames=2))
    noisy, clean, timestep, text, image = gated_inputs(5)
    timestep = timestep.clamp(min=200)
    with torch.no_grad():
        packed = model(noisy, timestep, text, image, causal=True, clean_context=clean).sample
    torch.testing.assert_close(run_cached(model, noisy, clean, timestep, text, image), packed, atol=1e-4, rtol=0)


def test_gates_are_saved_with_the_model(tmp_path):
    model = make_gated(gated_slots=False)
    model.add_slot_gates()
    open_gates(model).save_pretrained(tmp_path)
    again = CausalWanTransformer.from_pretrained(tmp_path)
    assert torch.equal(again.slot_gates.weight, model.slot_gates.weight)


@pytest.mark.parametrize("layout", [{"latents": 4, "motion": 4, "mask": 2}, {"latents": 4, "image": 4}])
def test_gates_want_a_motion_slot_and_slots_as_wide_as_the_velocity(layout):
    with pytest.raises(ValueError, match="gated_slots: every slot must have 4 channels, and latents and motion be am"):
        make(in_channels=sum(layout.values()), input_layout=layout, gated_slots=True)
