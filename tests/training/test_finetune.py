"""Stage 1 on a tiny model by its own command: interrupted and resumed to the same bits; LoRA; what it exports."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ardrag.conditioning import Conditions
from pipelines import ARDragPipeline
from training import finetune
from training.finetune import FinetuneConfig, draw_step, main, prepare_model
from training.rollouts.conditions import blank_motion
from training.run import tiny
from training.run.runtime import RunLog


@pytest.fixture
def configure(run_inputs, tmp_path):
    def configure(name="run", **changes):
        settings = {
            "vae": str(run_inputs / "vae"),
            "data": [str(run_inputs / "latents")],
            "num_layers": 1,
            "num_heads": 2,
        }
        settings |= {"head_dim": 12, "ffn_dim": 16, "num_latents": 3, "steps": 4, "batch_size": 2, "warmup": 1}
        settings |= {"log_every": 1, "save_every": 2, "validate": False, "num_inference_steps": 2}
        return FinetuneConfig(output_dir=str(tmp_path / name), **{**settings, **changes})

    return configure


def weights_of(config, folder="pipeline/transformer"):
    (path,) = (Path(config.output_dir) / folder).glob("*.safetensors")
    return load_file(path)


def timeless(row):
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


OWN = {"causal": True, "own_history": 0.7, "sigmas": [1.0, 0.5, 0.0], "first_latent_given": 1.0}
CHANGED = {"control": "carried", "touch_force": 0.2, "dropped_tracks": 0.2, "late_tracks": 0.5, "track_noise": 6.0}
MIXED = {"num_latents": 4, "gradient_accumulation_steps": 2, "motion_dropout": 0.5}


@pytest.fixture
def mixed(run_inputs):
    """Two folders: square clips of four latents, wide ones of three."""
    return {"data": [str(run_inputs / "latents"), str(run_inputs / "wide")]}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(CHANGED, id="changed tracks", marks=pytest.mark.slow),
        pytest.param({"causal": True, "gradient_accumulation_steps": 2}, id="causal", marks=pytest.mark.slow),
        pytest.param(OWN, id="own history"),
        pytest.param({**OWN, **MIXED}, id="mixed shapes", marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_resumed_is_the_same_run(configure, mixed, monkeypatch, interrupt_at, state_of, changes):
    changes = changes | (mixed if "gradient_accumulation_steps" in changes and "own_history" in changes else {})
    whole, parts = configure("whole", **changes), configure("parts", **changes)
    main(whole)
    with monkeypatch.context() as patch:
        interrupt_at(patch, finetune, 3)
        with pytest.raises(KeyboardInterrupt):
            main(parts)
    main(parts)
    for folder in ("pipeline/transformer", "pipeline/text_encoder", "pipeline/image_encoder"):
        assert same(weights_of(whole, folder), weights_of(parts, folder)), folder
    assert same(state_of(whole)[0], state_of(parts)[0])
    rows = [RunLog(Path(config.output_dir), 99).rows() for config in (whole, parts)]
    assert [row["step"] for row in rows[1]] == [0, 1, 2, 3]
    for one, other in zip(*rows, strict=True):
        assert timeless(one) == timeless(other)


def test_another_rank_or_mode_is_refused(configure, run_inputs, refuses_another):
    start = {"init_from": str(run_inputs / "pipeline"), "steps": 1}
    refuses_another(main, configure(**start, lora_rank=2), configure(**start, lora_rank=3), "lora_rank was 2, is 3")
    refuses_another(
        main, configure("whole", **start), configure("whole", **start, lora_rank=3), "lora_rank was 0, is 3"
    )


def test_an_export_that_was_cut_off_is_made_again(configure, mends_its_export):
    mends_its_export(main, configure("whole"), configure("killed"), "pipeline")


def test_what_is_exported(configure, state_of):
    config = configure(steps=2)
    main(config)
    folder = Path(config.output_dir)
    names = {"config.yaml", "log.jsonl", "curves.png", "state", "pipeline", "exported.json"}
    assert {path.name for path in folder.iterdir()} == names
    loaded = ARDragPipeline.from_pretrained(folder / "pipeline")
    assert (loaded.scheduler.config.eta, loaded.scheduler.config.num_inference_steps) == (0.0, 2)
    assert loaded.config.buckets == [[32, 32]]
    tensors, _ = state_of(config)
    for name, value in weights_of(config).items():
        assert torch.equal(value, tensors[f"average/transformer.{name}"])
    assert not torch.equal(tensors["model/model/transformer.proj_out.weight"], weights_of(config)["proj_out.weight"])
    row = json.loads((folder / "log.jsonl").read_text().splitlines()[0])
    assert {"loss/weighted", "loss/flow_matching", "grad/norm", "time/hours"} < set(row)


def test_a_finished_run_is_left_as_it_is(configure):
    config = configure(steps=2)
    main(config)
    before = weights_of(config)
    main(config)
    assert same(before, weights_of(config))


def test_starts_from_a_pipeline(configure, run_inputs, pipeline):
    config = configure(init_from=str(run_inputs / "pipeline"), steps=1, muon_lr=0.0, adamw_lr=0.0)
    main(config)
    assert same(weights_of(config), pipeline.transformer.state_dict())


def test_lora_leaves_the_model_alone(configure, run_inputs, state_of):
    config = configure(init_from=str(run_inputs / "pipeline"), steps=2, lora_rank=2)
    main(config)
    adapter = weights_of(config, "lora")
    assert adapter and all("lora" in name for name in adapter)
    assert any(value.abs().sum() > 0 for name, value in adapter.items() if "lora_B" in name)
    assert not (Path(config.output_dir) / "pipeline").exists()
    tensors, _ = state_of(config)
    assert {name.split("/")[0] for name in tensors} == {"model", "average", "optimizer"}
    assert all("lora" in name for name in tensors)


def test_validation_sees_the_averaged_weights_and_is_logged(configure, monkeypatch):
    seen = []

    def sheet(pipeline, path, num_latents):
        weights = {name: value.clone() for name, value in pipeline.transformer.state_dict().items()}
        seen.append((path.name, num_latents, pipeline.transformer.training, weights))
        return 1.25

    monkeypatch.setattr(finetune, "validation_sheet", sheet)
    config = configure(steps=2, validate=True)
    main(config)
    ((name, num_latents, training, weights),) = seen
    assert (name, num_latents, training) == ("000002.png", 3, False)
    assert same(weights, weights_of(config))
    rows = RunLog(Path(config.output_dir), 99).rows()
    assert rows[-1] == {"step": 1, "validation/path_error_px": 1.25}


def test_a_loss_that_is_no_number_stops_the_run(configure, monkeypatch, state_of):
    config = configure()
    loss = finetune.flow_matching_loss
    calls = []

    def spoil(*arguments):
        calls.append(1)
        value, metrics = loss(*arguments)
        return (value * float("nan") if len(calls) == 4 else value), metrics

    monkeypatch.setattr(finetune, "flow_matching_loss", spoil)
    with pytest.raises(FloatingPointError, match="at step 3; the last saved state is intact"):
        main(config)
    assert state_of(config)[1]["step"] == 2


def generators(count):
    return [torch.Generator().manual_seed(clip) for clip in range(count)]


def test_what_a_clip_draws_does_not_depend_on_its_batch(configure):
    batch = finetune.LatentBatch(*torch.randn(2, 4, 4, 3, 4, 4), torch.zeros(4, 32, 32, 3), [""] * 4)
    blank, config = torch.zeros(1, 4, 3, 4, 4), configure(**OWN)
    whole = draw_step(batch, blank, config, generators(4))
    part = draw_step(batch, blank, config, generators(4)[2:])
    for name, value in vars(part).items():
        assert torch.equal(value[-1], vars(whole)[name][-1]), name
    assert not torch.equal(whole.noise[0], whole.noise[1])


def test_dropouts(configure, pipeline):
    batch = finetune.LatentBatch(*torch.randn(2, 2000, 4, 3, 1, 1), torch.zeros(2000, 8, 8, 3), [""] * 2000)
    config = configure(text_dropout=0.3, motion_dropout=0.1, first_latent_given=0.5)
    draws = draw_step(batch, torch.zeros(1, 4, 3, 1, 1), config, generators(2000))
    assert draws.drop_text.float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert draws.drop_motion.float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert (draws.sigmas[:, 0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert draws.no_motion.shape == (2000, 4, 3, 1, 1) and not torch.equal(draws.noise, draws.image_noise)
    assert draws.to(torch.device("meta")).sigmas.device.type == "meta"


def test_own_history(configure, pipeline):
    """Chosen clips whose first latent is given look back at a rollout of the model's own; the others at the truth."""
    config = configure(**OWN)
    batch = finetune.LatentBatch(*torch.randn(2, 8, 4, 3, 4, 4), torch.zeros(8, 32, 32, 3), [""] * 8)
    draws = draw_step(batch, torch.zeros(1, 4, 3, 4, 4), config, generators(8))
    draws.sigmas[:4, 0] = 0.5
    draws.own_history[:] = torch.tensor([True, False] * 4)
    conditions = Conditions(batch.motion, draws.image_noise, torch.randn(8, 5, 64), torch.randn(8, 65, 64))
    history = finetune.own_history(pipeline.transformer, pipeline.scheduler, batch.latents, conditions, draws)
    changed = (history != batch.latents).flatten(1).any(1)
    assert changed.tolist() == [False, False, False, False, True, False, True, False]
    assert torch.equal(history[:, :, 0], batch.latents[:, :, 0])
    again = finetune.own_history(pipeline.transformer, pipeline.scheduler, batch.latents, conditions, draws)
    assert torch.equal(history, again)


def test_a_few_step_schedule_is_trained_on_and_saved(configure):
    config = configure(**OWN, steps=1)
    main(config)
    scheduler = ARDragPipeline.from_pretrained(Path(config.output_dir) / "pipeline").scheduler
    assert scheduler.config.sigmas == [1.0, 0.5, 0.0] and scheduler.config.num_inference_steps == 2


def test_sink_control_image_and_gates_are_of_the_run_or_of_the_model_it_starts_from(configure, run_inputs):
    def trained(name, **changes):
        config = configure(name, steps=1, **changes)
        main(config)
        pipeline = ARDragPipeline.from_pretrained(Path(config.output_dir) / "pipeline")
        transformer = pipeline.transformer.config
        return transformer.sink_frames, pipeline.control.name, transformer.image_fill, transformer.gated_slots

    given = {"sink_frames": 2, "control": "coloured", "image_fill": "picture", "gated_slots": True}
    all_given = tuple(given.values())
    assert trained("new") == (0, "heat", "noise", False) and trained("new with all", **given) == all_given
    start = str(Path(configure("new with all").output_dir) / "pipeline")
    assert trained("kept", init_from=start) == all_given
    changed = trained("changed", init_from=start, sink_frames=0, control="carried", image_fill="noise")
    assert changed == (0, "carried", "noise", True)
    assert trained("old model", init_from=str(run_inputs / "pipeline"), **given) == all_given
    with pytest.raises(ValueError, match="sink_frames: -1 is negative"):
        configure(sink_frames=-1)
    with pytest.raises(ValueError, match="image_fill: 'black' is unknown; use noise, zeros, grey or picture"):
        configure(image_fill="black")
    assert trained("grey", image_fill="grey")[2] == "grey"


def test_sizes_that_a_model_did_not_know_join_its_buckets(configure, mixed, run_inputs):
    config = configure("on", **{**mixed, **MIXED, "steps": 1, "init_from": str(run_inputs / "pipeline")})
    main(config)
    before = ARDragPipeline.from_pretrained(run_inputs / "pipeline").config.buckets
    after = ARDragPipeline.from_pretrained(Path(config.output_dir) / "pipeline").config.buckets
    assert [32, 48] not in before and after == [*before, *(size for size in after if size not in before)]
    assert [32, 48] in after


def test_mixed_shapes_train_and_the_pipeline_generates_at_each(configure, mixed, monkeypatch):
    seen, step = [], finetune.draw_step
    monkeypatch.setattr(finetune, "draw_step", lambda batch, *rest: seen.append(batch) or step(batch, *rest))
    config = configure(**mixed, **MIXED)
    main(config)
    shapes = {(*batch.latents.shape[2:], *batch.reference.shape[1:3]) for batch in seen}
    assert shapes == {(4, 4, 4, 32, 32), (3, 4, 6, 32, 48)}
    loaded = ARDragPipeline.from_pretrained(Path(config.output_dir) / "pipeline")
    assert loaded.config.buckets == [[32, 32], [32, 48]]
    for size, made in (((32, 32), (32, 32)), ((90, 50), (32, 48))):
        frames = loaded(Image.new("RGB", size), num_frames=5, output_type="np").frames[0]
        assert frames.shape == (5, *made, 3)


def test_longer_than_the_data_is_refused(configure):
    with pytest.raises(ValueError, match="num_latents: 5 is longer than the data, whose clips have at most 4; use 4"):
        main(configure(num_latents=5))


def test_another_vae_s_latents_are_refused(configure, make_clips, tmp_path):
    make_clips(2, channels=6).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match="data: its latents have 6 channels, those of the model's VAE 4"):
        main(configure(data=[str(tmp_path / "other")]))


def test_encoders_are_trained_where_they_began_here_or_by_the_flag(configure, run_inputs, pipeline, monkeypatch):
    def trained(**changes):
        config = configure(init_from=str(run_inputs / "pipeline"), steps=1, **changes)
        model = prepare_model(ARDragPipeline.from_pretrained(config.init_from), config)
        model.eval()
        parts = model.train().text_encoder, model.image_encoder
        assert all(part.training == part.get_input_embeddings().weight.requires_grad for part in parts[:1])
        return [any(p.requires_grad for p in part.parameters()) for part in parts]

    assert trained() == [True, True] and trained(train_encoders=False) == [False, False]
    monkeypatch.setattr(tiny, "TEXT_WIDTH", 4096)
    assert trained() == [False, False] and trained(train_encoders=True) == [True, True]


def test_frozen_encoders_stay_as_they_were(configure, run_inputs, pipeline):
    config = configure(init_from=str(run_inputs / "pipeline"), steps=2, train_encoders=False)
    main(config)
    kept = ARDragPipeline.from_pretrained(Path(config.output_dir) / "pipeline")
    for name in ("text_encoder", "image_encoder"):
        assert same(getattr(kept, name).state_dict(), getattr(pipeline, name).state_dict())
    assert not same(kept.transformer.state_dict(), pipeline.transformer.state_dict())


def test_only_a_causal_model_has_a_history(configure):
    with pytest.raises(ValueError, match="own_history: only a causal model"):
        configure(own_history=0.5)


def test_blank_motion_is_what_a_session_sees_without_tracks(pipeline, picture):
    """Untracked clips in training and at inference are the same to the transformer."""
    blank = blank_motion(pipeline, 32, 32, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(blank_motion(pipeline, 32, 32, 3), blank)
    session, seen = pipeline.start_session(picture), []
    conditions = session._maker.conditions
    session._maker.conditions = lambda *arguments: seen.append(conditions(*arguments)) or seen[-1]
    for _ in range(3):
        session.step()
    torch.testing.assert_close(torch.cat([c.motion for c in seen], dim=2), blank, rtol=0, atol=1e-5)
