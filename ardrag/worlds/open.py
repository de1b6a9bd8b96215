"""From the name of a world on a command line, with its options, to its clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ardrag.worlds.photos import PhotoClip, make_photo_clip
from ardrag.worlds.small import SmallWorld
from ardrag.worlds.sprites import SpriteClip, make_clip


MakeClip = Callable[[str, int, int, int, int], SpriteClip | PhotoClip]
"""Called with (split, index, pixel frames, height, width)."""
WORLDS = ("sprites", "photos", "small")


@dataclass(frozen=True)
class World:
    """What a dataset calls it, and what makes its clips."""

    title: str
    make: MakeClip


def open_world(text: str) -> World:
    """``sprites``, ``photos`` or ``small``; the last with options: ``small:label_noise=6,late_start=8``.

    Raises:
        ValueError: if there is no such world, or it has no such option.
    """
    name, _, options = text.partition(":")
    if name not in WORLDS:
        raise ValueError(f"world: {name!r} is unknown; use {', '.join(WORLDS[:-1])} or {WORLDS[-1]}")
    if name == "small":
        small = SmallWorld(**read_options(options))
        return World(" with ".join(filter(None, ("the small world", small.named))), small.make)
    if options:
        raise ValueError(f"world: {name} has no options, {options!r} is too much; the small world has some")
    return World("Sprite World", make_clip) if name == "sprites" else World("Photo World", make_photo_clip)


def read_options(text: str) -> dict[str, Any]:
    """The options ``name=number`` of the small world, separated by commas."""
    known: dict[str, Any] = {field.name: field.default for field in fields(SmallWorld)}
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise ValueError(f"world: the small world has no option {name!r}; it has {', '.join(known)}")
        try:
            found[name] = float(value) if isinstance(known[name], float) else type(known[name])(int(value))
        except ValueError:
            raise ValueError(f"world: {part!r} is no number; write {name}=1, for instance") from None
    return found
