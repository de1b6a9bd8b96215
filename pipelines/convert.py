"""A public Wan 1.3B checkpoint made into a pipeline folder: transformer, encoders, VAE, schedule.

    python -m ardrag.convert alibaba-pai/Wan2.1-Fun-1.3B-Control --output_dir fun-control
    python -m ardrag.convert alibaba-pai/Wan2.1-Fun-1.3B-InP --motion_from alibaba-pai/Wan2.1-Fun-1.3B-Control ...
    python -m ardrag.convert gdhe17/Self-Forcing/checkpoints/self_forcing_dmd.pt --student self-forcing ...

The source is a file, a folder or a Hub name (with a file's path behind it where the repository holds several).
Encoders and VAE are taken from the source, or from another Diffusers repository or folder of original files.
Everything is checked before anything is written, and the folder appears whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import SafetensorError
from tqdm import tqdm

from ardrag.convert.build import control_of, convert
from ardrag.convert.encoders import convert_image_encoder, convert_text_encoder, convert_vae
from ardrag.convert.reading import Weights, open_weights
from ardrag.convert.recipes import STUDENTS, WAN_NEGATIVE, Recipe, recognise
from ardrag.flow import FewStepScheduler
from ardrag.home import __version__
from ardrag.transformer import CausalWanTransformer
from pipelines.hub.client import MODEL_INDEX, clear_errors, link_or_copy, require_safetensors


COMPONENTS = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
"""Where encoders and VAE come from unless the source has its own: all of Wan2.1 shares them."""
PARTS = ("vae", "text_encoder", "tokenizer", "image_encoder", "image_processor")
ORIGINALS: dict[str, tuple[str, Callable[[Weights], Any]]] = {
    "vae": ("Wan2.1_VAE.pth", convert_vae),
    "text_encoder": ("models_t5_umt5-xxl-enc-bf16.pth", convert_text_encoder),
    "image_encoder": ("models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", convert_image_encoder),
}
"""Original files by the component that each becomes."""
TOKENIZER = "google/umt5-xxl"
FETCHED = ["*.json", "*.safetensors", "*.pth", f"{TOKENIZER}/*", "transformer/*", *(f"{part}/*" for part in PARTS)]
"""What is downloaded of a repository."""
BUCKETS = [[480, 832], [832, 480], [624, 624]]
"""Sizes that the public checkpoints know best: Wan's 480p."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m ardrag.convert", description=__doc__.splitlines()[0])
    parser.add_argument("source", help="checkpoint: file, folder, Hub name, or Hub name/path of a file in it")
    parser.add_argument("--output_dir", required=True, help="folder to write; must not exist, or be empty")
    parser.add_argument(
        "--components", help=f"encoders and VAE: folder or Hub name (default: source, or {COMPONENTS})"
    )
    parser.add_argument(
        "--motion_from", help="InP, T2V, students: Fun-Control checkpoint whose motion columns to take"
    )
    parser.add_argument("--student", choices=sorted(STUDENTS), help="16 channels: which causal student this is")
    parser.add_argument("--weights", help="which model of a .pt file (default: generator_ema, then generator)")
    parser.add_argument("--dtype", choices=sorted(DTYPES), help="number format to write (default: the source's)")
    parser.add_argument("--max_shard_size", default="5GB", help="size above which weights are split")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 2 after one line about what the user can put right."""
    options = build_parser().parse_args(arguments)
    try:
        print(run(options))
    except ValueError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> str:
    """Convert and write; returns a sentence about the result.

    Raises:
        ValueError: naming what is wrong with the source and the remedy. Nothing is left behind.
    """
    output = Path(options.output_dir)
    check_output(output)
    place = fetch(options.source, "source")
    weights = open_weights(transformer_of(place), options.weights)
    recipe = recognise(weights, options.student, is_causal(transformer_of(place)))
    motion = None
    if options.motion_from:
        motion = open_weights(transformer_of(fetch(options.motion_from, "motion_from")))
    named = options.components
    parts = place if named is None and has_components(place) else fetch(named or COMPONENTS, "components")
    check_components(parts)
    with written_whole(output) as folder:
        dtype = DTYPES[options.dtype] if options.dtype else None
        model = convert(weights, recipe, motion, dtype, lambda keys: tqdm(list(keys), desc="tensors"))
        model.save_pretrained(folder / "transformer", max_shard_size=options.max_shard_size)
        index = copy_components(parts, folder, options.max_shard_size)
        write_index(folder, recipe, {**index, "control": control_of(weights, recipe).config()})
    return f"{recipe.title}: {count(model) / 1e6:.1f} M parameters, {summary(recipe)}, written to {output}"


def check_output(output: Path) -> None:
    """Raise ValueError unless ``output`` can be made, or is an empty folder."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output_dir: {output} is there already; give the name of a new folder")
    if not output.absolute().parent.is_dir():
        raise ValueError(f"output_dir: folder {output.absolute().parent} does not exist; create it first")


def fetch(name: str, field: str) -> Path:
    """The file or folder ``name``, from disk or from the Hub.

    Raises:
        ValueError: if it is in neither place, or cannot be had; naming ``field``.
    """
    local = Path(name)
    if local.exists():
        return local
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if name.startswith((".", "/", "~")) or not repository:
        raise ValueError(f"{field}: {name} does not exist; give a file, a folder or a Hub name such as user/name")
    with clear_errors(f"{field}: {name}"):
        if file:
            return Path(hf_hub_download(f"{owner}/{repository}", file))
        return Path(snapshot_download(name, allow_patterns=FETCHED))


def transformer_of(place: Path) -> Path:
    """Where the transformer's weights lie in ``place``: a subfolder of a Diffusers repository, or itself."""
    return place / "transformer" if (place / MODEL_INDEX).is_file() else place


def is_causal(place: Path) -> bool:
    """Whether the checkpoint's own configuration names a causal class (Track-v0).

    Raises:
        ValueError: if it is one of ours already.
    """
    config = (place if place.is_dir() else place.parent) / "config.json"
    name = str(json.loads(config.read_text(encoding="utf-8")).get("_class_name", "")) if config.is_file() else ""
    if name == CausalWanTransformer.__name__:
        raise ValueError(f"source: {place} is this project's already; load it with ARDragPipeline.from_pretrained")
    return name.startswith("Causal")


def has_components(place: Path) -> bool:
    """Whether encoders and VAE lie beside the transformer, image encoder included."""
    if (place / MODEL_INDEX).is_file():
        return all((place / part).is_dir() for part in PARTS)
    return place.is_dir() and all((place / file).is_file() for file, _ in ORIGINALS.values())


def check_components(place: Path) -> None:
    """Raise ValueError if a component is missing in ``place``, or would have to be unpickled to be read."""
    if (place / MODEL_INDEX).is_file():
        missing = [part for part in PARTS if not (place / part).is_dir()]
        require_safetensors(str(place), place)
    else:
        missing = [file for file, _ in ORIGINALS.values() if not (place / file).is_file()]
        missing += [TOKENIZER] if not (place / TOKENIZER).is_dir() else []
    if missing:
        raise ValueError(
            f"components: {place} has no {missing[0]}; give a Diffusers repository with an image encoder such as "
            f"{COMPONENTS}, or a folder of Wan2.1's original files"
        )


def copy_components(place: Path, folder: Path, max_shard_size: str) -> dict[str, list[str]]:
    """Put encoders and VAE into ``folder``; returns what the pipeline's index says of each."""
    if (place / MODEL_INDEX).is_file():
        index = json.loads((place / MODEL_INDEX).read_text(encoding="utf-8"))
        for part in PARTS:
            take_over(place / part, folder / part)
        return {part: index[part] for part in PARTS}
    from transformers import AutoTokenizer, CLIPImageProcessor

    models = {part: make(open_weights(place / file)) for part, (file, make) in ORIGINALS.items()}
    for part, model in models.items():
        model.save_pretrained(folder / part, max_shard_size=max_shard_size)
    side = models["image_encoder"].config.image_size
    others = {
        "tokenizer": AutoTokenizer.from_pretrained(place / TOKENIZER),
        # The original scales to a square and cuts nothing off.
        "image_processor": CLIPImageProcessor(size={"height": side, "width": side}, do_center_crop=False),
    }
    for part, thing in others.items():
        thing.save_pretrained(folder / part)
    made = {**models, **others}
    return {part: [type(thing).__module__.split(".")[0], type(thing).__name__] for part, thing in made.items()}


def take_over(source: Path, target: Path) -> None:
    """Copy a component's files; weights without a second copy on the disk where that can be done."""
    target.mkdir()
    for file in sorted(path for path in source.iterdir() if path.is_file()):
        copy = link_or_copy if file.suffix == ".safetensors" else shutil.copy2
        copy(str(file.resolve()), str(target / file.name))


def write_index(folder: Path, recipe: Recipe, parts: dict[str, Any]) -> None:
    """Schedule, and the file that says what the pipeline is made of; ``parts`` are components and control."""
    FewStepScheduler(**recipe.scheduler).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "ARDragPipeline",
        "_ardrag_version": __version__,
        **parts,
        "transformer": [CausalWanTransformer.__module__, CausalWanTransformer.__name__],
        "scheduler": [FewStepScheduler.__module__, FewStepScheduler.__name__],
        "buckets": BUCKETS,
        "negative_prompt": WAN_NEGATIVE,
        "fps": 16.0,
    }
    (folder / MODEL_INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def written_whole(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that takes its name at the end, or goes away if anything fails.

    Raises:
        ValueError: if the disk is full or may not be written to.
    """
    folder = Path(tempfile.mkdtemp(prefix=".ardrag-", dir=output.absolute().parent))
    try:
        yield folder
        folder.chmod(0o755)
        folder.replace(output)
    except (OSError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"output_dir: {output} cannot be written ({said}); nothing was left behind") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def count(model: CausalWanTransformer) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def summary(recipe: Recipe) -> str:
    """What kind of model came out, in a few words."""
    mode = recipe.scheduler.get("mode", "causal")
    return f"{mode}, slots {' + '.join(recipe.layout)}, control {recipe.control}"


if __name__ == "__main__":
    sys.exit(main())
