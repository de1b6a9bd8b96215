"""Self-Rollout is what the pipeline does; its replay is what the cache computes, values and gradients alike."""

import pytest
import torch

from ardrag.conditioning import Conditions, transformer_input
from ardrag.kv_cache import KVCache
from ardrag.rollout import GeneratorNoise, generate_chunk, seeded_generator, write_cache
from training.rollouts.self_rollout import chunk_edges, replay, self_rollout


SIGMAS = [1.0, 0.755, 0.522, 0.0]


def noise_of(*seeds):
    return GeneratorNoise([seeded_generator(seed) for seed in seeds], torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("exit_step", range(3))
@pytest.mark.parametrize(("chunk_frames", "given"), [(1, True), (1, False), (3, True), (3, False)])
@torch.no_grad()
def test_replay_computes_what_the_cache_computed(make_transformer, make_conditions, chunk_frames, given, exit_step):
    """A collapsed rollout is made of the very predictions that the replay repeats; far beyond eviction."""
    model = make_transformer(chunk_frames)
    conditions, reference = make_conditions(12 + given)
    rollout = self_rollout(
        model, conditions, SIGMAS, 1.0, noise_of(3, 4), reference if given else None, exit_step, "collapse"
    )
    torch.testing.assert_close(replay(model, model, rollout, conditions), rollout.latents, rtol=0, atol=1e-5)


@torch.no_grad()
def test_replay_looks_back_at_the_sink_too(make_transformer, make_conditions):
    """A window of two latents, and the first one for ever."""
    conditions, reference = make_conditions(8)
    replayed = {}
    for sink in (0, 1):
        model = make_transformer()
        model.register_to_config(sink_frames=sink, window_frames=2)
        rollout = self_rollout(model, conditions, SIGMAS, 1.0, noise_of(3, 4), reference, 1, "collapse")
        replayed[sink] = replay(model, model, rollout, conditions)
        torch.testing.assert_close(replayed[sink], rollout.latents, rtol=0, atol=1e-5)
    assert torch.equal(replayed[0][:, :, :3], replayed[1][:, :, :3])
    assert not torch.allclose(replayed[0][:, :, 3:], replayed[1][:, :, 3:], atol=1e-4)


@torch.no_grad()
def test_collapse_at_the_last_step_is_the_rollout(make_transformer, make_conditions):
    model = make_transformer()
    conditions, reference = make_conditions(5)
    whole, collapsed = (
        self_rollout(model, conditions, SIGMAS, 1.0, noise_of(3, 4), reference, 2, update)
        for update in ("rollout", "collapse")
    )
    assert torch.equal(whole.latents, collapsed.latents) and torch.equal(whole.exit_noisy, collapsed.exit_noisy)
    torch.testing.assert_close(replay(model, model, whole, conditions), whole.latents, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("exit_step", [0, 1])
def test_earlier_exit_steps_tell_the_two_updates_apart(make_transformer, make_conditions, exit_step):
    """Same noise, same first chunk up to the exit step; what becomes history, and all that follows, differs."""
    model = make_transformer()
    conditions, reference = make_conditions(4)
    whole, collapsed = (
        self_rollout(model, conditions, SIGMAS, 0.0, noise_of(3, 4), reference, exit_step, update)
        for update in ("rollout", "collapse")
    )
    assert torch.equal(whole.exit_noisy[:, :, :2], collapsed.exit_noisy[:, :, :2])
    assert not torch.allclose(whole.latents[:, :, 1], collapsed.latents[:, :, 1], atol=1e-3)
    assert (whole.exit_sigmas[:, 1:] == SIGMAS[exit_step]).all() and (whole.exit_sigmas[:, 0] == 0).all()


def uncached(model, conditions, truth, noisy, sigma, start, stop):
    """Clean prediction of one chunk by a pass over the true past and it, with no cache at all."""
    whole = torch.cat([truth[:, :, :start], noisy], dim=2)
    levels = torch.cat([torch.zeros(len(whole), start), torch.full((len(whole), stop - start), sigma)], dim=1)
    made = conditions.chunk(0, stop)
    inputs = transformer_input(whole, made, model.config.input_layout)
    first = (start % model.config.chunk_frames) or model.config.chunk_frames
    velocity = model(
        inputs, 1000 * levels, made.text, made.image_tokens, causal=True, first_chunk_frames=first, return_dict=False
    )[0]
    return noisy - sigma * velocity[:, :, start:]


@pytest.mark.parametrize("exit_step", range(3))
@pytest.mark.parametrize(("chunk_frames", "given"), [(1, True), (1, False), (3, True), (3, False)])
@torch.no_grad()
def test_with_truth_every_prediction_is_that_of_the_uncached_model_on_the_filmed_past(
    make_transformer, make_conditions, chunk_frames, given, exit_step
):
    model = make_transformer(chunk_frames)
    conditions, reference = make_conditions(12 + given)
    truth = torch.randn_like(conditions.motion[:, : reference.shape[1]])
    if given:
        truth[:, :, :1] = reference
    rollout = self_rollout(
        model, conditions, SIGMAS, 1.0, noise_of(3, 4), reference if given else None, exit_step, "truth", truth=truth
    )
    assert torch.equal(rollout.latents, truth)
    torch.testing.assert_close(replay(model, model, rollout, conditions), rollout.exit_clean, rtol=0, atol=1e-5)
    for start, stop in chunk_edges(12 + given, chunk_frames, given):
        noisy = rollout.exit_noisy[:, :, start:stop]
        expected = uncached(model, conditions, truth, noisy, SIGMAS[exit_step], start, stop)
        torch.testing.assert_close(rollout.exit_clean[:, :, start:stop], expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("exit_step", range(3))
def test_with_truth_a_latent_begins_in_noise_and_sees_the_true_past_alone(
    make_transformer, make_conditions, exit_step
):
    """Another truth at latent 2 changes what is made of latents 3 and on, and nothing before: not latent 2 itself."""
    model = make_transformer()
    conditions, reference = make_conditions(5)
    truth = torch.cat([reference, torch.randn(len(reference), reference.shape[1], 4, *reference.shape[3:])], dim=2)
    other = truth.clone()
    other[:, :, 2] += 1
    one, two = (
        self_rollout(model, conditions, SIGMAS, 1.0, noise_of(3, 4), reference, exit_step, "truth", truth=clip)
        for clip in (truth, other)
    )
    assert torch.equal(one.exit_clean[:, :, :3], two.exit_clean[:, :, :3])
    assert not torch.allclose(one.exit_clean[:, :, 3:], two.exit_clean[:, :, 3:], atol=1e-3)
    if exit_step == 0:
        draws = noise_of(3, 4)
        for latent in range(1, 5):
            assert torch.equal(one.exit_noisy[:, :, latent : latent + 1], draws(reference.shape))


@torch.no_grad()
def test_the_first_latent_of_all_histories_is_the_same(make_transformer, make_conditions):
    """Up to the exit step of latent 1 nobody has a past of their own."""
    model = make_transformer()
    conditions, reference = make_conditions(4)
    truth = torch.cat([reference, torch.randn(len(reference), reference.shape[1], 3, *reference.shape[3:])], dim=2)
    made = [
        self_rollout(model, conditions, SIGMAS, 0.0, noise_of(3, 4), reference, 1, update, truth=past).exit_clean
        for update, past in (("rollout", None), ("collapse", None), ("truth", truth))
    ]
    assert all(torch.equal(clean[:, :, :2], made[0][:, :, :2]) for clean in made)
    assert not torch.allclose(made[2][:, :, 2:], made[0][:, :, 2:], atol=1e-3)


class SessionNoise:
    """The noise of a session, latent by latent: the image slot is drawn first, then the sampler's."""

    def __init__(self, seed, shape, draws, first=1):
        self.waiting = []
        for latent in range(first, 40):
            source = GeneratorNoise([seeded_generator(seed, latent)], torch.device("cpu"), torch.float32)
            source(shape)
            self.waiting += [source] * draws

    def __call__(self, shape):
        return self.waiting.pop(0)(shape)


def test_training_rollout_is_the_pipeline(make_pipeline, picture):
    """Bit for bit: the latents of a session are those of a Self-Rollout under the same conditions and noise."""
    pipeline = make_pipeline(scheduler={"eta": 1.0})
    finished, seen = [], []
    session = pipeline.start_session(
        picture, seed=7, callback=lambda latent, step, x: finished.append(x) or x if step == 1 else x
    )
    make = session._maker.conditions
    session._maker.conditions = lambda *arguments: seen.append(make(*arguments)) or seen[-1]
    for m in range(10):
        session.step([(0.1 + 0.05 * m, 0.5)])
    join = {name: torch.cat([getattr(c, name) for c in seen], dim=2) for name in ("motion", "image")}
    conditions = Conditions(**join, text=seen[0].text, image_tokens=seen[0].image_tokens)
    reference = conditions.image[:, :, :1]
    sigmas = pipeline.scheduler.schedule(2)
    noise = SessionNoise(7, reference.shape, draws=2)
    rollout = self_rollout(pipeline.transformer, conditions, sigmas, 1.0, noise, reference, exit_step=0)
    assert torch.equal(rollout.latents, torch.cat([reference, *finished], dim=2))


class FunctionalCache(KVCache):
    """The same ring, but the chunk in the making is joined to its past rather than written into it: differentiable.

    Nor does it keep what a pass without gradients made of the prompt.
    """

    def use_context(self, name, source):
        return False

    def context(self, layer, name):
        return None

    def set_context(self, layer, name, keys_values):
        pass

    def overwrite(self, layer, key, value):
        if not torch.is_grad_enabled():
            return super().overwrite(layer, key, value)
        self.check_chunk(key.shape[1] // self.tokens_per_frame)
        past = range(max(0, self.position - self.window_frames), self.position)
        slots = [self._tokens(self._slot(frame), 1) for frame in past]
        return tuple(
            torch.cat([*(buffer[layer][:, slot].clone() for slot in slots), own], dim=1)
            for buffer, own in ((self._keys, key), (self._values, value))
        )


@pytest.mark.parametrize("exit_step", range(3))
def test_gradient_of_the_replay_is_that_of_the_exit_step_through_the_cache(
    make_transformer, make_conditions, exit_step
):
    model = make_transformer()
    conditions, reference = make_conditions(6)
    rollout = self_rollout(model, conditions, SIGMAS, 1.0, noise_of(3, 4), reference, exit_step)
    weights = torch.randn(rollout.latents[:, :, 1:].shape)
    (replay(model, model, rollout, conditions)[:, :, 1:] * weights).sum().backward()
    replayed = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    cache = model.new_cache(2, *reference.shape[3:])
    cache.__class__ = FunctionalCache
    write_cache(model, reference, conditions.chunk(0, 1), cache)
    noise, loss = noise_of(3, 4), 0.0
    for m in range(1, 6):
        chunk = conditions.chunk(m, m + 1)
        made = generate_chunk(model, chunk, cache, SIGMAS, 1.0, noise, grad_step=exit_step)
        loss = loss + (made.exit_clean * weights[:, :, m - 1 : m]).sum()
        write_cache(model, made.latents, chunk, cache)
    assert not made.latents.requires_grad
    loss.backward()
    for name, parameter in model.named_parameters():
        cached = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(
            replayed[name], cached, rtol=1e-3, atol=2e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_recomputed_activations_change_no_gradient(make_transformer, make_conditions):
    model = make_transformer()
    conditions, reference = make_conditions(6)
    rollout = self_rollout(model, conditions, SIGMAS, 1.0, noise_of(3, 4), reference, 1)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        replay(model, model, rollout, conditions).square().mean().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_nothing_in_a_rollout_has_a_gradient(make_transformer, make_conditions):
    model = make_transformer().requires_grad_(True)
    conditions, reference = make_conditions(3)
    rollout = self_rollout(model, conditions, SIGMAS, 1.0, noise_of(3, 4), reference, 1)
    assert not any(x.requires_grad for x in (rollout.latents, rollout.exit_noisy, rollout.exit_sigmas))


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch(make_transformer, make_conditions):
    model = make_transformer()
    conditions, reference = make_conditions(5)
    both = self_rollout(model, conditions, SIGMAS, 1.0, noise_of(3, 4), reference).latents
    for row, seed in enumerate((3, 4)):
        index = torch.tensor([row])
        alone = self_rollout(model, conditions.rows(index), SIGMAS, 1.0, noise_of(seed), reference[index]).latents
        torch.testing.assert_close(both[index], alone, rtol=0, atol=1e-5)


def test_chunks():
    assert chunk_edges(4, 1, True) == [(1, 2), (2, 3), (3, 4)]
    assert chunk_edges(6, 3, False) == [(0, 3), (3, 6)]
    for count, chunk, given in ((9, 3, True), (1, 1, True), (4, 3, False)):
        with pytest.raises(ValueError, match="num_latents: .* use"):
            chunk_edges(count, chunk, given)
