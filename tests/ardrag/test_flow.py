"""The flow maths in float64: round trips, the kernel and its two ends, Eq. 4, log-probability, schedule."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from ardrag.flow import (
    FEW_STEP_SIGMAS,
    FewStepScheduler,
    add_noise,
    clean_from_velocity,
    gaussian_log_prob,
    noise_from_velocity,
    shift_sigmas,
    transition,
    transition_eq4,
    velocity_target,
)


SHAPE = (2, 3, 4, 5, 6)
STEPS = list(zip(FEW_STEP_SIGMAS, FEW_STEP_SIGMAS[1:], strict=False))
ETAS = [0.0, 0.1, 0.3, 0.5, 0.8, 1.0]


@pytest.fixture
def clean():
    return torch.randn(SHAPE, dtype=torch.float64)


@pytest.fixture
def noise():
    return torch.randn(SHAPE, dtype=torch.float64)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.755, 1.0, torch.rand(2, 1, 4, 1, 1, dtype=torch.float64)])
def test_round_trips(clean, noise, sigma):
    noisy, velocity = add_noise(clean, noise, sigma), velocity_target(clean, noise)
    close(clean_from_velocity(noisy, velocity, sigma), clean)
    close(noise_from_velocity(noisy, velocity, sigma), noise)
    close(add_noise(clean_from_velocity(noisy, velocity, sigma), noise, sigma), noisy)


def test_ends_of_the_path(clean, noise):
    assert torch.equal(add_noise(clean, noise, 0.0), clean)
    assert torch.equal(add_noise(clean, noise, 1.0), noise)


@pytest.mark.parametrize(("sigma", "next_sigma"), STEPS)
def test_eta_0_is_the_euler_step(clean, noise, sigma, next_sigma):
    noisy, velocity = add_noise(clean, noise, sigma), torch.randn(SHAPE, dtype=torch.float64)
    mean, std = transition(noisy, velocity, sigma, next_sigma, eta=0.0)
    close(mean, noisy + (next_sigma - sigma) * velocity)
    assert std == 0


@pytest.mark.parametrize(("sigma", "next_sigma"), STEPS)
def test_eta_1_renoises_the_clean_prediction(clean, noise, sigma, next_sigma):
    noisy, velocity = add_noise(clean, noise, sigma), torch.randn(SHAPE, dtype=torch.float64)
    mean, std = transition(noisy, velocity, sigma, next_sigma, eta=1.0)
    fresh = torch.randn(SHAPE, dtype=torch.float64)
    close(mean + std * fresh, add_noise(clean_from_velocity(noisy, velocity, sigma), fresh, next_sigma))
    assert std == next_sigma


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize(("sigma", "next_sigma"), STEPS)
def test_kernel_keeps_the_variance(clean, noise, sigma, next_sigma, eta):
    """kept^2 + std^2 = u^2 with exact predictions: the result is exactly as noisy as the schedule says."""
    mean, std = transition(add_noise(clean, noise, sigma), noise - clean, sigma, next_sigma, eta)
    kept = next_sigma * math.cos(eta * math.pi / 2)
    close(mean, (1 - next_sigma) * clean + kept * noise)
    assert kept**2 + std**2 == pytest.approx(next_sigma**2, abs=1e-15)


@pytest.mark.parametrize("eta", ETAS)
def test_last_step_is_deterministic(clean, noise, eta):
    mean, std = transition(add_noise(clean, noise, 0.522), noise - clean, 0.522, 0.0, eta)
    assert std == 0
    close(mean, clean)


@pytest.mark.parametrize("eta", [-0.01, 1.01, math.nan])
def test_eta_outside_is_refused(clean, eta):
    with pytest.raises(ValueError, match="eta"):
        transition(clean, clean, 1.0, 0.5, eta)


@pytest.mark.parametrize("kernel", [transition, transition_eq4])
@pytest.mark.parametrize("step", [(0.5, 0.5), (0.5, 0.7), (1.1, 0.5), (0.5, -0.1), (math.nan, 0.1)])
def test_wrong_way_is_refused(clean, kernel, step):
    with pytest.raises(ValueError, match="sigmas: a step must go down"):
        kernel(clean, clean, *step, 0.0)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.7])
@pytest.mark.parametrize(("sigma", "next_sigma"), STEPS[:2])
def test_eq4_against_its_closed_form(clean, noise, sigma, next_sigma, level):
    """The paper's Eq. 4 written out: x + [v + s^2 / (2t) (x + (1-t) v)] dt, std s sqrt(|dt|)."""
    noisy, velocity = add_noise(clean, noise, sigma), torch.randn(SHAPE, dtype=torch.float64)
    step = next_sigma - sigma
    spread = level * math.sqrt(sigma / (1 - (sigma if sigma < 1 else next_sigma)))
    mean, std = transition_eq4(noisy, velocity, sigma, next_sigma, level)
    close(mean, noisy + (velocity + spread**2 / (2 * sigma) * (noisy + (1 - sigma) * velocity)) * step)
    assert std == pytest.approx(spread * math.sqrt(-step), abs=1e-15)


def noise_after_eq4(sigma, next_sigma, level):
    """Standard deviations (total, injected) of the noise after an Eq. 4 step whose predictions are exact."""
    clean, noise = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    mean, std = transition_eq4(add_noise(clean, noise, sigma), noise - clean, sigma, next_sigma, level)
    return math.hypot(float(mean), std), std


def test_eq4_leaves_too_much_noise():
    """At noise level 0.7 and three steps; `transition` is exact at every eta (above)."""
    first, second = (noise_after_eq4(*step, 0.7) for step in STEPS[:2])
    assert first == pytest.approx((0.866, 0.700), abs=6e-4) and first[0] > 0.755
    assert second == pytest.approx((0.660, 0.593), abs=6e-4) and second[1] > 0.522


@pytest.mark.parametrize(("level", "factors"), [(0.5, (1.07, 1.12)), (0.3, (1.02, 1.04))])
def test_eq4_at_low_noise_levels(level, factors):
    for (sigma, next_sigma), factor in zip(STEPS, factors, strict=False):
        assert noise_after_eq4(sigma, next_sigma, level)[0] / next_sigma == pytest.approx(factor, abs=0.01)


def test_eq4_level_0_is_the_euler_step(clean, noise):
    for sigma, next_sigma in STEPS:
        mean, std = transition_eq4(add_noise(clean, noise, sigma), noise - clean, sigma, next_sigma, 0.0)
        close(mean, add_noise(clean, noise, next_sigma))
        assert std == 0


def test_eq4_refuses_a_stochastic_last_step(clean):
    with pytest.raises(ValueError, match="noise_level: the last step must stay deterministic"):
        transition_eq4(clean, clean, 0.522, 0.0, 0.3)


def test_log_prob_is_torchs(clean, noise):
    value = gaussian_log_prob(clean.float(), noise.float(), 0.37)
    expected = torch.distributions.Normal(noise.float(), 0.37).log_prob(clean.float()).flatten(1).mean(1)
    torch.testing.assert_close(value, expected)
    assert value.shape == (2,)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_log_prob_of_a_deterministic_step_is_refused(clean, std):
    with pytest.raises(ValueError, match="std"):
        gaussian_log_prob(clean, clean, std)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("steps", [1, 3, 8, 50])
def test_shifted_sigmas_are_diffusers(shift, steps):
    uniform = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=uniform[:-1].tolist())
    torch.testing.assert_close(shift_sigmas(uniform, shift).float(), theirs.sigmas)
    assert FewStepScheduler(sigmas=None, shift=shift).schedule(steps) == shift_sigmas(uniform, shift).tolist()


def test_schedules():
    scheduler = FewStepScheduler()
    assert scheduler.sigmas == list(FEW_STEP_SIGMAS)
    assert scheduler.timesteps.tolist() == pytest.approx([1000, 755, 522])
    scheduler.set_timesteps(7)
    assert len(scheduler.sigmas) == 8 and scheduler.sigmas[0] == 1 and scheduler.sigmas[-1] == 0
    assert scheduler.sigmas == sorted(scheduler.sigmas, reverse=True)
    scheduler.set_timesteps()
    assert scheduler.schedule(3) == list(FEW_STEP_SIGMAS) and len(scheduler) == 1000


def test_scale_noise_is_add_noise(clean, noise):
    scheduler = FewStepScheduler()
    torch.testing.assert_close(scheduler.scale_noise(clean, 400, noise), add_noise(clean, noise, 0.4))
    each = torch.linspace(100, 900, len(clean))
    rows = [scheduler.scale_noise(clean[i : i + 1], each[i], noise[i : i + 1]) for i in range(len(clean))]
    torch.testing.assert_close(scheduler.scale_noise(clean, each, noise), torch.cat(rows))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_loop_of_diffusers_is_the_sampler(clean, eta):
    """Its steps are those of the kernel, with the same noise; the last one is deterministic."""
    scheduler = FewStepScheduler(eta=eta)
    scheduler.set_timesteps(3)
    sample = latents = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    sigmas, ours, theirs = scheduler.sigmas, *(torch.Generator().manual_seed(2) for _ in range(2))
    for i, timestep in enumerate(scheduler.timesteps):
        sample = scheduler.step(0.1 * sample, timestep, sample, generator=ours).prev_sample
        mean, std = transition(latents, 0.1 * latents, sigmas[i], sigmas[i + 1], eta if sigmas[i + 1] else 0)
        latents = mean + std * torch.randn(mean.shape, generator=theirs) if std else mean
    assert torch.equal(sample, latents)
    (tuple_form,) = scheduler.step(sample, 1000.0, sample, generator=ours, return_dict=False)
    assert tuple_form.shape == clean.shape and torch.equal(scheduler.scale_model_input(sample, 5), sample)


def test_a_timestep_of_another_schedule_is_refused(clean):
    with pytest.raises(ValueError, match="timestep: 700 is not one of 1000, 755, 522; loop over scheduler.timesteps"):
        FewStepScheduler().step(clean, 700, clean)


def test_saved_and_loaded_settings_are_the_same(tmp_path):
    scheduler = FewStepScheduler(sigmas=(1, 0.5, 0))
    scheduler.save_pretrained(tmp_path)
    ours = {name: value for name, value in scheduler.config.items() if name != "_use_default_values"}
    assert dict(FewStepScheduler.from_pretrained(tmp_path).config) == ours and ours["sigmas"] == [1.0, 0.5, 0.0]
    assert scheduler.compatibles == [FewStepScheduler] and scheduler.init_noise_sigma == 1


@pytest.mark.parametrize(
    "settings", [{}, {"sigmas": None, "num_inference_steps": 12, "eta": 0.0, "first_frame": "generate", "shift": 3.0}]
)
def test_scheduler_survives_saving(tmp_path, settings):
    scheduler = FewStepScheduler(**settings)
    scheduler.save_pretrained(tmp_path)
    loaded = FewStepScheduler.from_pretrained(tmp_path)
    assert loaded.sigmas == scheduler.sigmas
    for name in ("sigmas", "num_inference_steps", "shift", "eta", "first_frame", "num_train_timesteps"):
        ours, theirs = scheduler.config[name], loaded.config[name]
        assert theirs == (list(ours) if isinstance(ours, tuple) else ours)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first_frame": "guess"}, "first_frame: 'guess' is unknown; use 'encode' or 'generate'"),
        ({"eta": 1.5}, "eta: 1.5 is outside"),
        ({"sigmas": [1.0, 0.5, 0.5, 0.0]}, "must fall strictly from 1 to 0"),
        ({"sigmas": [0.9, 0.0]}, "must fall strictly from 1 to 0"),
        ({"sigmas": [1.0]}, "must fall strictly from 1 to 0"),
        ({"num_inference_steps": 0}, "num_inference_steps: 0 must be a whole number of at least 1; use 3"),
        ({"num_inference_steps": True}, "num_inference_steps: True must be a whole number"),
        ({"num_inference_steps": 2.5}, "num_inference_steps: 2.5 must be a whole number"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FewStepScheduler(**settings)
