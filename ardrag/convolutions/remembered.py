"""What is made of a weight once and used until the weight changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn


Kernels = TypeVar("Kernels")


class Remembered(NamedTuple):
    """``made`` of ``weight`` as it was at ``version``; the alias keeps its memory from becoming another's."""

    weight: torch.Tensor
    version: int
    made: Any


_remembered: WeakKeyDictionary[nn.Module, dict[Any, Remembered]] = WeakKeyDictionary()


def remembered(module: nn.Module, weight: torch.Tensor, make: Callable[..., Kernels], *arguments: Any) -> Kernels:
    """``make(weight, *arguments)`` for a weight of ``module``, made again when it was changed, moved or replaced.

    It carries no gradient: where gradients are on, and for weights made under `torch.inference_mode`, whose changes
    nobody counts, it is made every time.
    """
    if torch.is_grad_enabled() or weight.is_inference():
        return make(weight, *arguments)
    kept, key = _remembered.setdefault(module, {}), (make, *arguments)
    known = kept.get(key)
    if known is None or known.version != weight._version or known.weight.data_ptr() != weight.data_ptr():
        known = kept[key] = Remembered(weight.detach(), weight._version, make(weight, *arguments))
    made: Kernels = known.made
    return made
