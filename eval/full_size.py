"""Once from end to end at the true size of Wan2.1-Fun-1.3B-Control, on random weights: time and memory of each stage.

    python -m eval.full_size --folder /tmp/full                    # 16 GiB of memory, 20 GB of disk, half an hour
    python -m eval.full_size --folder /tmp/small --size small      # the same way in small

A checkpoint in original keys is written, converted, loaded; its pipeline makes the first frame and one more latent of
480x368 through a VAE of the true size; a LoRA adapter learns for one step over three latents with recomputation, is
saved and read again. Each stage is a process of its own, so that its memory is its own; beside it stands what
`python -m training.memory` plans, or what the weights alone take. Numbers are float32, which is what a CPU is fast at.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ardrag.convert.keys import to_original
from ardrag.flow import FewStepScheduler, add_noise, velocity_target
from ardrag.home import bundled
from ardrag.transformer import CausalWanTransformer
from eval.record import REPOSITORY, record_lines, run_record, write_text
from eval.speed.peak import measured
from pipelines import ARDragPipeline
from pipelines.convert import main as convert


GIB = 2**30
LATENTS = 3
RANK = 16
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""For the C library's allocator: what is freed goes back at once. By default it keeps as much again in holes, and what
would be measured is its habit, not the need."""
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
SHARED = {"in_channels": 48, "out_channels": 16, "input_layout": {"latents": 16, "motion": 16, "image": 16}}


@dataclass(frozen=True)
class Size:
    """Settings of the models, and height and width of the picture."""

    transformer: dict[str, Any]
    height: int
    width: int
    vae: dict[str, Any] = field(default_factory=dict)


SIZES = {
    "full": Size(
        {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30, "image_dim": 1280, "added_kv_proj_dim": 1536},
        480,
        368,
    ),
    "small": Size(
        {
            **{"num_attention_heads": 2, "ffn_dim": 96, "num_layers": 2, "image_dim": 80, "added_kv_proj_dim": 256},
            **{"text_dim": 24, "freq_dim": 32},
        },
        32,
        48,
        {"base_dim": 8},
    ),
}


@dataclass(frozen=True)
class Place:
    """Where the stages put what the next ones read."""

    folder: Path
    size: Size

    @property
    def source(self) -> Path:
        """The checkpoint in original keys."""
        return self.folder / "source.safetensors"

    @property
    def components(self) -> Path:
        """Encoders and VAE as a Diffusers repository has them."""
        return self.folder / "components"

    @property
    def pipeline(self) -> Path:
        """What conversion makes."""
        return self.folder / "pipeline"

    @property
    def adapter(self) -> Path:
        """What training makes."""
        return self.folder / "adapter"


def random_state(size: Size) -> dict[str, Tensor]:
    """A checkpoint in original keys, bfloat16: norms about 1, the rest small enough to stay finite."""
    with torch.device("meta"):
        model = CausalWanTransformer(**SHARED, **size.transformer)
    generator, state = torch.Generator().manual_seed(0), {}
    for key, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator).mul_(0.02)
        original = to_original(key)
        assert original is not None
        state[original] = (values + 1 if "norm" in key and key.endswith("weight") else values).to(torch.bfloat16)
    return state


def write(place: Place) -> str:
    """The checkpoint, and components: a VAE of the size's own, encoders of the right widths and a layer each."""
    state = random_state(place.size)
    save_file(state, place.source)
    write_components(place)
    return f"{sum(tensor.numel() for tensor in state.values()):,} parameters in original keys, bfloat16"


def write_components(place: Place) -> None:
    """What conversion takes besides: only the VAE has its true size."""
    from diffusers import AutoencoderKLWan
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessor,
        CLIPVisionConfig,
        CLIPVisionModel,
        UMT5Config,
        UMT5EncoderModel,
    )

    config = CausalWanTransformer(**SHARED, **{**place.size.transformer, "num_layers": 1}).config
    tokenizer = AutoTokenizer.from_pretrained(bundled("checkpoints/ardrag-tiny") / "tokenizer")
    text = {"d_model": config.text_dim, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    image = {"hidden_size": config.image_dim, "intermediate_size": 32, "num_attention_heads": 2}
    parts = {
        "vae": AutoencoderKLWan(**place.size.vae),
        "text_encoder": UMT5EncoderModel(UMT5Config(vocab_size=len(tokenizer), **text)),
        "tokenizer": tokenizer,
        "image_encoder": CLIPVisionModel(CLIPVisionConfig(num_hidden_layers=2, image_size=28, patch_size=14, **image)),
        "image_processor": CLIPImageProcessor(size={"height": 28, "width": 28}, do_center_crop=False),
    }
    for name, part in parts.items():
        part.save_pretrained(place.components / name)
    index = {name: [type(part).__module__.split(".")[0], type(part).__name__] for name, part in parts.items()}
    (place.components / "model_index.json").write_text(json.dumps({"_class_name": "WanImageToVideoPipeline", **index}))


def converted(place: Place) -> str:
    """The command's own work."""
    names = [str(place.source), "--output_dir", str(place.pipeline), "--components", str(place.components)]
    if convert(names):
        raise SystemExit("the conversion failed")
    return "to a pipeline folder, bfloat16"


def load(place: Place) -> ARDragPipeline:
    """The pipeline in float32, with the paper's causal schedule in the place of the source's."""
    pipe: ARDragPipeline = ARDragPipeline.from_pretrained(place.pipeline, dtype=torch.float32)
    pipe.scheduler = FewStepScheduler()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def loaded(place: Place) -> str:
    """Loading alone."""
    count = sum(parameter.numel() for parameter in load(place).transformer.parameters())
    return f"{count:,} parameters of the transformer, float32"


def generated(place: Place) -> str:
    """The first frame, and the four of one generated latent."""
    from PIL import Image

    size = place.size
    picture = Image.effect_noise((size.width, size.height), 60).convert("RGB")
    options: dict[str, Any] = {"height": size.height, "width": size.width, "guidance_scale": 1.0}
    session = load(place).start_session(picture, history_latents=0, **options)
    frames = session.step([(0.5, 0.5)]) + session.step([(0.6, 0.5)])
    assert [frame.shape for frame in frames] == [(size.height, size.width, 3)] * 5
    assert torch.isfinite(session.latents).all() and session.latents.std() > 0
    return f"first frame and one latent of {size.height}x{size.width}, 3 steps"


def clip(size: Size, config: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """A made-up clip ``[1, 16, F, h, w]`` and what the transformer is told besides."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    grid = (1, 16, LATENTS, size.height // 8, size.width // 8)
    told = {"motion": draw(*grid), "image": draw(*grid), "text": draw(1, 512, config.text_dim)}
    return draw(*grid), {**told, "image_tokens": draw(1, 257, config.image_dim)}


def velocity(model: CausalWanTransformer, latents: Tensor, told: dict[str, Tensor], sigma: float) -> Tensor:
    """The model's answer to noisy latents."""
    inputs, time = torch.cat([latents, told["motion"], told["image"]], dim=1), torch.tensor([1000 * sigma])
    answer: Tensor = model(inputs, time, told["text"], told["image_tokens"], return_dict=False)[0]
    return answer


def trained(place: Place) -> str:
    """One step of an adapter: flow matching over three latents, blocks computed again; then it is saved."""
    from peft import LoraConfig, get_peft_model_state_dict

    model = CausalWanTransformer.from_pretrained(place.pipeline / "transformer", dtype=torch.float32)
    torch.manual_seed(2)
    model.requires_grad_(False).add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
    model.enable_gradient_checkpointing()
    clean, told = clip(place.size, model.config)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=1e-2)
    answer = velocity(model.train(), add_noise(clean, noise, 0.5), told, 0.5)
    loss = (answer - velocity_target(clean, noise)).square().mean()
    loss.backward()
    optimizer.step()
    metadata = model.peft_config["default"].to_dict()
    ARDragPipeline.save_lora_weights(
        place.adapter,
        transformer_lora_layers=get_peft_model_state_dict(model),
        transformer_lora_adapter_metadata=metadata,
    )
    with torch.no_grad():
        save_file(
            {"answer": velocity(model.eval(), clean, told, 0.5).contiguous()}, place.folder / "answer.safetensors"
        )
    return f"LoRA step of rank {RANK} over {LATENTS} latents, recomputed; loss {loss.item():.3f}"


def reloaded(place: Place) -> str:
    """Model and adapter read again answer as the trained model did."""
    pipe = load(place)
    model = pipe.transformer
    before = load_file(place.folder / "answer.safetensors")["answer"]
    latents, told = clip(place.size, model.config)
    with torch.no_grad():
        plain = velocity(model, latents, told, 0.5)
        pipe.load_lora_weights(place.adapter)
        again = velocity(model, latents, told, 0.5)
    if not torch.equal(again, before) or torch.equal(again, plain):
        raise SystemExit(f"the adapter read again is off by {(again - before).abs().max():.1e}")
    return "model and adapter read again, the same answer bit for bit"


STAGES: dict[str, Callable[[Place], str]] = {
    "write": write,
    "convert": converted,
    "load": loaded,
    "generate": generated,
    "train": trained,
    "reload": reloaded,
}


def weight_bytes(place: Place, itemsize: int) -> int:
    """Bytes of the transformer's weights."""
    with torch.device("meta"):
        model = CausalWanTransformer(**SHARED, **place.size.transformer)
    return itemsize * sum(parameter.numel() for parameter in model.parameters())


def planned(place: Place) -> dict[str, float]:
    """GiB of each stage that has a plan: the weights, or the figures of `training.memory`."""
    size, inference = place.size, ["--stage", "inference", "--pipeline", str(place.pipeline), "--dtype", "float32"]
    sides = ["--height", str(size.height), "--width", str(size.width), "--num_latents"]
    rows = plan(*inference, *sides, "2")
    adapter = ["--stage", "finetune", "--lora_rank", str(RANK), "--transformer", str(place.pipeline / "transformer")]
    parts = plan(*adapter, *sides, str(LATENTS), "--gpus", "1")
    return {
        "convert": weight_bytes(place, 2) / GIB,
        "load": weight_bytes(place, 4) / GIB,
        "generate": max(gib for phase, gib in rows.items() if "whole clip" not in phase),
        "train": parts["sum"] + parts["activations of the pass"],  # planned in half precision, run in float32
    }


def plan(*arguments: str) -> dict[str, float]:
    """First figure of each row that ``python -m training.memory`` prints."""
    command = [sys.executable, "-m", "training.memory", *arguments]
    said = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return {row[1]: float(row[2]) for row in re.finditer(r"^\| ([^|]+) \| ([\d.]+) \|", said, re.MULTILINE)}


def run_stage(name: str, folder: Path, size: str) -> dict[str, Any]:
    """One stage in this process: what it did, its seconds and its GiB."""
    folder.mkdir(parents=True, exist_ok=True)
    said, cost = measured(lambda: STAGES[name](Place(folder, SIZES[size])))
    return {"stage": name, "said": said, "seconds": cost.seconds, "gib": cost.peak / GIB}


def run(folder: Path, size: str) -> list[dict[str, Any]]:
    """All stages, each in a process of its own."""
    found = []
    for name in STAGES:
        command = [sys.executable, "-m", "eval.full_size", "--folder", str(folder), "--size", size, "--stage", name]
        own = {**os.environ, **GIVE_BACK}
        said = subprocess.run(command, cwd=REPOSITORY, env=own, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(said.splitlines()[-1]))
        print(json.dumps(found[-1]), file=sys.stderr)
    return found


def markdown(found: Sequence[dict[str, Any]], plans: dict[str, float], record: dict[str, Any]) -> str:
    """The page that `docs/results/full_size.md` holds."""
    lines = [
        "# From a public checkpoint's layout to a trained adapter, at the true size",
        "",
        "Random weights in the layout of Wan2.1-Fun-1.3B-Control, each stage a process of its own. Memory is what the "
        "process had of its own (no mapped files) beyond what it began with; freed memory is given back at once. The "
        "plan of the conversion is a limit, the weights once: it streams them from file to file.",
        "",
        "| stage | what | seconds | GiB at most | planned GiB |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        aim = f"{plans[row['stage']]:.3f}" if row["stage"] in plans else ""
        lines.append(f"| {row['stage']} | {row['said']} | {row['seconds']:.0f} | {row['gib']:.3f} | {aim} |")
    return "\n".join([*lines, "", *record_lines(record), ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one stage and print a line of JSON, or all of them and write the page."""
    parser = argparse.ArgumentParser(prog="python -m eval.full_size", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, required=True, help="where the stages write; must not exist, or be empty"
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="full", help="of the models and the picture")
    parser.add_argument("--stage", choices=list(STAGES), help="this one alone")
    parser.add_argument("--report", type=Path, help="page to write (default: full_size.md in the folder)")
    options = parser.parse_args(arguments)
    if options.stage:
        print(json.dumps(run_stage(options.stage, options.folder, options.size)))
        return
    if options.folder.exists() and any(options.folder.iterdir()):
        parser.error(f"--folder: {options.folder} is not empty; give the name of a new one")
    record = run_record("eval.full_size", arguments)
    found = run(options.folder, options.size)
    page = markdown(found, planned(Place(options.folder, SIZES[options.size])), record)
    write_text(options.report or options.folder / "full_size.md", page)
    print(page)


if __name__ == "__main__":
    main()
