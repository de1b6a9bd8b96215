"""All stages on several processes that share their models: as alone, saved by some and resumed by others, killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipelines import ARDragPipeline
from tests.training.processes import stages_process
from training.run.config import config_lines
from training.run.runtime import read_rows
from training.settings.consistency import ConsistencyConfig
from training.settings.distill import DistillConfig
from training.settings.finetune import FinetuneConfig
from training.settings.grpo import GrpoConfig


ROOT = Path(__file__).parents[3]
SIGMAS = [1.0, 0.6, 0.3, 0.0]
ADAMW = {"shard": True, "optimizer": "adamw", "adamw_lr": 1e-3}
COMMON = {"steps": 2, "save_every": 2, "log_every": 1, "validate": False}


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}


def start(processes, runs, python=sys.executable):
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    arguments = [*command, stages_process.__file__, *(f"{stage}={file}" for stage, file in runs)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(arguments, cwd=ROOT, env=environment(), **pipes)


def write(config):
    file = Path(f"{config.output_dir}.yaml")
    file.write_text(config_lines(config))
    return file


@pytest.fixture
def configs(run_inputs, tmp_path):
    """The four stages on tiny models, four clips (two prompts) an update; ``alone`` accumulates what others share."""
    pipeline, data = str(run_inputs / "pipeline"), [str(run_inputs / "latents")]

    def configs(name, processes, shard=True, **changes):
        parts = {"gradient_accumulation_steps": 4 // (2 * processes), "batch_size": 2}
        if processes == 4:
            parts = {"gradient_accumulation_steps": 1, "batch_size": 1}
        options = {**COMMON, **parts, **changes}
        adamw = {**ADAMW, "shard": shard}
        trained = {"data": data, "num_latents": 4, "warmup": 1, **adamw}
        few = {"init_from": pipeline, "sigmas": SIGMAS}
        plain = {name: value for name, value in trained.items() if name not in ("optimizer", "adamw_lr")}
        prompts = {**options, "gradient_accumulation_steps": 4 // processes}
        del prompts["batch_size"]
        return {
            "finetune": FinetuneConfig(
                output_dir=str(tmp_path / f"finetune {name}"),
                init_from=pipeline,
                causal=True,
                own_history=0.5,
                train_encoders=False,
                sigmas=SIGMAS,
                **{**trained, **options},
            ),
            "consistency": ConsistencyConfig(
                output_dir=str(tmp_path / f"consistency {name}"),
                text_guidance=1.0,
                solver_steps=8,
                ema_start=0,
                **{**plain, **few, **options},
            ),
            "distill": DistillConfig(
                output_dir=str(tmp_path / f"distill {name}"),
                teacher=pipeline,
                critic_updates=2,
                critic_adamw_lr=1e-3,
                ode_steps=changes.get("ode_steps", 0),
                **{**trained, **few, **{key: value for key, value in options.items() if key != "ode_steps"}},
            ),
            "grpo": GrpoConfig(
                output_dir=str(tmp_path / f"grpo {name}"),
                init_from=str(run_inputs / "few"),
                num_latents=3,
                group_size=2,
                learning_rate=1e-3,
                beta=0.01,
                shard=shard,
                **prompts,
            ),
        }

    return configs


@pytest.fixture(autouse=True)
def few(run_inputs, make_pipeline):
    """A pipeline of few steps for pictures that sprites fit into."""
    if not (run_inputs / "few").exists():
        pipeline = make_pipeline(scheduler={"sigmas": SIGMAS, "num_inference_steps": 3, "eta": 1.0})
        pipeline.register_to_config(buckets=[[64, 64]])
        pipeline.save_pretrained(run_inputs / "few")


def norms(config):
    """Gradient norms of all updates: they depend on every weight and every clip, and on all processes."""
    rows = read_rows(Path(config.output_dir) / "log.jsonl")
    return [value for row in rows for name, value in row.items() if name.endswith(("grad/norm", "gradient_norm"))]


def weights(config):
    return load_file(Path(config.output_dir) / "pipeline" / "transformer" / "diffusion_pytorch_model.safetensors")


def together(python, processes, configs):
    job = start(processes, [(stage, write(config)) for stage, config in configs.items()], python)
    _, errors = job.communicate(timeout=1500)
    assert job.returncode == 0, errors[-4000:]


def require_same(stage, alone, other):
    near = 2e-3 if stage == "grpo" else 1e-4  # its AdamW has no eps to speak of
    assert norms(other) == pytest.approx(norms(alone), rel=near, abs=2e-6), stage
    one, two = weights(alone), weights(other)
    assert one.keys() == two.keys()
    apart = torch.cat([(one[name] - two[name]).abs().flatten() for name in one])
    assert apart.mean() < 2e-5, stage  # AdamW turns the noise of gradients that are 0 into steps, here and there


@pytest.mark.slow
def test_every_stage_is_the_same_alone_shared_and_resumed(python, configs):
    """Three steps of one process; two of four processes, and the third by two and by one that go on from there."""
    alone, two, one = (
        configs(name, processes, shard=processes > 1, steps=3) for name, processes in (("a", 1), ("p", 2), ("o", 1))
    )
    four = configs("f", 4, steps=2)
    together(python, 4, four)
    for stage in alone:
        for other in (two, one):
            shutil.copytree(four[stage].output_dir, other[stage].output_dir)
    together(python, 2, two)
    for stage in alone:
        for config in (alone[stage], one[stage]):
            stages_process.run(stage, str(write(config)))
        assert len(norms(alone[stage])) > len(norms(four[stage])) > 0
        for other in (two, one):
            require_same(stage, alone[stage], other[stage])


@pytest.mark.slow
def test_a_killed_process_ends_the_job_with_one_line_and_it_goes_on(configs, tmp_path):
    config = configs("killed", 2, steps=10**6, save_every=1)["consistency"]
    file, states = write(config), Path(config.output_dir) / "state" / "latest.json"
    job = start(2, [("consistency", file)])
    while not states.exists():
        assert job.poll() is None, job.communicate()[1][-3000:]
        time.sleep(0.2)
    found = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(found[-1]), signal.SIGKILL)
    began = time.monotonic()
    _, errors = job.communicate(timeout=60)
    assert job.returncode != 0 and time.monotonic() - began < 60
    lines = [
        line for line in errors.splitlines() if "its last whole state is intact, the same command goes on" in line
    ]
    assert len(lines) == 1, errors[-3000:]
    step = len(read_rows(Path(config.output_dir) / "log.jsonl"))
    alone = configs("killed", 1, shard=False, steps=step + 2, save_every=1)["consistency"]
    stages_process.run("consistency", str(write(alone)))
    rows = [row["step"] for row in read_rows(Path(config.output_dir) / "log.jsonl")]
    assert rows == list(range(step + 2))


@pytest.mark.slow
def test_the_recipe_of_the_large_model_runs_on_two_processes(python, tmp_path):
    """All stages from a random model of its layout to a published folder, with the presets of the large model."""
    variables = {
        **environment(),
        "RUNS": str(tmp_path / "runs"),
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", str(ROOT / "training" / "recipes" / "ardrag_1_3b.sh"), "mock"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, (done.stdout[-1000:], done.stderr[-4000:])
    pipeline = ARDragPipeline.from_pretrained(tmp_path / "runs" / "checkpoint")
    assert dict(pipeline.transformer.config.input_layout) == {"latents": 16, "motion": 16, "image": 16}
    assert len(list(pipeline.stream(Image.new("RGB", (128, 128)), num_frames=9))) == 3
