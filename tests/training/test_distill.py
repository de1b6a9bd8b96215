"""Stage 2 on a tiny model by its own command: who learns and who does not, exact resume, two processes as one."""

import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from datasets import load_from_disk
from PIL import Image
from safetensors.torch import load_file

from pipelines import ARDragPipeline
from training import distill
from training.distill import DistillConfig, assemble, draw_exit_step, draw_step, main, roll_out, solver_sigmas
from training.run import validation
from training.run.config import config_lines
from training.run.data import LatentPool, load_latents, shape_generator
from training.run.runtime import Learner, RunLog, step_generator


ROOT = Path(__file__).parents[2]
SIGMAS = [1.0, 0.6, 0.3, 0.0]


@pytest.fixture
def configure(run_inputs, tmp_path):
    def configure(name="run", **changes):
        settings = {
            "init_from": str(run_inputs / "pipeline"),
            "teacher": str(run_inputs / "pipeline"),
            "sigmas": SIGMAS,
        }
        settings |= {"data": [str(run_inputs / "latents")], "num_latents": 4, "steps": 4, "batch_size": 2, "warmup": 1}
        settings |= {"critic_updates": 2, "log_every": 1, "save_every": 2, "validate": False}
        settings |= {"text_guidance": 1.0, "motion_guidance": 0.5}
        return DistillConfig(output_dir=str(tmp_path / name), **{**settings, **changes})

    return configure


def weights_of(config, file="pipeline/transformer/diffusion_pytorch_model.safetensors"):
    return load_file(Path(config.output_dir) / file)


def timeless(row):
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def scene_of(config, step=0, ode=False):
    cast = assemble(config, torch.device("cpu"))
    generators = [step_generator(config.seed, step, clip) for clip in range(config.batch_size)]
    pool = LatentPool(load_latents(config.data), config.num_latents)
    batch = pool.draw(generators, shape_generator(config.seed, step))
    draws = draw_step(batch, config, generators)
    return cast, roll_out(cast, batch, draws, config, draw_exit_step(config, step), ode)


def test_only_the_student_learns_from_its_loss(configure):
    config = configure(gan_weight=1.0)
    cast, scene = scene_of(config)
    cast.critic.requires_grad_(False)
    loss, metrics = distill.student_loss(Learner(cast.student.transformer), cast, scene, config)
    loss.backward()
    moved = [name for name, p in cast.student.transformer.named_parameters() if p.grad is not None and p.grad.any()]
    assert len(moved) > 20
    still = [cast.teacher.transformer, cast.critic, cast.student.vae, cast.student.text_encoder]
    assert cast.start is None  # nothing is regressed to
    assert all(p.grad is None for part in still for p in part.parameters())
    assert set(metrics) == {"dmd/gradient", "gan/generator", "data/distance"}


def test_only_the_critic_learns_from_its_loss(configure):
    config = configure()
    cast, scene = scene_of(config)
    loss, metrics = distill.critic_loss(cast.critic, scene, config)
    loss.backward()
    assert all(p.grad is None for p in cast.student.transformer.parameters())
    assert all(p.grad is not None for p in cast.critic.heads.parameters())
    assert set(metrics) == {"critic/flow_matching", "gan/discriminator", "gan/accuracy"}


def test_no_distribution_gradient_while_the_critic_is_the_teacher(configure):
    """At the start the critic is a copy of the teacher: without guidance there is nothing to match."""
    config = configure(text_guidance=0.0, motion_guidance=0.0)
    cast, scene = scene_of(config)
    _, metrics = distill.student_loss(Learner(cast.student.transformer), cast, scene, config)
    assert metrics["dmd/gradient"] == 0
    _, metrics = distill.student_loss(Learner(cast.student.transformer), cast, scene, configure())
    assert metrics["dmd/gradient"] > 0


def test_with_adapters_the_critic_is_the_teacher_with_its_own(configure):
    config = configure(text_guidance=0.0, motion_guidance=0.0, lora_rank=2, gradient_checkpointing=True, ode_steps=1)
    cast, scene = scene_of(config, ode=True)
    student, critic = Learner(cast.student.transformer), cast.critic
    assert critic.transformer is cast.teacher.transformer
    learning = [p for p in critic.parameters() if p.requires_grad]
    heads = {id(p) for p in critic.heads.parameters()}
    assert any(id(p) in heads for p in learning) and len(learning) > 2 * len(heads)
    loss, _ = distill.critic_loss(critic, scene, config)
    loss.backward()
    assert all(p.grad is not None for p in learning)
    for p in learning:
        p.requires_grad_(False)
        p.grad = None
    loss, metrics = distill.student_loss(student, cast, scene, config)
    assert metrics["dmd/gradient"] == 0  # what it adds is nothing yet
    for name, p in critic.named_parameters():
        if "lora_B" in name:
            p.data.fill_(0.1)
    loss, metrics = distill.student_loss(student, cast, scene, config, measured=True)
    assert metrics["dmd/gradient"] > 0
    loss.backward()
    own = [p for p in student.parameters() if p.requires_grad]
    assert len(own) > 20 and all(p.grad is not None for p in own)
    assert all(p.grad is None for p in critic.parameters())
    start = cast.start.model
    with start() as model:
        assert model is cast.student.transformer


@pytest.fixture
def fresh_accelerate():
    """It refuses another precision than the first one of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.slow
def test_adapters_leave_both_models_alone_also_in_half_precision(
    configure, make_pipeline, monkeypatch, state_of, tmp_path, fresh_accelerate
):
    """Their matrices are held in bfloat16 then, which is no other number: what autocast makes of them."""
    casts, exports = [], distill.export
    monkeypatch.setattr(distill, "export", lambda cast, *rest: (casts.append(cast), exports(cast, *rest)))
    monkeypatch.setattr(validation, "NUM_CLIPS", 1)
    monkeypatch.setattr(validation, "TEACHER_STEPS", 1)
    wide = make_pipeline()
    wide.register_to_config(buckets=[[64, 64]])  # sprites fit in
    wide.save_pretrained(tmp_path / "wide")
    start = {"init_from": str(tmp_path / "wide"), "teacher": str(tmp_path / "wide")}
    config = configure(lora_rank=2, mixed_precision="bf16", validate=True, steps=2, **start)
    main(config)
    for pipeline, source in ((casts[-1].student, config.init_from), (casts[-1].teacher, config.teacher)):
        plain = ARDragPipeline.from_pretrained(source).transformer.state_dict()
        for name, value in pipeline.transformer.state_dict().items():
            if "lora" not in name:
                assert value.dtype == (torch.bfloat16 if ".base_layer" in name else torch.float32), name
                assert torch.equal(value, plain[name.replace(".base_layer", "")].to(value.dtype)), name
    tensors, _ = state_of(config)
    assert {name.split("/")[1] for name in tensors if "model/" in name} == {"student", "critic"}
    assert all("lora" in name or "heads" in name for name in tensors)
    assert (Path(config.output_dir) / "teacher" / "000002.png").exists()
    adapter = weights_of(config, "lora/pytorch_lora_weights.safetensors")
    assert any(value.any() for name, value in adapter.items() if "lora_B" in name)


@pytest.mark.slow
def test_another_rank_is_refused(configure, refuses_another):
    refuses_another(main, configure(steps=1, lora_rank=2), configure(steps=1, lora_rank=3), "lora_rank was 2, is 3")


def test_weights_scale_their_losses(configure):
    config = configure(dmd_weight=0.0, gan_weight=0.0, data_weight=2.0)
    cast, scene = scene_of(config)
    loss, metrics = distill.student_loss(Learner(cast.student.transformer), cast, scene, config)
    learned = scene.rollout.exit_clean[:, :, 1:] - scene.batch.latents[:, :, 1:]
    assert metrics["data/distance"] == pytest.approx(learned.square().mean().item(), rel=1e-4)
    assert loss.item() == pytest.approx(2 * metrics["data/distance"], rel=1e-6)


def test_every_exit_step_is_visited_alike(configure):
    steps = [draw_exit_step(configure(), step) for step in range(600)]
    for exit_step in range(3):
        assert steps.count(exit_step) == pytest.approx(200, abs=45)
    assert steps == [draw_exit_step(configure("elsewhere"), step) for step in range(600)]


def test_ode_regression_aims_at_the_end_of_the_trajectory(configure):
    config = configure(ode_steps=2, ode_solver_steps=6)
    sigmas = solver_sigmas(config)
    assert set(SIGMAS) < set(sigmas) and len(sigmas) > 7 and sigmas == sorted(sigmas, reverse=True)
    cast, scene = scene_of(config, ode=True)
    assert float(scene.rollout.exit_sigmas[0, 1]) == pytest.approx(SIGMAS[draw_exit_step(config, 0)])
    loss, _ = distill.regression_loss(Learner(cast.student.transformer), cast, scene)
    clean = scene.rollout.exit_clean - scene.rollout.latents
    assert loss.item() == pytest.approx(clean[:, :, 1:].square().mean().item(), rel=1e-3)


@pytest.mark.parametrize("first_frame", ["encode", "generate"])
def test_with_truth_the_filmed_clip_is_the_history_and_the_prediction_learns(configure, first_frame):
    config = configure(cache_update="truth", first_frame=first_frame)
    cast, scene = scene_of(config)
    assert torch.equal(scene.rollout.latents, scene.batch.latents)
    assert not torch.allclose(scene.rollout.exit_clean[:, :, 1:], scene.batch.latents[:, :, 1:], atol=0.1)
    clean = replay_of(cast, scene)
    torch.testing.assert_close(clean, scene.rollout.exit_clean, rtol=0, atol=1e-4)
    distill.student_loss(Learner(cast.student.transformer), cast, scene, config)[0].backward()
    assert any(p.grad is not None and p.grad.any() for p in cast.student.transformer.parameters())


def replay_of(cast, scene):
    model = cast.student.transformer
    with torch.no_grad():
        return distill.replay(model, model, scene.rollout, scene.conditions)


@pytest.mark.slow
def test_the_ode_that_is_regressed_to_has_its_own_history(configure):
    """Whatever the history of the updates after it: a trajectory ends where it ends."""
    _, scene = scene_of(configure(ode_steps=1, ode_solver_steps=4, cache_update="truth"), ode=True)
    assert not torch.allclose(scene.rollout.latents[:, :, 1:], scene.batch.latents[:, :, 1:], atol=0.1)
    assert torch.equal(scene.rollout.latents, scene.rollout.finished)


VARIANTS = {
    "ardrag": {},
    "ode start, accumulated": {"ode_steps": 1, "ode_solver_steps": 4, "gradient_accumulation_steps": 2},
    "self forcing": {"cache_update": "collapse", "chunk_frames": 3},
    "true history": {"cache_update": "truth"},
    "generated first frame": {"first_frame": "generate", "eta": 0.5, "gradient_checkpointing": True},
    "mixed shapes": {"gradient_accumulation_steps": 2},
    "adapters": {"lora_rank": 2, "ode_steps": 1, "ode_solver_steps": 4, "gradient_checkpointing": True},
}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=[] if name == "ardrag" else pytest.mark.slow)
        for name, changes in VARIANTS.items()
    ],
)
def test_interrupted_and_resumed_is_the_same_run(configure, run_inputs, monkeypatch, interrupt_at, state_of, changes):
    if changes == VARIANTS["mixed shapes"]:
        changes = {**changes, "data": [str(run_inputs / name) for name in ("latents", "wide")]}
    whole, parts = configure("whole", **changes), configure("parts", **changes)
    main(whole)
    with monkeypatch.context() as patch:
        interrupt_at(patch, distill, 3)
        with pytest.raises(KeyboardInterrupt):
            main(parts)
    main(parts)
    assert same(state_of(whole)[0], state_of(parts)[0])
    if not whole.lora_rank:
        assert same(weights_of(whole), weights_of(parts))
    rows = [RunLog(Path(config.output_dir), 99).rows() for config in (whole, parts)]
    assert [row["step"] for row in rows[1]] == [0, 2]
    for one, other in zip(*rows, strict=True):
        assert timeless(one) == timeless(other)
    if "data" in changes:
        generates_at_each_size(Path(whole.output_dir), changes["data"])


def generates_at_each_size(folder, data):
    """The pipeline that a run of mixed shapes leaves makes videos of all of them."""
    loaded = ARDragPipeline.from_pretrained(folder / "pipeline")
    sizes = {(row["height"], row["width"]) for name in data for row in load_from_disk(name)}
    assert len(sizes) == 2
    for height, width in sizes:
        (frames,) = loaded(Image.new("RGB", (width, height)), num_frames=5, height=height, width=width).frames
        assert [frame.size for frame in frames] == [(width, height)] * 5


@pytest.mark.slow
def test_a_state_of_other_models_is_refused(configure, refuses_another, make_pipeline, tmp_path):
    make_pipeline(transformer={"num_layers": 1}).save_pretrained(tmp_path / "small")
    other = configure(steps=2, teacher=str(tmp_path / "small"))
    refuses_another(main, configure(steps=2), other, "teacher was .*, is .*small")


@pytest.mark.slow
def test_an_export_that_was_cut_off_is_made_again(configure, mends_its_export):
    mends_its_export(main, configure("whole"), configure("killed"), "pipeline")


def test_what_is_exported_runs_as_it_was_trained(configure, picture):
    config = configure(steps=2, chunk_frames=3, cache_update="collapse", eta=0.5)
    main(config)
    loaded = ARDragPipeline.from_pretrained(Path(config.output_dir) / "pipeline")
    kept = loaded.scheduler.config
    assert (kept.sigmas, kept.num_inference_steps, kept.eta, kept.first_frame) == (SIGMAS, 3, 0.5, "encode")
    assert loaded.transformer.config.chunk_frames == 3
    assert [len(frames) for frames in loaded.stream(picture, num_frames=13)] == [1, 12]
    assert set(RunLog(Path(config.output_dir), 99).rows()[0]) >= {"student/gradient_norm", "critic/gradient_norm"}


def test_a_loss_that_is_no_number_stops_the_run(configure, monkeypatch, state_of):
    spoiled, calls = distill.critic_loss, []

    def spoil(*arguments):
        calls.append(1)
        loss, metrics = spoiled(*arguments)
        return (loss * float("nan") if len(calls) == 4 else loss), metrics

    monkeypatch.setattr(distill, "critic_loss", spoil)
    config = configure()
    with pytest.raises(FloatingPointError, match="at step 3; the last saved state is intact"):
        main(config)
    assert state_of(config)[1]["step"] == 2


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(configure, tmp_path, state_of, python):
    """Two ranks with one batch each are one rank that accumulates both (gloo; the sums are taken in another order)."""
    one, two = configure("one", gradient_accumulation_steps=2), configure("two")
    main(one)
    (tmp_path / "two.yaml").write_text(config_lines(two))
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, "training.distill", str(tmp_path / "two.yaml")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made = state_of(two)[0]
    for name, value in state_of(one)[0].items():
        if not name.startswith("optimizer/"):
            torch.testing.assert_close(made[name], value, rtol=1e-3, atol=2e-5)


def test_every_length_is_whole_chunks(configure, run_inputs):
    config = configure(chunk_frames=3, data=[str(run_inputs / name) for name in ("latents", "wide")])
    with pytest.raises(ValueError, match="num_latents: 3 is not 1 given and whole chunks of 3"):
        main(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache_update": "none"}, "cache_update: 'none' is unknown; use rollout, collapse, truth"),
        ({"chunk_frames": 2}, "num_latents: 4 is not 1 given and whole chunks of 2; use 3 or 5"),
        ({"critic_updates": 0}, "critic_updates: 0 is not positive"),
        ({"eta": 2.0}, "eta: 2.0 is outside"),
        ({"first_frame": "guess"}, "first_frame: 'guess' is unknown"),
        ({"sigmas": [1.0, 0.5]}, "sigmas: .* must fall strictly from 1 to 0"),
        ({"push_to_hub": True}, "hub_model_id: --push_to_hub needs the repository"),
    ],
)
def test_settings_that_contradict_each_other(configure, changes, message):
    with pytest.raises(ValueError, match=message):
        configure(**changes)


def test_kept_configuration_is_the_configuration(configure):
    config = configure(steps=1)
    main(config)
    assert yaml.safe_load((Path(config.output_dir) / "config.yaml").read_text()) == asdict(config)


@pytest.mark.slow
def test_every_save_is_pushed(configure, monkeypatch):
    pushed = []
    monkeypatch.setattr(distill, "start_on_hub", lambda *arguments: None)
    monkeypatch.setattr(distill, "push_run", lambda accelerator, config, stage, step: pushed.append((stage, step)))
    main(configure(steps=4, save_every=2))
    assert pushed == [("training.distill", 2), ("training.distill", 4)]
