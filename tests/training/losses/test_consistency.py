"""Consistency in closed form: point masses and Gaussians, whose flows and jumps are known."""

import pytest
import torch

from training.losses.consistency import consistency_loss, draw_levels, solver_schedule, spread


SHAPE = (3, 2, 4, 2, 2)
SPREAD = 0.6


def gaussian_velocity(noisy, sigmas):
    """The flow of data ``N(0, SPREAD^2)``: the mean of noise minus data, given their mixture."""
    level = spread(sigmas)
    variance = (1 - level) ** 2 * SPREAD**2 + level**2
    return noisy * (level - (1 - level) * SPREAD**2) / variance


def gaussian_jump(noisy, sigmas):
    """The velocity whose clean prediction is where that flow ends: a Gaussian is only scaled along it."""
    level = spread(sigmas)
    end = noisy * SPREAD / ((1 - level) ** 2 * SPREAD**2 + level**2).sqrt()
    return torch.where(level > 0, (noisy - end) / level.clamp_min(1e-12), 0.0)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    return SPREAD * clean, noise


def levels_of(steps, clips=SHAPE[0], given=0, seed=1):
    generator, schedule = torch.Generator().manual_seed(seed), solver_schedule(steps, 5.0).double()
    drawn = [draw_levels(schedule, SHAPE[2], given, generator) for _ in range(clips)]
    return [torch.cat(part) for part in zip(*drawn, strict=True)]


def test_a_point_is_jumped_to_from_everywhere(data):
    """With one clean clip for all, velocities are straight: the teacher is its own consistency function."""
    point = torch.randn(SHAPE, dtype=torch.float64)

    def straight(noisy, sigmas):
        level = spread(sigmas)
        return torch.where(level > 0, (noisy - point) / level.clamp_min(1e-12), 0.0)

    loss, _ = consistency_loss(straight, straight, straight, point, data[1], *levels_of(7))
    assert loss.item() < 1e-24


def losses_of_all_intervals(student, steps):
    """The loss at each interval of an even schedule, with a teacher that is the Gaussian's flow."""
    schedule, generator = solver_schedule(steps, 1.0).double(), torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, steps, 2, 4, 8, 8, generator=generator, dtype=torch.float64)
    upper, lower = (part[:, None].expand(-1, 4) for part in (schedule[:-1], schedule[1:]))
    return consistency_loss(student, student, gaussian_velocity, SPREAD * clean, noise, upper, lower)[0].item()


def test_the_true_jump_has_no_loss_but_the_solvers(data):
    """The distance that is left for the exact solution falls with the square of the step, the loss with its fourth."""
    found = [losses_of_all_intervals(gaussian_jump, steps) for steps in (12, 24, 48)]
    assert 10 < found[0] / found[1] < 22 and 10 < found[1] / found[2] < 22
    assert losses_of_all_intervals(gaussian_velocity, 48) > 100 * found[2]


def test_the_last_interval_is_anchored_to_data(data):
    """One step above sigma 0 the target is where the teacher leads, whatever the average would say."""
    schedule = solver_schedule(6, 5.0).double()
    upper, lower = torch.full(SHAPE[:1] + SHAPE[2:3], schedule[-2]), torch.zeros(SHAPE[:1] + SHAPE[2:3])

    def absurd(noisy, sigmas):
        return torch.full_like(noisy, 1e6)

    loss, _ = consistency_loss(gaussian_velocity, absurd, gaussian_velocity, *data, upper.double(), lower.double())
    assert loss.item() < 1e-20


def test_only_the_student_gets_a_gradient_and_its_own(data):
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    levels = levels_of(5)
    models = [lambda x, s, k=k: scale[k] * gaussian_velocity(x, s) for k in range(3)]
    loss, _ = consistency_loss(*models, *data, *levels)
    (gradient,) = torch.autograd.grad(loss, scale)
    assert gradient[1] == gradient[2] == 0 and gradient[0] != 0
    step = 1e-6
    moved = [lambda x, s: (1 + step) * gaussian_velocity(x, s), gaussian_velocity, gaussian_velocity]
    change = (consistency_loss(*moved, *data, *levels)[0] - loss).item() / step
    assert gradient[0].item() == pytest.approx(change, rel=1e-4)


def test_given_latents_leave_the_loss_and_every_clip_counts_alike(data):
    upper, lower = levels_of(5, given=1)
    assert (upper[:, 0] == 0).all() and (lower[:, 0] == 0).all() and (upper[:, 1:] > lower[:, 1:]).all()

    def offset(noisy, sigmas):
        return gaussian_velocity(noisy, sigmas) + spread((sigmas == 0).double()) * 1e6

    arguments = (gaussian_velocity, gaussian_velocity, gaussian_velocity, *data)
    loss = consistency_loss(*arguments, upper, lower)[0]
    assert consistency_loss(offset, *arguments[1:], upper, lower)[0] == loss
    upper[0, 2] = lower[0, 2] = 0
    alone = [consistency_loss(*arguments[:3], *(x[i : i + 1] for x in (*data, upper, lower)))[0] for i in range(3)]
    torch.testing.assert_close(consistency_loss(*arguments, upper, lower)[0], torch.stack(alone).mean())


def test_levels_are_neighbours_of_a_shifted_schedule_and_all_come():
    schedule = solver_schedule(8, 5.0)
    assert schedule[0] == 1 and schedule[-1] == 0 and (schedule.diff() < 0).all()
    assert schedule[4].item() == pytest.approx(5 * 0.5 / (1 + 4 * 0.5))
    generator = torch.Generator().manual_seed(0)
    upper, lower = draw_levels(schedule, 4000, 0, generator)
    pairs = {(round(a, 6), round(b, 6)) for a, b in zip(upper[0].tolist(), lower[0].tolist(), strict=True)}
    assert pairs == {
        (round(a, 6), round(b, 6)) for a, b in zip(schedule[:-1].tolist(), schedule[1:].tolist(), strict=True)
    }
    assert (upper[0] == 1).float().mean().item() == pytest.approx(1 / 8, abs=0.02)
