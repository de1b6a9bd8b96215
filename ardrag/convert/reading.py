"""Tensors of a checkpoint one by one, from safetensors or from a pickle that may hold nothing but tensors."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ardrag.convert.keys import bare


FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""The number formats that weights may have, by their name in safetensors."""
STATES = ("generator_ema", "generator", "state_dict", "model", "module")
"""Where training scripts put a model's weights in a ``.pt`` file; the first that is there counts."""
INDEX = ".safetensors.index.json"


class Weights(Mapping[str, Tensor]):
    """A checkpoint's tensors by their bare names, read from disk when they are asked for."""

    def __init__(self, path: Path, names: Mapping[str, tuple[Path, str]], shapes: Mapping[str, tuple[int, ...]]):
        self.path, self.shapes = path, dict(shapes)
        self._names = dict(names)
        self._opened: dict[Path, Any] = {}

    def __getitem__(self, key: str) -> Tensor:
        file, name = self._names[key]
        with _readable(file):
            if file not in self._opened:
                self._opened[file] = safe_open(file, framework="pt")
            found: Tensor = self._opened[file].get_tensor(name)
            return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class LoadedWeights(Weights):
    """The same of a ``.pt`` file, which stays on disk and is mapped into memory."""

    def __init__(self, path: Path, state: Mapping[str, Tensor]) -> None:
        super().__init__(path, {key: (path, key) for key in state}, {k: tuple(v.shape) for k, v in state.items()})
        self._state = state

    def __getitem__(self, key: str) -> Tensor:
        return self._state[key]


def open_weights(path: Path, state: str | None = None) -> Weights:
    """The tensors of a file or a folder: ``.safetensors``, a sharded set of them with its index, or ``.pt``/``.pth``.

    Args:
        path: the file, or the folder that holds it.
        state: which of the models of a ``.pt`` file (`STATES`).

    Raises:
        ValueError: if there is none, a shard is missing, a file is cut off or wants to run code, or the numbers are
            of a format that is not read here; naming the file and the remedy.
    """
    file = path if path.is_file() else _weights_file(path)
    if file.name.endswith(INDEX):
        return _open_shards(file)
    if file.suffix == ".safetensors":
        return _open_safetensors(path, [file])
    if file.suffix in (".pt", ".pth"):
        return LoadedWeights(file, _loaded_state(file, state))
    raise ValueError(f"source: {file} is not .safetensors, .pt or .pth; give the checkpoint's file or folder")


def _weights_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise ValueError(f"source: {folder} does not exist; give a file, a folder or a Hub name such as user/name")
    for pattern in (f"*{INDEX}", "*.safetensors", "*.pt"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(
                f"source: {folder} holds {found[0].name} and {len(found) - 1} more like it; name the file"
            )
    raise ValueError(f"source: {folder} holds neither safetensors nor a .pt file; give the checkpoint's own folder")


def _open_shards(index: Path) -> Weights:
    with _readable(index):
        files = {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    shards = [index.parent / Path(name).name for name in sorted(files)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ValueError(f"source: {index.parent} lacks the shard {missing[0]} of its index; download it again")
    return _open_safetensors(index.parent, shards)


def _open_safetensors(path: Path, files: list[Path]) -> Weights:
    names: dict[str, tuple[Path, str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with _readable(file), safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (no mapping)
                part, key = opened.get_slice(name), bare(name)
                _check_new(file, key, names, part.get_dtype())
                names[key], shapes[key] = (file, name), tuple(part.get_shape())
    return Weights(path, names, shapes)


def _check_new(file: Path, key: str, names: Mapping[str, Any], number: str) -> None:
    if key in names:
        raise ValueError(f"source: {file.name} holds {key} twice; give the checkpoint of one model")
    if number not in FLOATS:
        raise ValueError(
            f"source: {file.name}: {key} is in {number}, a quantised or whole-number format; give the checkpoint in "
            "bfloat16, float16 or float32"
        )


def _loaded_state(file: Path, state: str | None) -> dict[str, Tensor]:
    """The state dict of a model in a pickle that was read with nothing but tensors allowed."""
    with _readable(file):
        is_zip = zipfile.is_zipfile(file)
        if not is_zip and file.open("rb").read(2) == b"PK":
            raise EOFError("the list at the end of the archive is missing")
        held: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    if state is not None and (not isinstance(held, dict) or state not in held):
        raise ValueError(f"weights: {file.name} holds no {state!r}; it has {', '.join(map(str, list(held)[:4]))}")
    wanted = STATES if state is None else (state,)
    inner = next((held[name] for name in wanted if isinstance(held, dict) and isinstance(held.get(name), dict)), held)
    tensors = {} if not isinstance(inner, dict) else {k: v for k, v in inner.items() if isinstance(v, Tensor)}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        number = next((short for short, kind in FLOATS.items() if kind == tensor.dtype), str(tensor.dtype))
        _check_new(file, bare(name), found, number)
        found[bare(name)] = tensor
    if not found:
        raise ValueError(f"source: {file.name} holds no weights of a model; give one that was saved as a state dict")
    return found


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Within, what can be wrong with a file becomes a ValueError of one sentence."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"source: {file.name} is a pickle of more than tensors and could run any code, so it is not read; ask its "
            "author for safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, zipfile.BadZipFile, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"source: {file.name} is cut off or damaged; download it again") from error
    except OSError as error:
        raise ValueError(f"source: {file} cannot be read ({error.strerror}); check the path") from error
