"""Reading a stage's configuration: a dataclass, filled from an optional YAML preset and then from the command line."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml
from transformers import HfArgumentParser


T = TypeVar("T")


def parse_config(config_class: type[T], arguments: list[str] | None = None) -> T:
    """Build ``config_class`` from ``[preset.yaml] --field value ...``; the command line wins over the preset.

    Raises:
        ValueError: if the preset is missing or names a field that the stage does not have.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    preset: dict[str, Any] = {}
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        preset = read_preset(config_class, Path(arguments.pop(0)))
    parser = HfArgumentParser(config_class)  # type: ignore[arg-type]
    parser.set_defaults(**preset)
    for action in parser._actions:
        if action.dest in preset:
            action.required = False
    (config,) = parser.parse_args_into_dataclasses(arguments)
    return config


def read_preset(config_class: type[Any], path: Path) -> dict[str, Any]:
    """Read a YAML preset and check its keys against the fields of ``config_class``."""
    if not path.is_file():
        raise ValueError(f"preset: {path} does not exist; see training/configs for the presets that come along")
    values = yaml.safe_load(path.read_text()) or {}
    known = {field.name for field in fields(config_class)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"preset: {path} has unknown field(s) {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    return values


def config_lines(config: Any) -> str:
    """The configuration as YAML, as it is kept in the run folder."""
    return str(yaml.safe_dump(asdict(config), sort_keys=False))
