"""Stage 3 on a tiny model: what a group shares, the first ratio, who learns, exact resume, two processes as one."""

import copy
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets
from safetensors.torch import load_file

from ardrag.judges.rewards import near_tracks
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.tracks import Tracks
from pipelines import ARDragPipeline
from pipelines.video import to_frames
from training import grpo
from training.grpo import judge, main, moments
from training.losses.policy import latent_log_prob
from training.rollouts.group_rollout import GroupNoise, collect, noise_script
from training.rollouts.prompts import Prompt
from training.run.config import config_lines
from training.run.runtime import Learner, Reference, RunLog
from training.settings.grpo import GrpoConfig


ROOT = Path(__file__).parents[2]
SIGMAS = [1.0, 0.6, 0.3, 0.0]


@pytest.fixture(scope="module")
def saved(make_pipeline, tmp_path_factory):
    """A pipeline with three steps for pictures that sprites fit into."""
    folder = tmp_path_factory.mktemp("grpo") / "pipeline"
    pipeline = make_pipeline(scheduler={"sigmas": SIGMAS, "num_inference_steps": 3, "eta": 1.0})
    pipeline.register_to_config(buckets=[[64, 64]])
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(saved):
    pipeline = ARDragPipeline.from_pretrained(saved)
    pipeline.transformer.requires_grad_(False)
    return pipeline


@pytest.fixture
def configure(saved, tmp_path):
    def configure(name="run", **changes):
        settings = {"init_from": str(saved), "num_latents": 3, "group_size": 3, "steps": 4, "save_every": 2}
        settings |= {"validate": False, "learning_rate": 1e-3}
        return GrpoConfig(output_dir=str(tmp_path / name), **{**settings, **changes})

    return configure


@pytest.fixture
def prompt():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return Prompt(image, "a red star moves right", Tracks.from_points([[(0, 0.3, 0.5), (8, 0.7, 0.5)]], num_frames=9))


class Brightness:
    """A reward with an opinion: how bright each latent frame is."""

    def __call__(self, videos, tracks):
        frames = videos.float().mean((2, 3, 4)).numpy().astype(np.float64)
        return np.stack([frames[:, :1].mean(1), frames[:, 1:5].mean(1), frames[:, 5:].mean(1)], axis=1)


@pytest.fixture
def bright(monkeypatch):
    monkeypatch.setattr(grpo, "build_rewards", lambda *_: ({"motion": Brightness()}, {"motion": 1.0}))


def test_script_of_the_noise(configure):
    assert noise_script(configure(), 3, [0, 1]) == [True, False, True, False]
    assert noise_script(configure(share_initial_noise=False), 3, [0]) == [False, False]
    assert noise_script(configure(mode="crn"), 3, [0, 1]) == [True, False, True, True, True, False]
    assert noise_script(configure(mode="sde"), 3, [0, 1]) == [True, False, False, True, False, False]


def test_what_a_group_shares():
    noise = GroupNoise(3, (1, 2, 3), [True, False, True], torch.device("cpu"))
    shared, own, again = (noise((3, 2, 4)) for _ in range(3))
    assert torch.equal(shared[0], shared[1]) and torch.equal(shared[0], shared[2])
    assert len({tuple(member.flatten().tolist()) for member in own}) == 3
    assert torch.equal(again[0], again[2]) and not torch.equal(again[0], shared[0])
    other = GroupNoise(3, (1, 2, 4), [True], torch.device("cpu"))((3, 2, 4))
    assert not torch.equal(other, shared)


def test_no_two_prompts_ranks_steps_or_members_share_their_own_noise():
    draws = set()
    for seed in [(0, step, rank) for step in range(12) for rank in range(4)]:
        own = GroupNoise(4, seed, [False, True], torch.device("cpu"))
        draws |= {tuple(member.flatten().tolist()) for member in own((4, 1, 2))}
        draws.add(tuple(own((4, 1, 2))[0].flatten().tolist()))  # and none is what a group shares
    assert len(draws) == 12 * 4 * 5


def timeless(row):
    return {name: value for name, value in row.items() if not name.startswith("time/")}


@pytest.mark.parametrize("mode", ["ode_sde", "crn"])
def test_members_part_at_the_stochastic_step_of_the_first_latent(loaded, configure, prompt, mode):
    config = configure(mode=mode, eta=1.0)
    group = collect(loaded, prompt, config, (0, 5, 0))
    steps, rollout = group.rollout.exit_steps, group.rollout
    assert steps[0] == -1 and all(step in (0, 1) for step in steps[1:])
    assert torch.equal(rollout.latents[0, :, 0], rollout.latents[1, :, 0])
    torch.testing.assert_close(rollout.exit_noisy[0, :, 1], rollout.exit_noisy[2, :, 1], rtol=0, atol=1e-5)
    assert (rollout.exit_next[0, :, 1] - rollout.exit_next[1, :, 1]).abs().mean() > 0.05
    assert (rollout.latents[0, :, 2] - rollout.latents[1, :, 2]).abs().mean() > 1e-3
    assert group.videos.shape == (3, 9, 3, 64, 64) and group.videos.dtype == torch.uint8
    again = collect(loaded, prompt, config, (0, 5, 0))
    assert torch.equal(group.videos, again.videos) and again.rollout.exit_steps == steps


def test_members_of_one_past_differ_by_the_present_latent_alone(loaded, configure, prompt):
    """Each member's finished latent is what a rollout from the shared history makes of its noise, and decodes so."""
    config = configure(mode="crn", eta=1.0, share_history=True, num_latents=4, group_size=4)
    group = collect(loaded, prompt, config, (0, 5, 0))
    rollout = group.rollout
    assert all(torch.equal(rollout.latents[0], row) for row in rollout.latents)
    assert torch.equal(rollout.finished[0], rollout.latents[0])
    apart = [(rollout.finished[1:, :, m] - rollout.latents[1:, :, m]).abs().mean() for m in range(4)]
    assert apart[0] == 0 and min(apart[1:]) > 1e-3
    stream = StreamingVAE(loaded.vae)
    for m in range(4):
        before = stream.state()
        for member in (2, 0):  # member 0 goes on
            stream.restore(before)
            frames = to_frames(stream.decode_next(rollout.finished[member : member + 1, :, m : m + 1]))[0]
            shown = group.videos[member, max(0, 4 * m - 3) : 4 * m + 1].permute(0, 2, 3, 1).numpy()
            assert np.abs(frames.astype(int) - shown).max() <= 1


def test_a_shared_past_leaves_member_0_as_it_was(loaded, configure, prompt):
    one, other = (
        collect(loaded, prompt, configure(mode="crn", eta=1.0, share_history=share), (0, 5, 0))
        for share in (False, True)
    )
    torch.testing.assert_close(one.rollout.latents[0], other.rollout.latents[0])
    assert (one.videos[0].int() - other.videos[0].int()).abs().max() <= 1


def test_places_near_the_tracks():
    tracks = Tracks.from_points([[(0, 0.25, 0.5), (8, 0.75, 0.5)]], num_frames=9)
    near = near_tracks(tracks, (3, 8, 8), 1.0, temporal_factor=4)
    assert near.shape == (3, 8, 8) and near.dtype == torch.bool
    rows, columns = near[0].nonzero().T
    assert set(rows.tolist()) == {3, 4} and set(columns.tolist()) == {1, 2}  # around (2, 4), on the corner of four
    assert near[2].nonzero()[:, 1].max() == 6 and near[1].sum() > near[0].sum()  # it moves while latent 1 lasts
    assert not near_tracks(Tracks.empty(9), (3, 8, 8), 2.0, 4).any()


@pytest.mark.parametrize("history_gradient", [False, True])
@pytest.mark.parametrize(
    ("mode", "kernel", "eta"), [("ode_sde", "cps", 0.7), ("ode_sde", "eq4", 0.3), ("crn", "cps", 1.0)]
)
def test_replay_finds_the_very_step_that_was_drawn(loaded, configure, prompt, mode, kernel, eta, history_gradient):
    """Mean and spread by replay are those of the rollout: what was drawn is standard normal noise around them."""
    config = configure(mode=mode, kernel=kernel, eta=eta, history_gradient=history_gradient, group_size=8)
    group = collect(loaded, prompt, config, (0, 1, 0))
    loaded.transformer.requires_grad_(True)
    mean, std = moments(Learner(loaded.transformer), loaded.transformer, loaded.scheduler.sigmas, group, config)
    mean = mean.detach()
    script = noise_script(config, 3, group.rollout.exit_steps[1:])
    noise = GroupNoise(8, (0, 1, 0), script, torch.device("cpu"))
    for m, step in enumerate(group.rollout.exit_steps[1:], start=1):
        draws = [noise((8, *mean.shape[1:2], 1, *mean.shape[3:])) for _ in range(2 if mode == "ode_sde" else 3)]
        drawn = draws[1] if mode == "ode_sde" else draws[1 + step]
        expected = mean[:, :, m : m + 1] + std[0, m] * drawn
        torch.testing.assert_close(group.rollout.exit_next[:, :, m : m + 1], expected, rtol=0, atol=1e-4)
    assert (std[:, 0] == 0).all() and (std[:, 1:] > 0).all()


def test_gradient_reaches_the_policy_through_stochastic_steps_only(loaded, configure, prompt):
    config = configure()
    group = collect(loaded, prompt, config, (0, 0, 0))
    loaded.transformer.requires_grad_(True)
    mean, std = moments(Learner(loaded.transformer), loaded.transformer, loaded.scheduler.sigmas, group, config)
    log_prob = latent_log_prob(group.rollout.exit_next, mean, std)
    assert (log_prob[:, 0] == 0).all()
    (log_prob * torch.tensor([1.0, 0.0, 0.0])).sum().backward(retain_graph=True)
    assert not any(p.grad is not None and p.grad.any() for p in loaded.transformer.parameters())
    log_prob[:, 1:].sum().backward()
    assert sum(p.grad is not None and bool(p.grad.any()) for p in loaded.transformer.parameters()) > 20
    assert all(p.grad is None for p in loaded.vae.parameters())


def test_advantages_and_shuffled_control(loaded, configure, prompt):
    group = collect(loaded, prompt, configure(group_size=6), (0, 0, 0))
    rewards, weights = {"motion": Brightness()}, {"motion": 1.0}
    values, mask, metrics = judge(rewards, weights, group, configure(), (0, 0, 0))
    assert mask[:, 0].logical_not().all() and mask[:, 1:].all() and metrics["reward/zero_spread"] == 0
    order = Brightness()(group.videos, None)[:, 2].argsort()
    assert (values[order, 2].diff() >= 0).all()
    shuffled, _, _ = judge(rewards, weights, group, configure(shuffle_advantages=True), (0, 0, 0))
    assert not torch.equal(shuffled, values) and torch.equal(shuffled.sort(0).values, values.sort(0).values)


@pytest.mark.parametrize("lora", [False, True])
def test_the_reference_stays(loaded, lora):
    transformer = loaded.transformer
    reference = Reference(transformer if lora else copy.deepcopy(transformer), frozen=not lora)
    before = transformer.proj_out.weight.clone()
    if lora:
        from peft import LoraConfig

        transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    else:
        torch.nn.init.zeros_(transformer.proj_out.weight)
    inputs = torch.randn(1, 12, 2, 8, 8), torch.tensor([500.0]), torch.randn(1, 5, 64), torch.randn(1, 65, 64)
    now = transformer(*inputs, return_dict=False)[0]
    with reference.model() as model:
        then = model(*inputs, return_dict=False)[0]
        assert torch.equal(model.proj_out.weight, before)
    assert not torch.allclose(now, then) and torch.equal(now, transformer(*inputs, return_dict=False)[0])


def weights_of(config, file):
    return load_file(Path(config.output_dir) / file)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"mode": "crn", "eta": 1.0, "share_history": True, "credit_radius": 2.0, "credit_smoothing": 1.0},
            id="crn, one past, near the tracks",
        ),
        pytest.param(
            {"updates": 2, "gradient_accumulation_steps": 2, "history_gradient": True},
            id="two updates, accumulated",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_interrupted_and_resumed_is_the_same_run(configure, monkeypatch, interrupt_at, bright, state_of, changes):
    whole, parts = configure("whole", **changes), configure("parts", **changes)
    main(whole)
    with monkeypatch.context() as patch:
        interrupt_at(patch, grpo, 3)
        with pytest.raises(KeyboardInterrupt):
            main(parts)
    main(parts)
    one, other = state_of(whole)[0], state_of(parts)[0]
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    rows = [RunLog(Path(config.output_dir), 99).rows() for config in (whole, parts)]
    for a, b in zip(*rows, strict=True):
        assert timeless(a) == timeless(b)
    assert [row["step"] for row in rows[0]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_another_rank_is_refused(configure, refuses_another, bright):
    refuses_another(main, configure(steps=2), configure(steps=2, lora_rank=2), "lora_rank was 0, is 2")


@pytest.mark.slow
def test_an_export_that_was_cut_off_is_made_again(configure, mends_its_export, bright):
    mends_its_export(main, configure("whole"), configure("killed"), "pipeline")


def test_the_first_ratio_is_1_and_the_divergence_grows(configure, bright):
    config = configure(beta=0.01)
    main(config)
    rows = RunLog(Path(config.output_dir), 99).rows()
    assert all(row["policy/ratio_mean"] == 1 and row["policy/clip_fraction"] == 0 for row in rows)
    assert rows[0]["policy/kl"] == 0 and rows[-1]["policy/kl"] > 0
    two = configure("two", updates=2, steps=1)
    main(two)
    (row,) = RunLog(Path(two.output_dir), 99).rows()
    assert row["policy/ratio_spread"] > 0


@pytest.mark.slow
def test_what_is_away_from_the_tracks_is_held(configure, bright):
    """With a heavy weight elsewhere the policy moves near the tracks, and less than half as far away from them."""
    moved = {}
    for weight in (1e-6, 1e3):
        config = configure(
            f"{weight}", credit_radius=1.5, beta_elsewhere=weight, beta=0.0, steps=3, eta=1.0, mode="crn"
        )
        main(config)
        last = RunLog(Path(config.output_dir), 99).rows()[-1]
        moved[weight] = last["policy/kl_elsewhere"]
        assert 0 < last["policy/kl_elsewhere"] < last["policy/kl"]
    assert moved[1e3] < 0.5 * moved[1e-6]


def test_it_learns_what_is_rewarded(configure, bright):
    """Twenty updates towards brighter videos make them brighter; that is all this model can be asked."""
    config = configure(steps=20, group_size=6, learning_rate=3e-3, beta=0.0, save_every=20, mode="crn", eta=1.0)
    main(config)
    rows = RunLog(Path(config.output_dir), 99).rows()
    assert np.isfinite([row["reward/motion"] for row in rows]).all()
    plain = Prompt(np.full((64, 64, 3), 90, np.uint8), "", Tracks.empty(9))
    before, after = (
        Brightness()(collect(ARDragPipeline.from_pretrained(folder), plain, config, (9, 0, 0)).videos, None)[
            :, 1:
        ].mean()
        for folder in (config.init_from, Path(config.output_dir) / "pipeline")
    )
    assert after > before


@pytest.mark.slow
def test_clips_of_mixed_shapes_train_and_the_pipeline_generates_at_each(
    configure, bright, make_clips, tmp_path, monkeypatch
):
    mixed = concatenate_datasets([make_clips(3, 3, 64, 64), make_clips(3, 3, 48, 64, seed=1)])
    mixed.save_to_disk(tmp_path / "mixed")
    sizes = []

    def collect(pipeline, prompt, *more):
        sizes.append(prompt.image.shape[:2])
        return grpo_collect(pipeline, prompt, *more)

    grpo_collect = grpo.collect
    monkeypatch.setattr(grpo, "collect", collect)
    config = configure(prompts=str(tmp_path / "mixed"), steps=6, save_every=6)
    main(config)
    assert len(sizes) == 6 and set(sizes) == {(64, 64), (48, 64)}
    pipeline = ARDragPipeline.from_pretrained(Path(config.output_dir) / "pipeline")
    for height, width in set(sizes):
        picture = np.zeros((height, width, 3), np.uint8)
        made = pipeline(picture, num_frames=5, height=height, width=width, output_type="np").frames[0]
        assert made.shape == (5, height, width, 3) and np.isfinite(made).all()


def test_lora_keeps_the_model_and_saves_the_adapter(configure, bright, saved):
    config = configure(lora_rank=2, steps=2, learning_rate=0.05)
    main(config)
    adapter = weights_of(config, "lora/pytorch_lora_weights.safetensors")
    assert adapter and all("lora" in name for name in adapter)
    assert any(value.abs().sum() > 0 for name, value in adapter.items() if "lora_B" in name)
    rows = RunLog(Path(config.output_dir), 99).rows()
    assert rows[0]["policy/kl"] == 0 and rows[1]["policy/kl"] > 0


def test_a_reward_that_fails_stops_the_run_with_the_rollout_kept(configure, monkeypatch, state_of):
    class Broken:
        calls = 0

        def __call__(self, videos, tracks):
            Broken.calls += 1
            if Broken.calls > 2:
                raise ConnectionError("the reward server is gone")
            return Brightness()(videos, tracks)

    monkeypatch.setattr(grpo, "build_rewards", lambda *_: ({"motion": Broken()}, {"motion": 1.0}))
    config = configure()
    with pytest.raises(RuntimeError, match="reward motion failed 3 times .the reward server is gone.*rollout is kept"):
        main(config)
    assert Broken.calls == 5
    kept = Path(config.output_dir) / "failed_rollout"
    assert load_file(kept / "videos.safetensors")["videos"].shape == (3, 9, 3, 64, 64)
    assert Tracks.load(kept / "tracks.json").num_frames == 9
    assert state_of(config)[1]["step"] == 2


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(configure, tmp_path, bright, state_of, python):
    """Two ranks with one prompt each are one rank that accumulates both."""
    one, two = configure("one", gradient_accumulation_steps=2, steps=2), configure("two", steps=2)
    main(one)
    (tmp_path / "two.yaml").write_text(config_lines(two))
    program = "\n".join(
        [
            "import sys",
            "from tests.training import test_grpo as t",
            "t.grpo.build_rewards = lambda *_: ({'motion': t.Brightness()}, {'motion': 1.0})",
            "t.main(t.grpo.parse_config(t.GrpoConfig, sys.argv[1:]))",
        ]
    )
    (tmp_path / "two.py").write_text(program)
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    arguments = [*command, str(tmp_path / "two.py"), str(tmp_path / "two.yaml")]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = ({n: v for n, v in state_of(run)[0].items() if n.startswith("model/")} for run in (one, two))
    moved = load_file(Path(one.init_from) / "transformer" / "diffusion_pytorch_model.safetensors")
    far = max((first[f"model/policy/{name}"] - value).abs().max().item() for name, value in moved.items())
    apart = max((first[name] - second[name]).abs().max().item() for name in first)
    assert far > 1e-4 and apart < 0.05 * far


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "ode"}, "mode: 'ode' is unknown; use ode_sde, crn or sde"),
        ({"kernel": "flow"}, "kernel: 'flow' is unknown; use cps or eq4"),
        ({"eta": 0.0}, "eta: 0.0 is outside"),
        ({"credit_radius": -1.0}, "credit_radius, credit_smoothing and spread_floor"),
        ({"beta_elsewhere": 1.0}, "beta_elsewhere: without credit_radius there is no elsewhere"),
        ({"share_history": True, "credit": 0.9}, "credit: with share_history nothing later"),
        ({"group_size": 1}, "group_size: 1 is no group"),
        ({"push_to_hub": True}, "hub_model_id: --push_to_hub needs"),
    ],
)
def test_settings_that_contradict_each_other(configure, changes, message):
    with pytest.raises(ValueError, match=message):
        configure(**changes)


@pytest.mark.slow
def test_every_save_is_pushed(configure, monkeypatch, bright):
    pushed = []
    monkeypatch.setattr(grpo, "start_on_hub", lambda *arguments: None)
    monkeypatch.setattr(grpo, "push_run", lambda accelerator, config, stage, step: pushed.append((stage, step)))
    main(configure(steps=4, save_every=2))
    assert pushed == [("training.grpo", 2), ("training.grpo", 4)]
