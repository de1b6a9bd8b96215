"""Whether a pipeline's files hold every tensor of its models; diffusers and transformers make up what is missing."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from ardrag.saving import is_weights, require_tensors


def check_tensors(name: str, folder: Path, pipeline: Any, skip: Collection[str], variant: str | None = None) -> None:
    """Check every model of ``pipeline`` that was loaded from a folder of its own in ``folder``.

    Args:
        name: what the user called it.
        skip: components that come from elsewhere.
        variant: of the weights, where it was asked for.

    Raises:
        ValueError: naming component and tensor.
    """
    for component, module in pipeline.components.items():
        if component in skip or not isinstance(module, nn.Module) or not (folder / component).is_dir():
            continue
        missing = missing_tensors(module, saved_names(folder / component, variant))
        require_tensors(f"{component} of {name}", missing)


def saved_names(folder: Path, variant: str | None) -> set[str]:
    """Names of the tensors in a component's safetensors; those of ``variant`` where there are any."""
    files = sorted(folder.glob("*.safetensors"))
    chosen = [file for file in files if is_weights(file.name, variant)]
    names: set[str] = set()
    for file in chosen or [file for file in files if is_weights(file.name, None)]:
        with safe_open(file, "pt") as tensors:
            names.update(tensors.keys())
    return names


def missing_tensors(module: nn.Module, saved: Collection[str]) -> list[str]:
    """Tensors of ``module`` that are not among ``saved``, nor tied to one that is.

    Versions of transformers differ in the prefix of a tower's names, which it puts right by itself.
    """
    state = module.state_dict()
    tails = {name.split(".", cut)[-1] for name in saved for cut in (0, 1)}
    known = [key for key in state if key in tails or key.split(".", 1)[-1] in saved]
    places = {state[key].data_ptr() for key in known if state[key].device.type != "meta"}
    optional = getattr(module, "_keys_to_ignore_on_load_missing", None) or ()
    return [
        key
        for key in state.keys() - set(known)
        if state[key].data_ptr() not in places and not any(re.search(pattern, key) for pattern in optional)
    ]
