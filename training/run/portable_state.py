"""A training state without pickles: what accelerate saves as such, as safetensors (tensors) and JSON (all the rest).

On disk a run keeps accelerate's own state. What goes to the Hub and comes from there is this form of it, which cannot
run anything when it is read. States of random generators stay behind: what a step draws depends on seed, step and rank
alone (`training.run.runtime.step_generator`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


PICKLED = (".bin", ".pkl", ".pt")
RANDOM_STATES = "random_states_"


def pack_state(state: Path, target: Path) -> None:
    """Write the state that accelerate saved in ``state`` into the folder ``target`` as safetensors and JSON.

    Raises:
        ValueError: if the state is in parts, as several processes that share one model write it.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(state.iterdir()):
        if path.is_dir():
            raise ValueError(f"state: {path} is in parts; a model that is split over processes cannot be pushed yet")
        if path.suffix in (".safetensors", ".json"):
            shutil.copyfile(path, target / path.name)
        elif path.suffix in PICKLED and not path.name.startswith(RANDOM_STATES):
            tensors: dict[str, Tensor] = {}
            tree = take_apart(torch.load(path, map_location="cpu", weights_only=True), tensors)
            save_file(tensors, target / f"{path.stem}.safetensors")
            (target / f"{path.stem}.json").write_text(json.dumps({"file": path.name, "tree": tree}))


def unpack_state(source: Path, state: Path) -> None:
    """Write the state that `pack_state` wrote in ``source`` as accelerate reads it into the folder ``state``.

    Raises:
        ValueError: if the files are not what `pack_state` writes.
    """
    state.mkdir(parents=True, exist_ok=True)
    packed = set()
    for path in sorted(source.glob("*.json")):
        content = json.loads(path.read_text())
        if "tree" not in content:
            shutil.copyfile(path, state / path.name)
            continue
        name = str(content["file"])
        if Path(name).name != name or Path(name).suffix not in PICKLED:
            raise ValueError(f"state: {path} names {name!r}, which is no file of a state; do not use this state")
        tensors = load_file(path.with_suffix(".safetensors"))
        torch.save(put_together(content["tree"], tensors), state / name)
        packed.add(f"{path.stem}.safetensors")
    for path in source.glob("*.safetensors"):
        if path.name not in packed:
            shutil.copyfile(path, state / path.name)


def take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON, with every tensor moved to ``tensors`` and its name left in its place."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[take_apart(key, tensors), take_apart(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [take_apart(entry, tensors) for entry in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"state: a {type(value).__name__} cannot be written without pickle")


def put_together(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The value of which `take_apart` made ``tree`` and ``tensors``."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {put_together(key, tensors): put_together(entry, tensors) for key, entry in content}
    entries = [put_together(entry, tensors) for entry in content]
    return tuple(entries) if kind == "tuple" else entries
