"""Causal consistency distillation by its own command: who learns, exact resume, what is exported."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines import ARDragPipeline
from training import consistency
from training.consistency import ConsistencyConfig, assemble, batch_loss, draw_step, main
from training.run.data import LatentPool, load_latents, shape_generator
from training.run.runtime import Learner, read_rows, step_generator


SIGMAS = [1.0, 0.6, 0.3, 0.0]
KINDS = ("default", "average")


@pytest.fixture
def configure(run_inputs, tmp_path):
    def configure(name="run", **changes):
        settings = {"init_from": str(run_inputs / "pipeline"), "data": [str(run_inputs / "latents")]}
        settings |= {"sigmas": SIGMAS, "num_latents": 4, "steps": 3, "batch_size": 2, "warmup": 1, "log_every": 1}
        settings |= {"save_every": 2, "validate": False, "learning_rate": 1e-3, "ema_start": 1, "solver_steps": 6}
        return ConsistencyConfig(output_dir=str(tmp_path / name), **{**settings, **changes})

    return configure


def weights_of(config):
    return load_file(Path(config.output_dir) / "pipeline" / "transformer" / "diffusion_pytorch_model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def scene_of(config):
    cast = assemble(config, torch.device("cpu"))
    generators = [step_generator(config.seed, 0, clip) for clip in range(config.batch_size)]
    batch = LatentPool(load_latents(config.data), config.num_latents).draw(generators, shape_generator(config.seed, 0))
    return cast, batch, draw_step(batch, config, generators)


def test_only_the_student_learns_and_begins_as_its_teacher(configure):
    config = configure(text_guidance=1.0, motion_guidance=0.5)
    cast, batch, draws = scene_of(config)
    names = cast.student.transformer.state_dict()
    average, teacher = cast.average.own, cast.teacher.own
    assert same(names, average.state_dict()) and same(names, teacher.state_dict())
    loss, metrics = batch_loss(Learner(cast.student.transformer), cast, batch, draws, config)
    loss.backward()
    assert sum(p.grad is not None and bool(p.grad.any()) for p in cast.student.transformer.parameters()) > 20
    still = [average, teacher, cast.student.vae, cast.student.text_encoder, cast.student.image_encoder]
    assert all(p.grad is None for part in still for p in part.parameters())
    assert loss > 0 and set(metrics) == {"consistency/distance", "consistency/step"}
    plain, _ = batch_loss(Learner(cast.student.transformer), cast, batch, draws, configure("plain"))
    assert plain != loss  # guidance moves the teacher's step


def test_the_first_latent_is_given_or_learnt(configure):
    for first_frame, given in (("encode", True), ("generate", False)):
        _, _, draws = scene_of(configure(first_frame=first_frame))
        assert (draws.upper[:, 0] == 0).all() == given and (draws.upper[:, 1:] > draws.lower[:, 1:]).all()


def test_with_an_adapter_one_model_is_all_three(configure, run_inputs):
    config = configure(lora_rank=2, gradient_checkpointing=True)
    cast, batch, draws = scene_of(config)
    transformer = cast.student.transformer
    plain = ARDragPipeline.from_pretrained(run_inputs / "pipeline").transformer
    own, average = ([p for n, p in transformer.named_parameters() if f"{kind}.weight" in n] for kind in KINDS)
    assert len(own) == len(average) > 20 and all(map(torch.equal, own, average))
    for value, parameters in ((0.3, own), (0.1, average)):
        for p in parameters:
            p.data.fill_(value)
    inputs = torch.randn(1, 12, 2, 8, 8), torch.tensor([500.0]), torch.randn(1, 5, 64), torch.randn(1, 65, 64)

    def answer(model):
        return model(*inputs, return_dict=False)[0].detach()

    learnt = answer(transformer)
    with cast.teacher.model() as teacher:
        assert torch.equal(answer(teacher), answer(plain))
    with cast.average.model() as model:
        averaged = answer(model)
    assert torch.equal(answer(transformer), learnt)
    for p, other in zip(own, average, strict=True):
        p.data.copy_(other)
    assert torch.equal(answer(transformer), averaged) and not torch.equal(averaged, learnt)
    loss, _ = batch_loss(Learner(transformer), cast, batch, draws, config)
    loss.backward()
    assert [p.requires_grad for p in transformer.parameters()].count(True) == len(own)
    assert all(p.grad is not None and p.grad.any() for p in own) and all(p.grad is None for p in average)


@pytest.mark.slow
def test_an_adapter_leaves_the_model_alone(configure, monkeypatch, state_of):
    casts, exports = [], consistency.export
    monkeypatch.setattr(consistency, "export", lambda cast, *rest: (casts.append(cast), exports(cast, *rest)))
    config = configure(lora_rank=2, steps=2)
    main(config)
    plain, now = (
        ARDragPipeline.from_pretrained(config.init_from).transformer.state_dict(),
        casts[-1].student.transformer.state_dict(),
    )
    base = {name.replace(".base_layer", ""): value for name, value in now.items() if "lora" not in name}
    assert same(plain, base)
    adapter = load_file(Path(config.output_dir) / "lora" / "pytorch_lora_weights.safetensors")
    tensors, _ = state_of(config)
    averages = {name.removeprefix("average/"): value for name, value in tensors.items() if name.startswith("average/")}
    assert len(adapter) == len(averages) and all("lora" in name for name in tensors)
    assert same(adapter, {name.replace(".default", ""): value for name, value in averages.items()})
    assert any(value.any() for name, value in adapter.items() if "lora_B" in name)


@pytest.mark.slow
def test_another_rank_is_refused(configure, refuses_another):
    refuses_another(main, configure(steps=1, lora_rank=2), configure(steps=1, lora_rank=3), "lora_rank was 2, is 3")
    whole = {"name": "whole", "steps": 1}
    refuses_another(main, configure(**whole), configure(**whole, lora_rank=3), "lora_rank was 0, is 3")


@pytest.mark.parametrize("rank", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_interrupted_and_resumed_is_the_same_run_and_the_average_is_exported(
    configure, monkeypatch, interrupt_at, state_of, rank
):
    whole, parts = configure("whole", lora_rank=rank), configure("parts", lora_rank=rank)
    main(whole)
    with monkeypatch.context() as patch:
        interrupt_at(patch, consistency, 2)
        with pytest.raises(KeyboardInterrupt):
            main(parts)
    main(parts)
    tensors, _ = state_of(whole)
    assert same(tensors, state_of(parts)[0])
    if rank:
        return
    assert same(weights_of(whole), weights_of(parts))
    for name, value in weights_of(whole).items():
        assert torch.equal(value, tensors[f"average/transformer.{name}"]), name
    own = {name.removeprefix("model/student/transformer."): value for name, value in tensors.items()}
    assert any(not torch.equal(value, own[name]) for name, value in weights_of(whole).items())
    rows = [read_rows(Path(config.output_dir) / "log.jsonl") for config in (whole, parts)]
    assert [row["consistency/distance"] for row in rows[0]] == [row["consistency/distance"] for row in rows[1]]
    kept = ARDragPipeline.from_pretrained(Path(whole.output_dir) / "pipeline").scheduler.config
    assert (kept.sigmas, kept.num_inference_steps, kept.eta) == (SIGMAS, 3, 1.0)


@pytest.mark.slow
def test_it_learns_to_be_consistent(configure):
    config = configure(steps=60, save_every=60, ema_decay=0.9, learning_rate=3e-3)
    main(config)
    found = [row["consistency/distance"] for row in read_rows(Path(config.output_dir) / "log.jsonl")]
    assert sum(found[-15:]) < 0.7 * sum(found[:15])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solver_steps": 1}, "solver_steps: 1 leaves nothing"),
        ({"num_latents": 1}, "num_latents: 1 is too short"),
        ({"first_frame": "guess"}, "first_frame: 'guess' is unknown"),
        ({"betas": [0.9]}, r"betas: \[0.9\] are not two rates"),
        ({"report_to": "paper"}, "report_to: 'paper' is unknown"),
        ({"shard": True, "lora_rank": 2}, "lora_rank: an adapter of this stage is for models that are whole"),
    ],
)
def test_settings_that_contradict_each_other(configure, changes, message):
    with pytest.raises(ValueError, match=message):
        configure(**changes)


@pytest.mark.slow
def test_an_export_that_was_cut_off_is_made_again(configure, mends_its_export):
    mends_its_export(main, configure("whole"), configure("killed"), "pipeline")


def test_longer_than_the_data_is_refused(configure):
    with pytest.raises(ValueError, match="num_latents: 5 is longer than the data, whose clips have at most 4; use 4"):
        main(configure(num_latents=5))
