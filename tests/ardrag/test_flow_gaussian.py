"""The kernels on data whose velocity is known exactly: a Gaussian, and a student that samples it (anchors: 2, 3)."""

import math

import pytest
import torch

from ardrag.flow import (
    FEW_STEP_SIGMAS,
    Transition,
    clean_from_velocity,
    noise_from_velocity,
    transition,
    transition_eq4,
)


DATA_VARIANCE = 0.25


def exact_velocity(noisy, sigma):
    """E[noise - clean | noisy] for clean ~ N(0, DATA_VARIANCE)."""
    variance = (1 - sigma) ** 2 * DATA_VARIANCE + sigma**2
    return (sigma - (1 - sigma) * DATA_VARIANCE) / variance * noisy


def final_variance(kernel, level, steps=1000, first=0.999, last=0.001):
    """Variance after ``steps`` uniform steps: each is linear here, so no sample is needed."""
    variance = (1 - first) ** 2 * DATA_VARIANCE + first**2
    grid = torch.linspace(first, last, steps + 1, dtype=torch.float64).tolist()
    one = torch.ones(1, dtype=torch.float64)
    for sigma, following in zip(grid, grid[1:], strict=False):
        mean, std = kernel(one, exact_velocity(one, sigma), sigma, following, level)
        variance = float(mean) ** 2 * variance + std**2
    return variance


def wrong_sign(noisy, velocity, sigma, next_sigma, level):
    """Eq. 4 as it would read with the convention of the paper's section 3.1: the score pulls the other way."""
    right = transition_eq4(noisy, velocity, sigma, next_sigma, level)
    ode = noisy + (next_sigma - sigma) * velocity
    return Transition(2 * ode - right.mean, right.std)


def test_the_sde_of_eq4_ends_at_the_data_and_with_the_other_sign_it_explodes():
    target = 0.999**2 * DATA_VARIANCE + 0.001**2
    assert final_variance(transition_eq4, 0.0) == pytest.approx(target, rel=0.01)
    assert final_variance(transition_eq4, 0.7) == pytest.approx(target, rel=0.01)
    assert final_variance(transition, 0.0) == pytest.approx(target, rel=0.01)
    assert final_variance(wrong_sign, 0.7) > 20


def test_eq4_is_the_flux_step_where_its_noise_is_constant(noisy=1.3, sigma=0.6, next_sigma=0.4, eta=0.3):
    """mean = x + v dt - eta^2 / 2 score dt with score = -(x - (1 - sigma) clean) / sigma^2, std = eta sqrt(|dt|)."""
    x, v = torch.tensor([noisy], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    step, level = next_sigma - sigma, eta * math.sqrt((1 - sigma) / sigma)
    score = -(x - (1 - sigma) * clean_from_velocity(x, v, sigma)) / sigma**2
    mean, std = transition_eq4(x, v, sigma, next_sigma, level)
    torch.testing.assert_close(mean, x + v * step - eta**2 / 2 * score * step)
    assert std == pytest.approx(eta * math.sqrt(-step))
    torch.testing.assert_close(score, -noise_from_velocity(x, v, sigma) / sigma)


def test_a_student_that_samples_the_data_keeps_every_level_exact_by_renoising():
    """At eta 1 the clean prediction may be any sample of the data; the ODE would need it to fit the noise."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(200_000, generator=generator, dtype=torch.float64)
    for sigma, following in zip(FEW_STEP_SIGMAS[:-1], FEW_STEP_SIGMAS[1:-1], strict=False):
        clean = DATA_VARIANCE**0.5 * torch.randn(noisy.shape, generator=generator, dtype=torch.float64)
        mean, std = transition(noisy, (noisy - clean) / sigma, sigma, following, eta=1.0)
        noisy = mean + std * torch.randn(noisy.shape, generator=generator, dtype=torch.float64)
        expected = (1 - following) ** 2 * DATA_VARIANCE + following**2
        assert noisy.var().item() == pytest.approx(expected, rel=0.01) and abs(noisy.mean()) < 0.01
