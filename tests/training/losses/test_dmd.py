"""The distillation losses by their formulas, and that they do what they are for: recover a distribution."""

import pytest
import torch
from torch import nn

from ardrag.conditioning import Conditions
from ardrag.flow import add_noise, clean_from_velocity
from ardrag.guidance import Guidance
from training.losses import dmd


SHAPE = (2, 3, 4, 2, 2)


@pytest.fixture
def clips():
    return torch.randn(3, *SHAPE, dtype=torch.float64)


def test_gradient_is_its_formula(clips):
    generated, teacher, critic = clips
    gradient = dmd.dmd_gradient(generated, teacher, critic, torch.ones(2, 4))
    for i in range(2):
        expected = (critic[i] - teacher[i]) / (generated[i] - teacher[i]).abs().mean()
        torch.testing.assert_close(gradient[i], expected)


def test_given_latents_count_nowhere(clips):
    generated, teacher, critic = clips
    learned = torch.ones(2, 4)
    learned[:, 0] = 0
    gradient = dmd.dmd_gradient(generated, teacher, critic, learned)
    assert (gradient[:, :, 0] == 0).all()
    torch.testing.assert_close(gradient[:, :, 1:], dmd.dmd_gradient(*(x[:, :, 1:] for x in clips), learned[:, 1:]))


def test_no_gradient_where_teacher_and_critic_agree(clips):
    generated, teacher, _ = clips
    assert (dmd.dmd_gradient(generated, teacher, teacher, torch.ones(2, 4)) == 0).all()
    assert dmd.dmd_gradient(teacher, teacher, teacher, torch.ones(2, 4)).isfinite().all()


def test_loss_passes_the_gradient_on(clips):
    generated, gradient, _ = clips
    generated.requires_grad_(True)
    learned = torch.ones(2, 4)
    learned[1, 0] = 0
    gradient = gradient * learned[:, None, :, None, None]
    loss, metrics = dmd.dmd_loss(generated, gradient, learned)
    (found,) = torch.autograd.grad(loss, generated)
    count = 7 * 3 * 2 * 2
    torch.testing.assert_close(found, gradient / count)
    assert metrics["dmd/gradient"] == pytest.approx((gradient.abs().sum() / count).item())


def test_critic_loss_is_flow_matching_on_learned_latents(clips):
    velocity, generated, noise = clips
    learned = torch.ones(2, 4)
    learned[:, 0] = 0
    loss, _ = dmd.critic_loss(velocity, generated, noise, learned)
    torch.testing.assert_close(loss, (velocity - (noise - generated))[:, :, 1:].square().mean())
    assert dmd.critic_loss(noise - generated, generated, noise, learned)[0] == 0


def test_noise_levels():
    levels = dmd.sample_score_sigmas(4000, 5.0, torch.Generator().manual_seed(0))
    assert levels.min() >= 0.02 and levels.max() <= 0.98
    assert levels.median().item() == pytest.approx(5 * 0.5 / (1 + 4 * 0.5), abs=0.02)
    sigmas = dmd.clip_sigmas(levels[:3], 4, first_given=True)
    assert sigmas.shape == (3, 4) and (sigmas[:, 0] == 0).all()
    assert (sigmas[:, 1:] == levels[:3, None]).all()
    assert (dmd.clip_sigmas(levels[:3], 4, first_given=False) == levels[:3, None]).all()


class Told:
    """In the place of a teacher: answers with the mean of what it was told, text and motion."""

    config = type("Config", (), {"input_layout": {"latents": 3, "motion": 3}})

    def __call__(self, inputs, timestep, text, image_tokens, return_dict):
        return (inputs[:, 3:] + text.mean() + timestep.mean() / 1000,)


@pytest.mark.parametrize(("text", "motion"), [(0.0, 0.0), (3.0, 0.0), (0.0, 2.0), (3.0, 2.0)])
def test_guidance(clips, text, motion):
    noisy, control, image = clips
    conditions = Conditions(control, image, torch.full((2, 5, 8), 0.7, dtype=torch.float64))
    sigmas = torch.full((2, 4), 0.5, dtype=torch.float64)
    null_text, null_motion = torch.zeros(1, 5, 8, dtype=torch.float64), torch.full_like(control[:1], -1)
    guidance = Guidance(text, motion)
    clean = dmd.teacher_clean(Told(), noisy, sigmas, conditions, null_text, null_motion, guidance)
    velocity = control + 0.7 + 0.5 + text * 0.7 + motion * (control - null_motion)
    torch.testing.assert_close(clean, noisy - 0.5 * velocity)


# Two modes in the plane with known weights; the teacher is the exact score of their mixture under any noise.
MEANS, WEIGHTS, SPREAD = torch.tensor([[-1.5, 0.0], [1.0, 1.0]]), torch.tensor([0.3, 0.7]), 0.3


def posterior_mean(noisy, sigma):
    """E[clean | noisy] of the mixture: noisy given mode k is Gaussian around (1 - sigma) * mean_k."""
    sigma = sigma.flatten()[:, None]
    kept = 1 - sigma
    variance = (kept * SPREAD) ** 2 + sigma**2
    away = noisy.flatten(1)[:, None] - kept[:, None] * MEANS
    modes = (WEIGHTS.log() - away.square().sum(-1) / (2 * variance)).softmax(1)
    return (modes[..., None] * (MEANS + (kept * SPREAD**2 / variance)[:, None] * away)).sum(1)


def network(inputs, width):
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))


def as_clips(points):
    return points[:, :, None, None, None]


@pytest.mark.slow
def test_distillation_recovers_a_mixture():
    """Means and weights of both modes within 5 % (of the modes' distance, and of the weight)."""
    generator, critic = network(2, 64), network(3, 96)
    optimizers = [
        torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.0, 0.99)),
        torch.optim.Adam(critic.parameters(), 3e-3, betas=(0.5, 0.99)),
    ]
    steps, batch, learned = 1000, 512, torch.ones(512, 1)
    falling = [
        torch.optim.lr_scheduler.LinearLR(o, 1.0, end, steps) for o, end in zip(optimizers, (0.02, 0.1), strict=True)
    ]
    draws = torch.Generator().manual_seed(0)

    def noised(clips):
        sigma = as_clips(dmd.sample_score_sigmas(batch, 1.0, draws)[:, None])
        noise = torch.randn(clips.shape, generator=draws)
        noisy = add_noise(clips.detach(), noise, sigma)
        return noise, noisy, sigma, as_clips(critic(torch.cat([noisy.flatten(1), sigma.flatten(1)], 1)))

    def step(index, loss):
        optimizers[index].zero_grad()
        loss.backward()
        optimizers[index].step()

    for _ in range(steps):
        for _ in range(5):
            clips = as_clips(generator(torch.randn(batch, 2, generator=draws))).detach()
            noise, _, _, velocity = noised(clips)
            step(1, dmd.critic_loss(velocity, clips, noise, learned)[0])
        clips = as_clips(generator(torch.randn(batch, 2, generator=draws)))
        _, noisy, sigma, velocity = noised(clips)
        fake, real = clean_from_velocity(noisy, velocity.detach(), sigma), as_clips(posterior_mean(noisy, sigma))
        step(0, dmd.dmd_loss(clips, dmd.dmd_gradient(clips.detach(), real, fake, learned), learned)[0])
        for schedule in falling:
            schedule.step()

    with torch.no_grad():
        points = generator(torch.randn(20000, 2, generator=draws))
    nearest = torch.cdist(points, MEANS).argmin(1)
    between = (MEANS[0] - MEANS[1]).norm()
    for mode, weight in enumerate(WEIGHTS.tolist()):
        assert (points[nearest == mode].mean(0) - MEANS[mode]).norm() < 0.05 * between
        assert (nearest == mode).float().mean().item() == pytest.approx(weight, rel=0.05)
