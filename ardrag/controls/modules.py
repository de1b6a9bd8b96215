"""What a control changes in a transformer, by name, as the transformer's configuration has it (``control_module``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ardrag.controls.fused_flow import attach_fuser
from ardrag.controls.track_ids import attach_head


MODULES: dict[str, Callable[..., None]] = {"track_ids": attach_head, "fused_flow": attach_fuser}


def attach(transformer: Any, module: Mapping[str, Any]) -> None:
    """Change ``transformer`` as `Control.module` says, in place; its other parameters keep their names.

    Raises:
        ValueError: if this version does not know the module, or the transformer has no motion slot.
    """
    settings = dict(module)
    name = settings.pop("name", None)
    if name not in MODULES:
        raise ValueError(
            f"control_module: {name!r} is unknown; use one of {', '.join(MODULES)}, or update the package"
        )
    if "motion" not in transformer.config.input_layout:
        raise ValueError(f"control_module: {name} needs a slot motion in input_layout; add one")
    MODULES[name](transformer, **settings)
