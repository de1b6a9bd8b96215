"""Arguments of a call that may be one for all pictures or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def check_steps(num_inference_steps: int | None) -> None:
    """Raise ValueError unless the number of steps is left to the checkpoint or is a positive whole number."""
    if num_inference_steps is None:
        return
    if not isinstance(num_inference_steps, int) or num_inference_steps < 1:
        raise ValueError(f"num_inference_steps: {num_inference_steps!r} must be a whole number of at least 1; use 3")


def as_list(value: Any, name: str) -> Sequence[Any]:
    """A non-empty list, or ValueError naming the argument."""
    if isinstance(value, list | tuple) and value:
        return value
    raise ValueError(f"{name}: got {type(value).__name__}; give a PIL picture or a non-empty list of them")


def one_each(value: Any, count: int, name: str, kind: Any) -> list[Any]:
    """Repeat one value ``count`` times, or check that a list has as many (else ValueError)."""
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name}: {len(values)} given for {count} image(s); give one, or one for each image")
    for entry in values:
        if not isinstance(entry, kind):
            raise ValueError(f"{name}: {type(entry).__name__} is not what is expected; see the docstring")
    return values


def draw_seed(generator: torch.Generator | None) -> int:
    """A clip's seed: the next number of ``generator``, or a random one."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device if generator else None))
