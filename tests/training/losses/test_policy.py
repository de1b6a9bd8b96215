"""Stage 3's mathematics against closed forms, torch.distributions and finite differences; and that it can learn."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ardrag.flow import transition
from training.losses.policy import (
    gaussian_divergence,
    group_advantages,
    latent_log_prob,
    low_pass,
    policy_loss,
    reward_to_go,
)


SHAPE = (3, 2, 4, 2, 2)


def test_advantages_have_mean_0_and_spread_1_at_each_latent():
    rewards = torch.randn(8, 5, dtype=torch.float64) * 3 + 2
    values, informative = group_advantages(rewards, clamp=100, eps=0)
    assert informative.all()
    torch.testing.assert_close(values.mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(5, dtype=torch.float64))


def test_groups_that_say_nothing():
    rewards = torch.randn(4, 3)
    rewards[:, 1] = 2.5
    rewards[2, 2] = float("nan")
    values, informative = group_advantages(rewards)
    assert informative.tolist() == [True, False, False]
    assert (values[:, 1:] == 0).all() and values.isfinite().all() and values[:, 0].abs().sum() > 0


def test_advantages_do_not_depend_on_the_order_of_the_group():
    rewards, order = torch.randn(6, 4), torch.randperm(6)
    torch.testing.assert_close(group_advantages(rewards[order]).values, group_advantages(rewards).values[order])


def test_clamp():
    rewards = torch.zeros(200, 1)
    rewards[0] = 1
    assert group_advantages(rewards).values.max() == 5


def test_credit():
    rewards = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    assert reward_to_go(rewards, 0.5).tolist() == [[3.0, 4.0, 4.0], [0.0, 0.0, 0.0]]
    assert torch.equal(reward_to_go(rewards, 0.0), rewards)
    late = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    assert not group_advantages(late).informative[0] and group_advantages(late, credit=0.9).informative.all()


@pytest.mark.parametrize(
    ("rewards", "credit", "message"),
    [(torch.zeros(1, 3), 0.0, "rewards: shape .1, 3. must be"), (torch.zeros(2, 3), 1.5, "credit: 1.5 is outside")],
)
def test_errors(rewards, credit, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, credit)


def test_log_prob_and_divergence_are_those_of_torch():
    sample, mean, reference = torch.randn(3, *SHAPE)
    std = torch.rand(3, 4) + 0.1
    spread = std[:, None, :, None, None].expand(SHAPE)
    expected = Normal(mean, spread).log_prob(sample).mean((1, 3, 4))
    torch.testing.assert_close(latent_log_prob(sample, mean, std), expected)
    expected = kl_divergence(Normal(mean, spread), Normal(reference, spread)).mean((1, 3, 4))
    torch.testing.assert_close(gaussian_divergence(mean, reference, std), expected)
    assert (gaussian_divergence(mean, mean, std) == 0).all()
    region = torch.rand(4, 2, 2) < 0.5
    inside, outside = (gaussian_divergence(mean, reference, std, part) for part in (region, ~region))
    torch.testing.assert_close(inside + outside, expected)
    moved = torch.where(region[None, None], reference, mean)
    assert (gaussian_divergence(mean, moved, std, ~region) == 0).all()


def test_a_region_is_the_mean_over_its_places():
    sample, mean = torch.randn(2, *SHAPE)
    std, region = torch.rand(3, 4) + 0.1, torch.zeros(4, 2, 2, dtype=torch.bool)
    region[0], region[2, 0], region[3, 1, 1] = True, True, True
    spread = std[:, None, :, None, None].expand(SHAPE)
    each = Normal(mean, spread).log_prob(sample)
    found = latent_log_prob(sample, mean, std, region)
    torch.testing.assert_close(found[:, 0], each[:, :, 0].mean((1, 2, 3)))
    torch.testing.assert_close(found[:, 2], each[:, :, 2][:, :, region[2]].mean((1, 2)))
    mean.requires_grad_(True)
    latent_log_prob(sample, mean, std, region).sum().backward()
    assert (mean.grad[:, :, ~region] == 0).all() and (mean.grad[:, :, region] != 0).all()


def test_smoothing_pays_what_is_smooth():
    """The gradient is the filtered residual: symmetric and positive, 1 on a constant, nearly 0 on a chequerboard."""
    std = torch.full((1, 1), 0.5, dtype=torch.float64)
    flat = torch.ones(1, 1, 1, 32, 32)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board = ((rows + columns) % 2 * 2.0 - 1).expand_as(flat)
    for pattern, kept in ((flat, 1.0), (board, 0.0)):
        mean = torch.zeros_like(pattern, requires_grad=True)
        latent_log_prob(pattern, mean, std.float(), smoothing=1.2).sum().backward()
        plain = pattern / 0.5**2 / 32**2
        inside = (mean.grad / plain)[..., 8:24, 8:24]
        torch.testing.assert_close(inside, torch.full_like(inside, kept), rtol=0, atol=2e-3)
    one, other = torch.randn(2, 3, 2, 4, 6, 6)
    torch.testing.assert_close((one * low_pass(other, 0.9)).sum(), (low_pass(one, 0.9) * other).sum())
    assert ((one * low_pass(one, 0.9)).flatten(1).sum(1) > 0).all()


def test_noise_outside_of_the_region_adds_variance_and_no_signal():
    """The gradient of a reward that depends on one place: the same mean with and without the region, less spread."""
    generator = torch.Generator().manual_seed(0)
    region = torch.zeros(1, 4, 4, dtype=torch.bool)
    region[0, 1, 2] = True
    std, found = torch.ones(16, 1), {"everywhere": [], "region": []}
    for _ in range(300):
        mean = torch.zeros(1, 1, 1, 4, 4, requires_grad=True)
        sample = torch.randn(16, 1, 1, 4, 4, generator=generator)
        advantages = group_advantages(sample[:, :, 0, 1, 2]).values
        for name, chosen, dimensions in (("everywhere", None, 16), ("region", region, 1)):
            log_prob = latent_log_prob(sample, mean.expand_as(sample), std, chosen) * dimensions
            (gradient,) = torch.autograd.grad((log_prob * advantages).mean(), mean)
            found[name].append(gradient.flatten())
    everywhere, inside = (torch.stack(found[name]) for name in ("everywhere", "region"))
    torch.testing.assert_close(everywhere.mean(0)[6], inside.mean(0)[6])
    assert inside.mean(0)[6] > 0.8 and everywhere.mean(0).abs().sort().values[-2] < 0.1
    assert inside.var(0).sum() < 0.2 * everywhere.var(0).sum()


def test_deterministic_latents_count_nowhere():
    sample, mean, reference = torch.randn(3, *SHAPE)
    std = torch.tensor([[0.0, 0.3, 0.0, 0.2]]).expand(3, -1)
    mean.requires_grad_(True)
    density, divergence = latent_log_prob(sample, mean, std), gaussian_divergence(mean, reference, std)
    assert (density[:, [0, 2]] == 0).all() and (divergence[:, [0, 2]] == 0).all()
    (density.sum() + divergence.sum()).backward()
    assert mean.grad.isfinite().all() and (mean.grad[:, :, [0, 2]] == 0).all() and (mean.grad[:, :, 1] != 0).all()


def test_before_the_first_update_the_ratio_is_exactly_1():
    log_prob = torch.randn(4, 3, requires_grad=True)
    advantages, mask = torch.randn(4, 3), torch.tensor([[1, 1, 0]] * 4)
    loss, metrics = policy_loss(log_prob, log_prob.detach(), advantages, mask)
    assert metrics["policy/ratio_mean"] == 1 and metrics["policy/ratio_spread"] == 0
    assert metrics["policy/clip_fraction"] == 0 and metrics["policy/transitions"] == 8
    assert loss.item() == pytest.approx(-(advantages * mask).sum().item() / 8, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, log_prob)
    torch.testing.assert_close(gradient, -advantages * mask / 8)


def test_clipping_stops_the_gradient_on_the_gaining_side_only():
    log_prob = torch.tensor([[0.01, 0.01, -0.01, -0.01]], requires_grad=True)
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss, metrics = policy_loss(log_prob, torch.zeros(1, 4), advantages, torch.ones(1, 4), clip=1e-4)
    (gradient,) = torch.autograd.grad(loss, log_prob)
    assert (gradient != 0).tolist() == [[False, True, True, False]] and metrics["policy/clip_fraction"] == 1


def test_loss_against_finite_differences():
    start = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64)
    sample, reference = torch.randn(2, *start.shape, dtype=torch.float64)
    std, mask = torch.full((2, 3), 0.4), torch.tensor([[1, 1, 0], [1, 1, 1]])
    advantages = torch.randn(2, 3)
    old = latent_log_prob(sample, start, std)

    def loss_of(mean):
        kl = gaussian_divergence(mean, reference, std)
        return policy_loss(latent_log_prob(sample, mean, std), old, advantages, mask, 0.5, kl, beta=0.3)[0]

    mean = (start + 0.01).requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss_of(mean), mean)
    direction = torch.randn_like(mean)
    step = 1e-2
    with torch.no_grad():
        found = (loss_of(mean + step * direction) - loss_of(mean - step * direction)) / (2 * step)
    assert found.item() == pytest.approx((gradient * direction).sum().item(), rel=2e-2, abs=2e-5)


def test_a_good_sample_becomes_likelier():
    mean = torch.zeros(1, 2, 1, 2, 2, requires_grad=True)
    sample, std = torch.randn(1, 2, 1, 2, 2), torch.full((1, 1), 0.5)
    before = latent_log_prob(sample, mean, std)
    loss, _ = policy_loss(before, before.detach(), torch.ones(1, 1), torch.ones(1, 1))
    loss.backward()
    after = latent_log_prob(sample, mean.detach() - 0.1 * mean.grad, std)
    assert after > before


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_bandit_learns_and_its_shuffled_control_does_not(shuffled):
    """One stochastic step of the real kernel; reward is nearness to a target; the policy is a learned velocity."""
    generator = torch.Generator().manual_seed(0)
    target, start = torch.randn(1, 4, 1, 2, 2, generator=generator), torch.randn(1, 4, 1, 2, 2, generator=generator)
    velocity = torch.zeros(1, 4, 1, 2, 2, requires_grad=True)
    optimizer = torch.optim.Adam([velocity], 0.1, eps=1e-10)
    sigma, following, eta, group = 0.755, 0.522, 0.8, 16

    def distance():
        return (transition(start, velocity.detach(), sigma, following, eta).mean - target).square().mean().item()

    before = distance()
    for _ in range(50):
        mean, std = transition(start, velocity, sigma, following, eta)
        noise = torch.randn(group, 4, 1, 2, 2, generator=generator)
        samples, spread = (mean + std * noise).detach(), torch.full((group, 1), std)
        rewards = -(samples - target).square().mean((1, 3, 4))
        if shuffled:
            rewards = rewards[torch.randperm(group, generator=generator)]
        log_prob = latent_log_prob(samples, mean.expand_as(samples), spread)
        advantages = group_advantages(rewards).values
        loss, _ = policy_loss(log_prob, log_prob.detach(), advantages, torch.ones(group, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (distance() < 0.3 * before) != shuffled
    assert math.isfinite(distance())
