"""Stage 1's loss in closed form with a made-up velocity; weights of mean one; noise levels as distributed."""

from types import SimpleNamespace

import pytest
import torch

from ardrag.conditioning import Conditions
from ardrag.flow import add_noise, shift_sigmas
from training.losses.flow_matching import clamp_first_latent, flow_matching_loss, motion_weights, sample_sigmas


SHAPE = (2, 3, 4, 2, 2)
LAYOUT = {"latents": 3, "motion": 3, "image": 3}


class Fake:
    """In the place of a transformer: answers with `velocity` and keeps what it was asked."""

    config = SimpleNamespace(input_layout=LAYOUT)

    def __init__(self, velocity):
        self.velocity = velocity

    def __call__(self, inputs, timestep, text, image_tokens, causal, clean_context, return_dict):
        self.asked = SimpleNamespace(inputs=inputs, timestep=timestep, causal=causal, history=clean_context)
        return (self.velocity,)


@pytest.fixture
def data():
    clean, noise, motion, image = torch.randn(4, *SHAPE)
    return clean, noise, Conditions(motion, image, torch.randn(2, 5, 8))


def loss_of(velocity, data, sigmas, causal=False, emphasis=0.0):
    clean, noise, conditions = data
    fake = Fake(velocity)
    loss, metrics = flow_matching_loss(fake, clean, noise, sigmas, conditions, causal, emphasis)
    return loss, metrics, fake.asked


def test_right_velocity_has_no_loss(data):
    loss, metrics, _ = loss_of(data[1] - data[0], data, torch.rand(2, 4))
    assert loss == 0 and metrics == {"loss/weighted": 0, "loss/flow_matching": 0}


def test_loss_is_the_mean_squared_error(data):
    velocity = torch.randn(SHAPE)
    loss, metrics, _ = loss_of(velocity, data, torch.rand(2, 4) + 0.01)
    expected = (velocity - (data[1] - data[0])).square().mean()
    torch.testing.assert_close(loss, expected)
    assert metrics["loss/flow_matching"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("emphasis", [0.0, 3.0])
def test_given_latents_leave_the_loss(data, emphasis):
    sigmas = torch.rand(2, 4) + 0.01
    sigmas[0, 0] = sigmas[1, 2] = 0
    velocity = torch.randn(SHAPE)
    loss, metrics, _ = loss_of(velocity, data, sigmas, emphasis=emphasis)
    absurd = velocity.clone()
    absurd[0, :, 0] = absurd[1, :, 2] = 1e6
    torch.testing.assert_close(loss_of(absurd, data, sigmas, emphasis=emphasis)[0], loss)
    squared = (velocity - (data[1] - data[0])).square().mean(1, keepdim=True)
    learned = (sigmas > 0).float()[:, None, :, None, None].expand_as(squared)
    weights = learned * motion_weights(data[0], emphasis)
    each = (weights * squared).flatten(1).sum(1) / weights.flatten(1).sum(1)
    torch.testing.assert_close(loss, each.mean())  # every clip counts alike, however many of its latents are given
    assert metrics["loss/flow_matching"] == pytest.approx(float((learned * squared).sum() / learned.sum()), rel=1e-5)


def test_transformer_is_asked_about_noisy_latents(data):
    clean, noise, conditions = data
    sigmas = torch.rand(2, 4)
    *_, asked = loss_of(clean, data, sigmas)
    noisy = add_noise(clean, noise, sigmas[:, None, :, None, None])
    assert torch.equal(asked.inputs, torch.cat([noisy, conditions.motion, conditions.image], dim=1))
    assert torch.equal(asked.timestep, 1000 * sigmas) and asked.causal is False and asked.history is None


def test_causal_history_is_clean(data):
    clean, _, conditions = data
    *_, asked = loss_of(clean, data, torch.rand(2, 4), causal=True)
    assert asked.causal is True
    assert torch.equal(asked.history, torch.cat([clean, conditions.motion, conditions.image], dim=1))


def test_gradient_of_the_loss(data):
    velocity = torch.randn(SHAPE, requires_grad=True)
    loss_of(velocity, data, torch.rand(2, 4) + 0.01)[0].backward()
    expected = 2 * (velocity.detach() - (data[1] - data[0])) / velocity.numel()
    torch.testing.assert_close(velocity.grad, expected)


@pytest.mark.parametrize("emphasis", [0.0, 1.0, 3.0])
def test_weights_have_mean_one(emphasis):
    clean = torch.zeros(2, 3, 4, 2, 2)
    clean[0, :, 2:, 0] = 5  # moves
    weights = motion_weights(clean, emphasis)
    assert weights.shape == (2, 1, 4, 2, 2) and weights.mean().item() == pytest.approx(1)
    assert (weights[0, 0, 2, 0, 0] / weights[0, 0, 2, 1, 0]).item() == pytest.approx(1 + emphasis)
    assert all(clip[:, 0].std() == 0 and clip.mean().item() == pytest.approx(1) for clip in weights)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_noise_levels_are_shifted_uniform(shift):
    sigmas = sample_sigmas(4000, 5, shift, True, torch.Generator().manual_seed(0))
    assert sigmas.shape == (4000, 5) and sigmas.min() >= 0 and sigmas.max() <= 1
    probabilities = torch.linspace(0.05, 0.95, 19)
    expected = shift_sigmas(probabilities, shift)
    torch.testing.assert_close(torch.quantile(sigmas.flatten(), probabilities), expected, rtol=0, atol=0.02)
    assert abs(torch.corrcoef(sigmas[:, :2].T)[0, 1]) < 0.05


def test_one_level_for_all_latents_of_a_clip():
    sigmas = sample_sigmas(50, 5, 3.0, False, torch.Generator().manual_seed(0))
    assert (sigmas == sigmas[:, :1]).all() and len(sigmas[:, 0].unique()) == 50


def test_first_latent_is_given_for_a_share():
    sigmas = torch.full((4000, 3), 0.5)
    clamped = clamp_first_latent(sigmas, 0.85, torch.Generator().manual_seed(0))
    assert (clamped[:, 0] == 0).float().mean().item() == pytest.approx(0.85, abs=0.02)
    assert (clamped[:, 1:] == 0.5).all() and (sigmas == 0.5).all()
    assert (clamp_first_latent(sigmas, 0.0, torch.Generator()) == 0.5).all()
    assert (clamp_first_latent(sigmas, 1.0, torch.Generator())[:, 0] == 0).all()


def test_few_levels_are_drawn_alike():
    drawn = sample_sigmas(3000, 2, 3.0, True, torch.Generator().manual_seed(0), levels=[1.0, 0.755, 0.522])
    for level in (1.0, 0.755, 0.522):
        assert (drawn == level).float().mean().item() == pytest.approx(1 / 3, abs=0.03)
    assert (drawn[:, 0] != drawn[:, 1]).any()


def test_a_history_of_its_own_is_looked_back_at(data):
    clean, noise, conditions = data
    fake, past = Fake(torch.randn(SHAPE)), torch.randn(SHAPE)
    flow_matching_loss(fake, clean, noise, torch.rand(2, 4), conditions, True, 0.0, past)
    assert torch.equal(fake.asked.history[:, :3], past)
