"""Configuration: preset, then command line; what nobody knows is named; every preset that comes along is good."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from training.distill import DistillConfig
from training.finetune import FinetuneConfig
from training.precompute import PrecomputeConfig
from training.run.config import config_lines, parse_config
from training.settings.consistency import ConsistencyConfig
from training.settings.grpo import GrpoConfig
from training.train_vae import VAEConfig


PRESETS = sorted((Path(__file__).resolve().parents[3] / "training" / "configs").glob("*.yaml"))
STAGES = {
    "vae": VAEConfig,
    "finetune": FinetuneConfig,
    "causal": FinetuneConfig,
    "consistency": ConsistencyConfig,
    "distill": DistillConfig,
    "grpo": GrpoConfig,
}
REQUIRED = {
    FinetuneConfig: ["--vae", "v", "--data", "d"],
    DistillConfig: ["--init_from", "s", "--teacher", "t"],
    ConsistencyConfig: ["--init_from", "s"],
    GrpoConfig: ["--init_from", "s"],
}


@dataclass
class Small:
    output_dir: str = field(metadata={"help": "Where."})
    steps: int = field(default=3, metadata={"help": "How many."})
    rate: float = field(default=0.5, metadata={"help": "How fast."})
    causal: bool = field(default=False, metadata={"help": "How."})
    data: list[str] = field(default_factory=list, metadata={"help": "What."})


@pytest.fixture
def preset(tmp_path):
    def write(text):
        (tmp_path / "preset.yaml").write_text(text)
        return str(tmp_path / "preset.yaml")

    return write


def test_defaults():
    assert parse_config(Small, ["--output_dir", "runs/a"]) == Small("runs/a")


def test_command_line_wins_over_preset_over_default(preset):
    path = preset("output_dir: runs/p\nsteps: 7\nrate: 1e-3\ncausal: true\ndata: [a, b]\n")
    assert parse_config(Small, [path]) == Small("runs/p", 7, 1e-3, True, ["a", "b"])
    options = ["--steps", "9", "--causal", "false", "--data", "c", "--output_dir", "runs/a"]
    assert parse_config(Small, [path, *options]) == Small("runs/a", 9, 1e-3, False, ["c"])


def test_empty_preset(preset):
    assert parse_config(Small, [preset("# nothing\n"), "--output_dir", "a"]) == Small("a")


def test_unknown_names_are_refused(preset):
    with pytest.raises(ValueError, match=r"preset: .* unknown field\(s\) setps; known are causal, data, output_dir"):
        parse_config(Small, [preset("setps: 7\n"), "--output_dir", "a"])
    with pytest.raises(ValueError, match="--setps"):
        parse_config(Small, ["--output_dir", "a", "--setps", "7"])
    with pytest.raises(ValueError, match="preset: no.yaml does not exist; see training/configs"):
        parse_config(Small, ["no.yaml"])


@pytest.mark.parametrize("arguments", [[], ["--output_dir", "a", "--steps", "many"]])
def test_missing_or_wrong_values_end_the_command(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_config(Small, arguments)
    assert stopped.value.code == 2 and "--" in capsys.readouterr().err


def test_kept_configuration_can_be_run_again(tmp_path):
    config = Small("runs/a", 9, 1e-3, True, ["c"])
    (tmp_path / "config.yaml").write_text(config_lines(config))
    assert parse_config(Small, [str(tmp_path / "config.yaml")]) == config


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_parses(path):
    stage = STAGES[path.stem.split("_")[0]]
    options = ["--output_dir", "runs/a", *REQUIRED.get(stage, [])]
    config = parse_config(stage, [str(path), *options])
    values = yaml.safe_load(path.read_text())
    assert all(type(values[name])(getattr(config, name)) == values[name] for name in values)


@pytest.mark.parametrize(("name", "machines", "processes"), [("fsdp2_8gpu", 1, 8), ("fsdp2_2x8gpu", 2, 16)])
def test_accelerate_launches_one_process_for_each_gpu_and_splits_nothing_itself(name, machines, processes):
    config = load_config_from_file(str(PRESETS[0].parent / "accelerate" / f"{name}.yaml"))
    assert (config.num_machines, config.num_processes, config.mixed_precision) == (machines, processes, "bf16")
    assert config.distributed_type == DistributedType.MULTI_GPU and not config.fsdp_config


def test_there_are_presets():
    assert {path.stem.split("_")[0] for path in PRESETS} >= set(STAGES)


@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        (FinetuneConfig, {}, "vae or init_from: give the VAE of a new model"),
        (FinetuneConfig, {"vae": "v", "push_to_hub": True}, "hub_model_id: --push_to_hub needs the repository"),
        (FinetuneConfig, {"vae": "v", "shard": True}, "optimizer: muon needs whole matrices"),
        (FinetuneConfig, {"vae": "v", "optimizer": "sgd"}, "optimizer: 'sgd' is unknown; use muon or adamw"),
        (FinetuneConfig, {"vae": "v", "num_latents": 1}, "num_latents: 1 is too short to move"),
        (VAEConfig, {"clip_frames": 6}, "clip_frames and pool_frames: both must be 4k"),
        (VAEConfig, {"clip_frames": 21}, "clip_frames the smaller of the two"),
        (VAEConfig, {"heatmap_share": 1.0}, "heatmap_share: 1.0 is outside"),
    ],
)
def test_settings_that_contradict_each_other(stage, settings, message):
    with pytest.raises(ValueError, match=message):
        stage(output_dir="runs/a", **settings)


@pytest.mark.parametrize("stage", [FinetuneConfig, VAEConfig, PrecomputeConfig, DistillConfig, GrpoConfig])
def test_every_field_is_explained(stage):
    assert all(f.metadata.get("help") for f in stage.__dataclass_fields__.values())
