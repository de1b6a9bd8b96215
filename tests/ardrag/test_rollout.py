"""The sampler: who gets a gradient, what is written where, which noise is drawn, and guidance."""

import pytest
import torch

from ardrag.conditioning import Conditions
from ardrag.flow import FEW_STEP_SIGMAS, add_noise, clean_from_velocity
from ardrag.guidance import Guidance, without
from ardrag.rollout import GeneratorNoise, clip_steps, generate_chunk, predict_velocity, write_cache
from ardrag.transformer import CausalWanTransformer


CHANNELS, SIZE, STEPS = 2, 4, 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    transformer = CausalWanTransformer(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=3 * CHANNELS,
        out_channels=CHANNELS,
        text_dim=8,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        image_dim=6,
        added_kv_proj_dim=24,
        input_layout={"latents": CHANNELS, "motion": CHANNELS, "image": CHANNELS},
        image_context="first",
        window_frames=3,
    )
    return transformer.eval().requires_grad_(False)


class Linear(torch.nn.Module):
    """In the place of a transformer where a gradient has to flow: velocity = weight * latents, steps written down."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.3))
        self.config = type("Config", (), {"input_layout": {"latents": CHANNELS}, "out_channels": CHANNELS})
        self.calls = []

    def forward(self, latents, timestep, *_, kv_cache, frame_offset, update_cache, return_dict):
        self.calls.append((float(timestep[0]), torch.is_grad_enabled(), update_cache, frame_offset))
        return (self.weight * latents,)


def make_conditions(rows=1, frames=1, first=0):
    motion, image = torch.randn(2, rows, CHANNELS, frames, SIZE, SIZE)
    return Conditions(motion, image, torch.randn(rows, 5, 8), torch.randn(rows, 3, 6), first)


def seeded(*seeds):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return GeneratorNoise(generators, torch.device("cpu"), torch.float32)


def run(model, conditions, noise=None, sigmas=FEW_STEP_SIGMAS, eta=1.0, cache=None, **options):
    rows = conditions.motion.shape[0]
    cache = model.new_cache(rows, SIZE, SIZE) if cache is None and not isinstance(model, Linear) else cache
    return generate_chunk(model, conditions, cache, sigmas, eta, noise or seeded(0), **options)


@pytest.mark.parametrize("grad_step", range(STEPS))
def test_gradient_at_one_step_only(grad_step):
    model = Linear()
    rollout = run(model, make_conditions(), grad_step=grad_step)
    assert [grad for _, grad, _, _ in model.calls] == [step == grad_step for step in range(STEPS)]
    assert not rollout.latents.requires_grad and rollout.exit_clean.requires_grad
    (gradient,) = torch.autograd.grad(rollout.exit_clean.sum(), model.weight)
    # exit_clean = x - sigma * weight * x with x a constant, so d/dweight = -sigma * sum(x).
    inputs = rollout.exit_clean.detach() / (1 - FEW_STEP_SIGMAS[grad_step] * 0.3)
    assert gradient.item() == pytest.approx(-FEW_STEP_SIGMAS[grad_step] * inputs.sum().item(), rel=1e-4)


def test_no_gradient_unless_asked():
    model = Linear()
    rollout = run(model, make_conditions())
    assert rollout.exit_clean is None and not rollout.latents.requires_grad
    assert not any(grad for _, grad, _, _ in model.calls)


def test_gradient_step_changes_no_latent():
    conditions = make_conditions()
    plain = run(Linear(), conditions).latents
    for step in range(STEPS):
        assert torch.equal(run(Linear(), conditions, grad_step=step).latents, plain)


def test_last_gradient_step_is_the_result():
    rollout = run(Linear(), make_conditions(), grad_step=STEPS - 1)
    torch.testing.assert_close(rollout.exit_clean.detach(), rollout.latents)


def test_gradient_through_the_ring_is_refused(model):
    """The inference cache is overwritten in place; asking it for a gradient must say so, not train on garbage."""
    model.requires_grad_(True)
    try:
        with pytest.raises(ValueError, match="KVCache is for inference"):
            run(model, make_conditions(), grad_step=0)
    finally:
        model.requires_grad_(False)


def test_generate_chunk_never_moves_the_cache(model):
    cache = model.new_cache(1, SIZE, SIZE)
    for latent in range(5):
        conditions = make_conditions(first=latent)
        first = run(model, conditions, cache=cache, noise=seeded(latent)).latents
        assert cache.position == latent
        # Whatever it leaves in the spare slot does not matter: the same question gets the same answer.
        assert torch.equal(run(model, conditions, cache=cache, noise=seeded(latent)).latents, first)
        write_cache(model, first, conditions, cache)
        assert cache.position == latent + 1


def test_write_cache_is_one_pass_at_sigma_0_without_gradient():
    model = Linear()
    write_cache(model, torch.randn(1, CHANNELS, 1, SIZE, SIZE, requires_grad=True), make_conditions(first=4), None)
    assert model.calls == [(0.0, False, True, 4)]


def test_timesteps_are_the_schedule():
    model = Linear()
    run(model, make_conditions())
    assert [round(timestep) for timestep, *_ in model.calls] == [1000, 755, 522]


@pytest.mark.parametrize("step", [STEPS - 1, STEPS, -1])
def test_stochastic_last_step_is_refused(step):
    with pytest.raises(ValueError, match=f"stochastic_step: {step} must be in 0 .. 1; the last step is always ODE"):
        run(Linear(), make_conditions(), stochastic_step=step)


@pytest.mark.parametrize("step", [STEPS, -1])
def test_gradient_step_outside_is_refused(step):
    with pytest.raises(ValueError, match=f"grad_step: {step} must be in 0 .. 2"):
        run(Linear(), make_conditions(), grad_step=step)


class Recorder:
    """Noise that remembers its shapes and is 1, 2, 3, ... everywhere."""

    def __init__(self):
        self.shapes = []

    def __call__(self, shape):
        self.shapes.append(tuple(shape))
        return torch.full(tuple(shape), float(len(self.shapes)))


@pytest.mark.parametrize(("options", "draws"), [({"eta": 0.0}, 1), ({}, 3), ({"stochastic_step": 1}, 2)])
def test_noise_is_drawn_where_the_step_is_stochastic(options, draws):
    noise = Recorder()
    run(Linear(), make_conditions(frames=2), noise, **options)
    assert noise.shapes == [(1, CHANNELS, 2, SIZE, SIZE)] * draws


def test_sampler_is_the_kernel_written_out():
    """With velocity = w x: Euler at eta 0; at eta 1 fresh noise on each clean prediction, the last one bare."""
    conditions, (first, second, third) = (
        make_conditions(),
        (torch.full((1, CHANNELS, 1, SIZE, SIZE), n) for n in (1.0, 2.0, 3.0)),
    )
    euler = first
    for sigma, next_sigma in zip(FEW_STEP_SIGMAS, FEW_STEP_SIGMAS[1:], strict=False):
        euler = euler + (next_sigma - sigma) * 0.3 * euler
    torch.testing.assert_close(run(Linear(), conditions, Recorder(), eta=0.0).latents, euler)
    latents = first
    for sigma, next_sigma, noise in zip(FEW_STEP_SIGMAS, FEW_STEP_SIGMAS[1:], (second, third, first), strict=False):
        latents = add_noise(clean_from_velocity(latents, 0.3 * latents, sigma), noise, next_sigma)
    torch.testing.assert_close(run(Linear(), conditions, Recorder()).latents, latents)


def test_one_stochastic_step_among_ode_steps():
    conditions = make_conditions()
    mixed = run(Linear(), conditions, Recorder(), stochastic_step=0).latents
    latents = torch.ones(1, CHANNELS, 1, SIZE, SIZE)
    latents = add_noise(clean_from_velocity(latents, 0.3 * latents, 1.0), 2 * torch.ones_like(latents), 0.755)
    latents = latents + (0.522 - 0.755) * 0.3 * latents
    latents = latents - 0.522 * 0.3 * latents
    torch.testing.assert_close(mixed, latents)


def test_callback_sees_and_changes_every_step():
    seen = []

    def callback(step, sigma, latents):
        seen.append((step, sigma))
        return torch.zeros_like(latents)

    rollout = run(Linear(), make_conditions(), callback=callback)
    assert seen == list(enumerate(FEW_STEP_SIGMAS[:-1]))
    assert rollout.latents.eq(0).all()


def test_noise_does_not_depend_on_the_batch():
    both, one, other = seeded(3, 4), seeded(3), seeded(4)
    for shape in ((2, 5), (2, 1, 3)):
        drawn = both(shape)
        assert torch.equal(drawn[:1], one((1, *shape[1:]))) and torch.equal(drawn[1:], other((1, *shape[1:])))
    with pytest.raises(AssertionError):
        both((3, 2))


def test_rows_do_not_depend_on_the_batch(model):
    conditions = make_conditions(rows=2)
    both = run(model, conditions, seeded(3, 4)).latents
    for row in range(2):
        only = slice(row, row + 1)
        alone = Conditions(
            conditions.motion[only], conditions.image[only], conditions.text[only], conditions.image_tokens[only]
        )
        torch.testing.assert_close(run(model, alone, seeded(3 + row)).latents, both[only], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_guidance_extrapolates_from_negative_to_wanted(model, scale):
    conditions = make_conditions(rows=2)
    latents = torch.randn(1, CHANNELS, 1, SIZE, SIZE)
    guided = predict_velocity(
        model, latents, 0.7, conditions, model.new_cache(2, SIZE, SIZE), guidance=Guidance(scale - 1)
    )
    pair = torch.cat([latents, latents])
    wanted, negative = predict_velocity(model, pair, 0.7, conditions, model.new_cache(2, SIZE, SIZE)).chunk(2)
    torch.testing.assert_close(guided, negative + scale * (wanted - negative))
    assert not torch.allclose(wanted, negative)


def test_guided_chunk_makes_half_the_rows(model):
    conditions = make_conditions(rows=2)
    assert run(model, conditions, guidance=Guidance(1.0)).latents.shape == (1, CHANNELS, 1, SIZE, SIZE)


def test_gradients_that_are_off_stay_off():
    """Under `no_grad` the exit step is recorded, not differentiated."""
    with torch.no_grad():
        rollout = run(Linear(), make_conditions(), grad_step=1)
    assert not rollout.exit_clean.requires_grad
    expected = rollout.exit_noisy * (1 - FEW_STEP_SIGMAS[1] * 0.3)
    torch.testing.assert_close(rollout.exit_clean, expected)


def run_clip(*arguments):
    """The clean clip."""
    *_, (_, clean) = clip_steps(*arguments)
    return clean


@torch.no_grad()
def test_a_clip_at_once_is_the_ode_of_the_bidirectional_pass(model):
    conditions, sigmas = make_conditions(2, frames=5), [1.0, 0.7, 0.3, 0.0]
    clip = run_clip(model, conditions, sigmas, 0.0, seeded(1, 2))
    latents = seeded(1, 2)(conditions.motion.shape)
    for sigma, lower in zip(sigmas, sigmas[1:], strict=False):
        joined = torch.cat([latents, conditions.motion, conditions.image], dim=1)
        timestep = torch.full((2,), 1000 * sigma)
        (velocity,) = model(joined, timestep, conditions.text, conditions.image_tokens, return_dict=False)
        latents = latents + (lower - sigma) * velocity
    torch.testing.assert_close(clip, latents, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_given_first_latent_stays_and_is_told_as_clean(model, monkeypatch):
    conditions, reference = make_conditions(1, frames=4), torch.randn(1, CHANNELS, 1, SIZE, SIZE)
    seen, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: seen.append(a) or forward(*a, **k))
    clip = run_clip(model, conditions, FEW_STEP_SIGMAS, 1.0, seeded(1), reference)
    assert torch.equal(clip[:, :, :1], reference)
    for (joined, timestep, *_), sigma in zip(seen, FEW_STEP_SIGMAS, strict=False):
        assert torch.equal(joined[:, :CHANNELS, :1], reference)
        torch.testing.assert_close(timestep, 1000 * torch.tensor([[0.0, sigma, sigma, sigma]]))
    assert not torch.equal(clip, run_clip(model, conditions, FEW_STEP_SIGMAS, 0.0, seeded(1), reference))


@torch.no_grad()
def test_a_clip_goes_on_with_what_is_sent_back(model):
    conditions, sigmas = make_conditions(1, frames=3), [1.0, 0.5, 0.0]
    reference = torch.randn(1, CHANNELS, 1, SIZE, SIZE)
    steps = clip_steps(model, conditions, sigmas, 0.0, seeded(1), reference)
    sigma, latents = next(steps)
    assert sigma == 1.0 and latents.shape == conditions.motion.shape
    _, changed = steps.send(torch.zeros_like(latents))
    assert torch.equal(changed[:, :, :1], reference) and list(steps) == []
    assert not torch.equal(changed, run_clip(model, conditions, sigmas, 0.0, seeded(1), reference))


@torch.no_grad()
def test_guidance_of_a_clip_is_over_both(model):
    """One step from noise: the velocities of the three answers, put together by hand."""
    wanted, guidance = make_conditions(1, frames=2), Guidance(2.0, 0.5)
    parts = without(wanted, torch.zeros(1, 5, 8), torch.zeros(1, 1, 1, 1, 1), guidance)
    clip = run_clip(model, parts, [1.0, 0.0], 0.0, seeded(1), None, guidance)
    noise = seeded(1)(wanted.motion.shape)
    full, silent, still = (noise - run_clip(model, part, [1.0, 0.0], 0.0, seeded(1)) for part in parts)
    torch.testing.assert_close(noise - clip, full + 2 * (full - silent) + 0.5 * (full - still), rtol=1e-4, atol=1e-4)
