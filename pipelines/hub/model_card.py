"""Model cards: how to run a checkpoint, how it was made, what was measured, what it cannot do, and under which terms.

What is generated is generated from what is there: the checkpoint's own files, results files (``docs/results/*.json``),
and *facts*, which a person or a training run writes down (``card.yaml`` in the checkpoint's folder):

    title, summary, language, tags, data, base_model      strings, or lists of them
    made: text before the table of stages;  stages: list of {part, command, time}
    measured: {results: file, dataset: name, rows: see `card_tables.read_measured`, notes: text}
    samples: list of {file, text}, videos in the folder
    limits: text;  licence_notes: list of texts
    record: of the run that made it, where no results are there (`pipelines.record.run_record`)

    python -m pipelines.publish card checkpoints/ardrag-tiny
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from ardrag.controls.build import build_control
from pipelines.hub.card_tables import Measured, eval_results, parts_table, read_measured
from pipelines.hub.client import GENERATED
from pipelines.record import REPOSITORY


FACTS_FILE = "card.yaml"
TAGS = ["motion-control", "autoregressive", "drag"]
PACKAGE_SNIPPET = """from diffusers.utils import export_to_video
from PIL import Image

from ardrag import ARDragPipeline, Tracks

pipe = ARDragPipeline.from_pretrained("{base}")
{adapter}image = Image.open("picture.png")
tracks = Tracks.from_points([[(0, 0.3, 0.5), (32, 0.7, 0.5)]], num_frames=33)  # (frame, x, y), x and y in 0..1
export_to_video(pipe(image, tracks=tracks).frames[0], "drag.mp4", fps={fps:g})
"""
DIFFUSERS_SNIPPET = """from diffusers import DiffusionPipeline
from diffusers.utils import export_to_video
from PIL import Image

pipe = DiffusionPipeline.from_pretrained("{base}", custom_pipeline="pipeline", trust_remote_code=True)
image = Image.open("picture.png")
tracks = pipe.tracks_class.from_points([[(0, 0.3, 0.5), (32, 0.7, 0.5)]], num_frames=33)
export_to_video(pipe(image, tracks=tracks).frames[0], "drag.mp4", fps={fps:g})
"""
VAE_SNIPPET = """from diffusers import AutoencoderKLWan

vae = AutoencoderKLWan.from_pretrained("{base}")
"""
LICENCE = (
    "Apache-2.0, code and weights. The architecture is Wan 2.1's (Apache-2.0). Of the rewards that stage 3 of the "
    "recipe can be run with, CoTracker3 is CC-BY-NC 4.0."
)
LIMITS = "Physically implausible drags are followed without protest. What was not in its data it cannot draw."


def read_facts(folder: Path) -> dict[str, Any]:
    """Facts in the folder of a checkpoint; none where there is no such file."""
    path = folder / FACTS_FILE
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def model_card(folder: Path, name: str, facts: Mapping[str, Any]) -> str:
    """The card of the pipeline, LoRA adapter or VAE in ``folder``.

    Args:
        folder: what is published.
        name: what a user gives to ``from_pretrained``: Hub name, or a folder.
        facts: see above; everything may be left out.

    Raises:
        ValueError: if the results file that the facts name is missing or has no such number.
    """
    results, measured = measured_rows(facts)
    record = results.get("record") or facts.get("record")
    sections = [
        f"# {facts.get('title', name.rpartition('/')[2])}",
        str(facts.get("summary", default_summary(folder))).strip(),
        usage(folder, name, facts),
        *inside(folder),
        *made(facts),
        *measured_section(facts, measured, record),
        f"## Limits\n\n{str(facts.get('limits', LIMITS)).strip()}",
        "## Licence\n\n" + "\n\n".join([LICENCE, *facts.get("licence_notes", [])]),
        GENERATED,
    ]
    return (
        f"---\n{front_matter(folder, name, facts, measured, record).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"
    )


def front_matter(
    folder: Path, name: str, facts: Mapping[str, Any], measured: list[Measured], record: Mapping[str, Any] | None
) -> ModelCardData:
    """The metadata of the card."""
    dataset = facts.get("measured", {}).get("dataset", "")
    title = facts.get("title", name.rpartition("/")[2])
    results = eval_results(measured, dataset, record) if record and measured else []
    base = str(facts.get("base_model") or "")
    kind = kind_of(folder)
    widget = [{"text": sample["text"], "output": {"url": sample["file"]}} for sample in facts.get("samples", [])]
    return ModelCardData(
        license="apache-2.0",
        library_name="diffusers",
        pipeline_tag=None if kind == "vae" else "image-to-video",
        tags=[*TAGS, *(["lora"] if kind == "lora" else []), *facts.get("tags", [])],
        language=facts.get("language", ["en"]),
        base_model=base if is_hub_name(base) else None,
        datasets=[data for data in facts.get("data", []) if is_hub_name(data)] or None,
        widget=widget or None,
        model_name=title if results else None,
        eval_results=results or None,
    )


def kind_of(folder: Path) -> str:
    """``pipeline``, ``lora`` or ``vae``: what lies in a folder."""
    if (folder / "model_index.json").is_file():
        return "pipeline"
    return "lora" if (folder / "pytorch_lora_weights.safetensors").is_file() else "vae"


def is_hub_name(name: str) -> bool:
    """Whether ``name`` reads ``user/repository`` and is no folder here."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).exists()


def default_summary(folder: Path) -> str:
    """One sentence about what is published, where the facts say nothing."""
    return {
        "pipeline": "AR-Drag: a picture and drawn paths in, a video that follows them out, latent by latent.",
        "lora": "A LoRA adapter for an AR-Drag transformer, in diffusers' layout for Wan.",
        "vae": "A causal video VAE (`AutoencoderKLWan`) for AR-Drag.",
    }[kind_of(folder)]


def usage(folder: Path, name: str, facts: Mapping[str, Any]) -> str:
    """The snippets, as they run: with this package and, for a pipeline, without it."""
    kind = kind_of(folder)
    if kind == "vae":
        return f"```python\n{VAE_SNIPPET.format(base=name)}```"
    if kind == "lora":
        base = facts.get("base_model") or "user/ardrag-tiny"
        adapter = f'pipe.load_lora_weights("{name}")\n'
        return f"```python\n{PACKAGE_SNIPPET.format(base=base, adapter=adapter, fps=16)}```"
    fps = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["fps"]
    parts = [f"```python\n{PACKAGE_SNIPPET.format(base=name, adapter='', fps=fps)}```"]
    if is_hub_name(name):
        parts += [
            "Without the package (`pip install torch diffusers transformers accelerate 'imageio[ffmpeg]'`), with the "
            "code that is in this repository; add `revision` to stay with the version you have read:",
            f"```python\n{DIFFUSERS_SNIPPET.format(base=name, fps=fps)}```",
        ]
    if facts.get("samples"):
        parts.append("<Gallery />")
    return "\n\n".join(parts)


def inside(folder: Path) -> list[str]:
    """What the pipeline is made of and how it samples, read from its files."""
    if kind_of(folder) != "pipeline":
        return []
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    sizes = ", ".join(f"{width}x{height}" for height, width in index["buckets"])
    levels = ", ".join(f"{sigma:g}" for sigma in (scheduler["sigmas"] or [])[:-1])
    first = {"encode": "the encoded reference picture", "generate": "generated like all others"}
    table = ["| part | class | parameters |", "|---|---|---|", *parts_table(folder)]
    text = (
        f"Pictures of {sizes}, {index['fps']:g} frames per second, {scheduler['num_inference_steps']} steps per latent"
        f"{' at noise levels ' + levels if levels else ''}, sampler `eta: {scheduler['eta']:g}` (1 re-noises, 0 is "
        f"the ODE). The first latent is {first[scheduler['first_frame']]} (`first_frame: {scheduler['first_frame']}`)."
    )
    text += f" {build_control(index.get('control'), index.get('coloured_tracks', False)).about}"
    return ["## What is inside\n\n" + "\n".join(table), text]


def made(facts: Mapping[str, Any]) -> list[str]:
    """How it was made: stages with commands, and on what data."""
    if not facts.get("stages"):
        return []
    timed = any("time" in stage for stage in facts["stages"])
    table = ["| part | command |" + (" time |" if timed else ""), "|---|---|" + ("---|" if timed else "")]
    for stage in facts["stages"]:
        row = f"| {stage['part']} | {code(stage['command'])} |"
        table.append(row + (f" {stage.get('time', '')} |" if timed else ""))
    data = ", ".join(facts.get("data", []))
    parts = ["## How it was made", str(facts.get("made", "")).strip(), "\n".join(table), data and f"Data: {data}."]
    if facts.get("record"):
        parts.append(record_line(facts["record"]))
    return [part for part in parts if part]


def code(text: str) -> str:
    """``text`` as code, unless it is marked up already."""
    return text if "`" in text else f"`{text}`"


def measured_rows(facts: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Measured]]:
    """The results file that the facts name, and the rows they pick from it."""
    if not facts.get("measured"):
        return {}, []
    path = REPOSITORY / facts["measured"]["results"]
    if not path.is_file():
        raise ValueError(f"card: {path} is not there; make it with the command in the facts, or leave out `measured`")
    results = json.loads(path.read_text(encoding="utf-8"))
    return results, read_measured(facts["measured"]["rows"], results)


def measured_section(
    facts: Mapping[str, Any], measured: list[Measured], record: Mapping[str, Any] | None
) -> list[str]:
    """The table of measurements with the record of the run that made it."""
    if not measured or record is None:
        return []
    about = facts["measured"]
    table = ["| | measured | 95 % interval |", "|---|---|---|", *(row.line() for row in measured)]
    heading = f"## Measured\n\n{about['dataset']} (`{about['results']}`):"
    return [heading, "\n".join(table), record_line(record), str(about.get("notes", "")).strip()]


def record_line(record: Mapping[str, Any]) -> str:
    """Command, commit, hardware and date of a run."""
    machine = record["hardware"]
    accelerators = ", ".join(machine["accelerators"])
    hardware = accelerators or f"{machine['cores']} core(s) of {machine['processor']}"
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "diffusers"))
    commit = str(record["commit"] or "none")[:7]
    return f"Command: `{record['command']}`; commit {commit}, {record['date'][:10]}, {hardware}, {versions}."
