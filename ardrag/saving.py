"""Saved models are whole or not there: written aside, then put in the place of whatever model lay in the folder.

diffusers writes file by file into the folder, so that a full disk leaves half a model, and an index of older shards
stays beside new weights and is believed. Here the new files are complete before an old one is touched, old weights go,
and everything that is no part of a model (a card, samples, another variant's weights) stays.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn


logger = logging.getLogger(__name__)
WEIGHTS = re.compile(
    r"(?:diffusion_)?(?:pytorch_)?model(?:\.(?P<shard_variant>[^.]+?))?(?:-\d+-of-\d+)?(?:\.(?P<variant>[^.]+))?"
    r"\.(?:safetensors|bin)(?:\.index(?:\.(?P<index_variant>[^.]+))?\.json)?"
)
"""Weight files of diffusers and transformers: one file or a shard, or the index of shards, perhaps of a variant."""


@contextmanager
def whole_folder(target: str | os.PathLike[str], variant: str | None = None) -> Iterator[Path]:
    """Within, write into the folder given; afterwards its files are in ``target``, in the place of what was there.

    Where weights are written, others of the same ``variant`` that lay there are gone then, and so are components that
    an old ``model_index.json`` names and a new one does not. If anything goes wrong, ``target`` is as it was.

    Raises:
        ValueError: if ``target`` is a file or cannot be written.
    """
    folder = Path(target).expanduser()
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise ValueError(f"save_directory: {existing} is a file; name a folder")
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".ardrag-") as work:
            fresh, old = Path(work) / "new", Path(work) / "old"
            fresh.mkdir()
            yield fresh
            _replace(fresh, folder, old, variant)
    except BaseException as error:
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, OSError | SafetensorError):
            raise ValueError(
                f"save_directory: {folder} cannot be written ({error}); nothing there has changed. Make room, or "
                "choose another place"
            ) from error
        raise


def _replace(fresh: Path, target: Path, old: Path, variant: str | None) -> None:
    """Move the files of ``fresh`` into ``target`` and what they replace into ``old``; undone if a move fails."""
    new = [path.relative_to(fresh) for path in sorted(fresh.rglob("*")) if path.is_file()]
    leaving = _stale(fresh, target, new, variant)
    moves = [(target / place, old / place) for place in leaving] + [(fresh / file, target / file) for file in new]
    done: list[tuple[Path, Path]] = []
    try:
        for source, place in moves:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, place)
            done.append((source, place))
    except BaseException:
        for source, place in reversed(done):
            os.replace(place, source)
        raise


def _stale(fresh: Path, target: Path, new: list[Path], variant: str | None) -> list[Path]:
    """What must leave ``target``, relative to it: files replaced or in the way, old weights and components."""
    places = [place for file in new for place in (*reversed(file.parents[:-1]), file)]
    stale = [place for place in places if _is_in_the_way(target / place, place in new)]
    for folder in dict.fromkeys(file.parent for file in new if is_weights(file.name, variant)):
        inside = (target / folder).iterdir() if (target / folder).is_dir() else ()
        stale += [folder / path.name for path in inside if path.is_file() and is_weights(path.name, variant)]
    if (fresh / "model_index.json").is_file():
        gone = _components(target) - _components(fresh)
        stale += [Path(name) for name in sorted(gone) if (target / name).is_dir()]
    return list(dict.fromkeys(stale))


def _is_in_the_way(there: Path, replaced: bool) -> bool:
    return os.path.lexists(there) and (replaced or not there.is_dir())


def is_weights(name: str, variant: str | None) -> bool:
    """Whether a file of that name holds weights of ``variant``, or says where they are."""
    match = WEIGHTS.fullmatch(name)
    return match is not None and next((found for found in match.groups() if found), None) == variant


def _components(folder: Path) -> set[str]:
    """Components with files of their own, as a pipeline's ``model_index.json`` names them."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {name for name, value in index.items() if isinstance(value, list) and value[:1] != [None]}


class AtHome:
    """Loading and saving of a diffusers class where ``~`` is understood; comes before diffusers' own in the bases."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As diffusers' own; ``~`` is the user's home."""
        place = os.path.expanduser(pretrained_model_name_or_path)
        return super().from_pretrained(place, *args, **kwargs)  # type: ignore[misc]

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As diffusers' own; ``~`` is the user's home."""
        super().save_pretrained(os.path.expanduser(save_directory), *args, **kwargs)  # type: ignore[misc]


class SavedWhole(AtHome):
    """Saving and loading of a diffusers model, whole or not at all; comes before `ModelMixin` in the bases."""

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """`ModelMixin.from_pretrained`, which would leave a tensor that is not in the files without a value.

        Raises:
            ValueError: naming the tensors that are missing.
        """
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        require_tensors(f"{cls.__name__} in {args[0] if args else model.name_or_path}", info["missing_keys"])
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        save_function: Any = None,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str = "10GB",
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write weights and configuration in the place of whatever model lay in ``save_directory``.

        Options are those of diffusers. Of a model with adapters the base is written, as `without_adapters` says.

        Raises:
            ValueError: if ``save_directory`` is a file or cannot be written; it is as it was then.
        """
        options = {"safe_serialization": safe_serialization, "variant": variant, "max_shard_size": max_shard_size}
        if push_to_hub:
            kwargs = {"push_to_hub": True, "repo_id": Path(save_directory).name, **kwargs}
        with whole_folder(save_directory, variant) as fresh, without_adapters(self):  # type: ignore[arg-type]
            super().save_pretrained(str(fresh), is_main_process, save_function, **options, **kwargs)


def require_tensors(what: str, missing: Collection[str]) -> None:
    """Raise ValueError where tensors are missing, naming the first ones."""
    if missing:
        shown = ", ".join(sorted(missing)[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ValueError(f"model: {what} lacks {shown}; its files are not whole, copy or download them again")


def save_model(model: Any, folder: str | os.PathLike[str], **options: Any) -> None:
    """`save_pretrained` of a model whose class is not ours, whole or not at all.

    Raises:
        ValueError: as `whole_folder`.
    """
    with whole_folder(folder, options.get("variant")) as fresh:
        model.save_pretrained(fresh, **options)


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Within, the state dict of ``model`` is that of its base: the keys that it has where no adapter is loaded.

    A fused adapter is in the base's numbers; of any other the log says that it is left out.
    """
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "base_layer")}
    if not layers:
        yield
        return
    if not all(layer.merged for layer in layers.values()):
        logger.warning(
            "the adapters %s are not saved with the model; save them with save_lora_weights, or call fuse_lora first",
            sorted({adapter for layer in layers.values() for adapter in layer.active_adapters}),
        )

    def strip(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for key in [key for key in state if any(key.startswith(f"{prefix}{name}.") for name in layers)]:
            value = state.pop(key)
            if ".base_layer." in key:
                state[key.replace(".base_layer.", ".")] = value

    handle = model.register_state_dict_post_hook(strip)
    try:
        yield
    finally:
        handle.remove()
