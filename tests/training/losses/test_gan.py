"""The discriminator on the critic's trunk: what it sees, that it can learn, and that a generator can descend it."""

import math

import pytest
import torch

from training.losses import gan


@pytest.fixture
def critic(make_transformer):
    return gan.Critic(make_transformer(), gan.head_layers(2))


@pytest.fixture
def inputs(make_conditions):
    conditions, _ = make_conditions(3)
    return torch.randn(conditions.motion.shape), torch.rand(2, 3), conditions


@pytest.mark.parametrize(("layers", "expected"), [(30, (9, 19, 29)), (6, (1, 3, 5)), (2, (0, 1)), (1, (0,))])
def test_heads_are_spread_to_the_last_block(layers, expected):
    assert gan.head_layers(layers) == expected


def test_one_pass_gives_the_velocity_and_the_logits(critic, inputs):
    noisy, sigmas, conditions = inputs
    velocity, logits = critic(noisy, sigmas, conditions)
    assert logits.shape == (2,) and not any(block._forward_hooks for block in critic.transformer.blocks)
    joined = torch.cat([noisy, conditions.motion, conditions.image], dim=1)
    (plain,) = critic.transformer(joined, 1000 * sigmas, conditions.text, conditions.image_tokens, return_dict=False)
    assert torch.equal(velocity, plain)
    for row in range(2):
        index = torch.tensor([row])
        alone = critic(noisy[index], sigmas[index], conditions.rows(index))[1]
        torch.testing.assert_close(alone, logits[index])


def test_recomputed_activations_change_nothing(critic, inputs):
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            critic.transformer.enable_gradient_checkpointing()
        critic.zero_grad()
        logits = critic(*inputs)[1]
        logits.sum().backward()
        found.append([logits.detach(), *(p.grad for p in critic.parameters() if p.grad is not None)])
    assert len(found[0]) > 20 and all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_losses_in_closed_form():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([-3.0, 0.5])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    expected += (math.log1p(math.exp(-3)) + math.log1p(math.exp(0.5))) / 2
    loss, metrics = gan.discriminator_loss(real, fake)
    assert loss.item() == pytest.approx(expected, rel=1e-6) and metrics["gan/accuracy"] == 0.5
    assert gan.discriminator_loss(torch.zeros(2), torch.zeros(2))[0].item() == pytest.approx(2 * math.log(2))
    loss, _ = gan.generator_loss(fake)
    assert loss.item() == pytest.approx((math.log1p(math.exp(3)) + math.log1p(math.exp(-0.5))) / 2, rel=1e-6)


def test_the_discriminator_learns_to_tell(critic, inputs):
    """Clips of two brightnesses, told apart after a few updates."""
    noisy, sigmas, conditions = inputs
    optimizer = torch.optim.Adam(critic.heads.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        real, fake = (critic(shift + torch.randn_like(noisy), sigmas, conditions)[1] for shift in (1.0, -1.0))
        loss, metrics = gan.discriminator_loss(real, fake)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0] and metrics["gan/accuracy"] == 1


def test_a_generator_descends_a_fixed_discriminator(critic, inputs):
    """The adversarial loss falls, and no parameter of the discriminator gets a gradient."""
    noisy, sigmas, conditions = inputs
    critic.requires_grad_(False)
    clips = noisy.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([clips], 0.05)
    losses = []
    for _ in range(25):
        loss, _ = gan.generator_loss(critic(clips, sigmas, conditions)[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05 and losses == sorted(losses, reverse=True)
    assert all(parameter.grad is None for parameter in critic.parameters())
