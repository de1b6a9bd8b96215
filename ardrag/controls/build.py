"""Controls by name, as a pipeline's configuration has them, and what they change in a transformer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ardrag.controls.boxes import Boxes
from ardrag.controls.carried import Carried, Collage, Cutout
from ardrag.controls.control import Control
from ardrag.controls.copied import Copied
from ardrag.controls.entity import Entity
from ardrag.controls.flow import Flow
from ardrag.controls.fused_flow import FusedFlow, attach_fuser
from ardrag.controls.heat import Coloured, Heat
from ardrag.controls.masks import Masks
from ardrag.controls.track_ids import TrackIds, attach_head


FAMILY: tuple[type[Control], ...] = (
    Heat,
    Coloured,
    Carried,
    Collage,
    Cutout,
    Copied,
    TrackIds,
    Flow,
    FusedFlow,
    Entity,
    Masks,
    Boxes,
)
CONTROLS = {kind.name: kind for kind in FAMILY}
MODULES: dict[str, Callable[..., None]] = {"track_ids": attach_head, "fused_flow": attach_fuser}
"""How a transformer is changed for a control, by the name in its configuration's ``control_module``."""


def build_control(config: str | Mapping[str, Any] | None, coloured_tracks: bool = False) -> Control:
    """A control from its name, or from its name and settings (`Control.config`); None is the paper's heat.

    ``coloured_tracks`` is what pipelines before ``control`` saved: there None is coloured heat.

    Raises:
        ValueError: if this version does not know the name or a setting, or a setting is out of range.
    """
    config = config or ("coloured" if coloured_tracks else "heat")
    name, settings = (config, {}) if isinstance(config, str) else (config.get("name"), dict(config))
    settings.pop("name", None)
    if name not in CONTROLS:
        raise ValueError(f"control: {name!r} is unknown; use one of {', '.join(CONTROLS)}, or update this package")
    kind = CONTROLS[name]
    unknown = set(settings) - set(inspect.signature(kind).parameters)
    if unknown:
        raise ValueError(f"control: {name} has no setting {', '.join(sorted(unknown))}; leave it out")
    return kind(**settings)


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
