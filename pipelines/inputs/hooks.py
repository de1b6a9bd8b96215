"""Whether a model is moved when it is called: every way of offloading hangs hooks on modules."""

from __future__ import annotations

from torch import nn


HOOKS = {"_hf_hook", "_diffusers_hook"}
"""Attributes of modules that accelerate and diffusers act on before and after a call."""


def is_hooked(model: nn.Module) -> bool:
    """Whether something, as offloading does, may move a part of ``model`` when it is called."""
    return any(not HOOKS.isdisjoint(vars(module)) for module in model.modules())
