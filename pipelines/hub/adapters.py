"""LoRA files in the layouts that trainers write: each becomes diffusers' own, or is refused by an unknown key.

diffusers takes a file whose keys it does not know for an empty one and goes on without it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import WanLoraLoaderMixin
from diffusers.loaders.lora_base import _fetch_state_dict
from safetensors import SafetensorError
from torch import Tensor

from ardrag.convert.keys import from_kohya, is_ours, to_ours
from ardrag.saving import whole_folder


LORA_KEY = re.compile(
    r"(?P<module>.+?)\.lora(?:_|\.)(?P<part>A|B|down|up)(?:\.(?!weight|bias)[^.]+)?\.(?P<leaf>weight|bias)"
)
"""``module.lora_A.weight``; PEFT may name the adapter in between, others say down and up."""
LORA_PARTS = {"A": "A", "down": "A", "B": "B", "up": "B"}
LORA_PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "pipe.dit.", "dit.", "model.")
"""What trainers put before the name of a layer; PEFT, diffusers, ComfyUI, DiffSynth."""
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PLACE_OPTIONS = ("weight_name", "subfolder", "revision", "token", "proxies")
FETCH_OPTIONS = (*PLACE_OPTIONS, "local_files_only", "cache_dir", "force_download")
"""What a caller may say about where the weights lie."""
LayerName = Callable[[str], str | None]
"""Our name of a layer that a file calls otherwise, or None."""


def same_layer(name: str) -> str | None:
    """A layer by diffusers' name."""
    return name if is_ours(f"{name}.weight") else None


def original_layer(name: str) -> str | None:
    """A layer by the name that Wan's own code has for it: DiffSynth, ComfyUI."""
    found = to_ours(f"{name}.weight")
    return None if found is None else found.removesuffix(".weight")


def kohya_layer(name: str) -> str | None:
    """A layer by its name with underscores for dots: kohya, musubi-tuner."""
    return from_kohya(name.removeprefix("lora_unet_"))


LAYER_NAMES: tuple[LayerName, ...] = (same_layer, original_layer, kohya_layer)
"""Ways to read a layer's name, in turn; another layout is another entry."""
DIFFERENCES = (".diff", ".diff_b")
"""Ends of keys that hold a whole weight's or bias's change: LoRA files drawn out of two models (CausVid, lightx2v)."""


def our_layout(state: dict[str, Tensor], called: str) -> dict[str, Tensor]:
    """LoRA weights under diffusers' keys, ``transformer.layer.lora_A.weight``; an ``alpha`` is multiplied in.

    Whole changes of a matrix become a LoRA of full rank, those of a bias the bias of one. Norms' are left out where
    they are zero.

    Raises:
        ValueError: naming the key that is no adapter of a layer of Wan's transformer.
    """
    if not state:
        raise ValueError(f"{called} holds nothing; give the file that a trainer wrote")
    layers = {key: key.removesuffix(".alpha") for key in state if key.endswith(".alpha")}
    changes = [key for key in state if key.endswith(DIFFERENCES)]
    matches = {key: LORA_KEY.fullmatch(key) for key in state if key not in layers and key not in changes}
    scales: dict[str, float] = {}
    for key, layer in layers.items():
        rank = next((len(state[k]) for k, m in matches.items() if m and m["module"] == layer and _is_down(m)), 1)
        scales[layer] = float(state[key]) / rank
    ours = {}
    for key, match in matches.items():
        name = None if match is None else layer_name(match["module"])
        if match is None or name is None:
            raise ValueError(f"{called} has the key {key}, which is no LoRA of a layer of Wan's transformer")
        scale = 1.0 if _is_down(match) else scales.get(match["module"], 1.0)
        part = f"transformer.{name}.lora_{LORA_PARTS[match['part']]}.{match['leaf']}"
        ours[part] = state[key] if scale == 1 else state[key] * scale
    for key in changes:
        ours |= _changed(key, state[key], called)
    return ours


def _changed(key: str, change: Tensor, called: str) -> dict[str, Tensor]:
    """A whole change of a weight or a bias as LoRA weights; nothing for one that is zero."""
    layer, _, kind = key.rpartition(".")
    name = layer_name(layer)
    if name is None:
        raise ValueError(f"{called} has the key {key}, which belongs to no layer of Wan's transformer")
    if not change.any():
        return {}
    if change.ndim > 2 or "norm" in name or (kind == "diff" and change.ndim != 2):
        raise ValueError(f"{called} changes {name} as a whole ({key}), which no adapter can; merge it into the model")
    start = f"transformer.{name}.lora_"
    if kind == "diff_b":
        return {f"{start}B.bias": change}
    return {f"{start}A.weight": change, f"{start}B.weight": torch.eye(len(change)).to(change)}


def _is_down(match: re.Match[str]) -> bool:
    return LORA_PARTS[match["part"]] == "A"


def layer_name(given: str) -> str | None:
    """Our name of a layer under any of the known names, or None."""
    for prefix in LORA_PREFIXES:
        given = given.removeprefix(prefix)
    return next((found for read in LAYER_NAMES if (found := read(given)) is not None), None)


def peft_settings(source: Any, subfolder: str = "") -> dict[str, Any] | None:
    """The LoRA settings that PEFT saved beside its weights, as diffusers wants them, or None where there are none."""
    if isinstance(source, dict):
        return None
    config = Path(source) / subfolder / PEFT_CONFIG
    if not config.is_file():
        return None
    known = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias")
    settings = json.loads(config.read_text(encoding="utf-8"))
    kept = {f"transformer.{name}": settings[name] for name in known if settings.get(name) is not None}
    return kept | {"transformer.target_modules": settings["target_modules"]}


def fitted(state: dict[str, Tensor], transformer: torch.nn.Module) -> dict[str, Tensor]:
    """LoRA weights checked against the layers of ``transformer``, with zeros where only some layers have a bias.

    Raises:
        ValueError: naming a layer that it does not have, or that is of another width.
    """
    layers = dict(transformer.named_modules())
    names = {key: key.removeprefix("transformer.").rpartition(".lora_")[0] for key in state}
    for key, name in names.items():
        if name not in layers:
            raise ValueError(f"lora: this model has no layer {name}; the adapter was trained for another model")
        narrow, wide = widths(layers[name])
        given, has = (state[key].shape[1], narrow) if ".lora_A." in key else (len(state[key]), wide)
        if given != has:
            raise ValueError(
                f"lora: {name} is {given} wide in the adapter and {has} in this model; the adapter was trained for a "
                "model of another size, take one for this size (Wan 1.3B is 1536 wide, 14B is 5120)"
            )
    filled = dict(state)
    for name in set(names.values()) if any(key.endswith(".lora_B.bias") for key in state) else ():
        narrow, wide = widths(layers[name])
        like = next(state[key] for key in state if names[key] == name)
        for leaf, shape in {"A.weight": (1, narrow), "B.weight": (wide, 1), "B.bias": (wide,)}.items():
            filled.setdefault(f"transformer.{name}.lora_{leaf}", like.new_zeros(shape))
    return filled


def widths(layer: torch.nn.Module) -> tuple[int, int]:
    """Numbers into and out of a layer, which may have an adapter already.

    Raises:
        ValueError: if it is no layer that takes one.
    """
    base: Any = layer.base_layer if hasattr(layer, "base_layer") else layer
    if hasattr(base, "in_features"):
        return base.in_features, base.out_features
    if hasattr(base, "in_channels"):
        return base.in_channels, base.out_channels
    raise ValueError(f"lora: {type(base).__name__} takes no adapter; the adapter was trained for another model")


class AdapterMixin(WanLoraLoaderMixin):
    """Loading and saving of LoRA adapters of a pipeline."""

    @classmethod
    def lora_state_dict(cls, pretrained_model_name_or_path_or_dict: Any, **kwargs: Any) -> Any:
        """LoRA weights in diffusers' layout, from safetensors alone: pickles may run any code when opened.

        Takes diffusers' own layout, PEFT's (a folder with its configuration), kohya's, and those with Wan's own names
        (DiffSynth, ComfyUI, CausVid, lightx2v).

        Raises:
            ValueError: if the weights are pickled, cannot be read, or are of another model.
        """
        source, name = pretrained_model_name_or_path_or_dict, kwargs.get("weight_name")
        called = "lora: the weights given" if isinstance(source, dict) else f"lora: {source}"
        if isinstance(source, str | os.PathLike):
            source = os.path.expanduser(source)
        if kwargs.get("use_safetensors") is False or not (name is None or str(name).endswith(".safetensors")):
            raise ValueError(f"{called}: {name or 'pickled weights'} may run any code; convert them to safetensors")
        settings = peft_settings(source, kwargs.get("subfolder") or "")
        if settings is not None and name is None:
            kwargs = {**kwargs, "weight_name": PEFT_FILE}
        told = kwargs.pop("return_lora_metadata", False)
        options = {name: kwargs.get(name) for name in FETCH_OPTIONS}
        try:
            state, metadata = _fetch_state_dict(
                source, use_safetensors=True, allow_pickle=False, user_agent={"file_type": "lora"}, **options
            )
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{called} has no safetensors that can be read ({error}); convert it") from error
        state = our_layout(state, called)
        return (state, settings if metadata is None else metadata) if told else state

    @classmethod
    def load_lora_into_transformer(cls, state_dict: dict[str, Tensor], transformer: Any, **kwargs: Any) -> None:
        """As diffusers', after a look whether ``transformer`` has the layers, in the widths that the adapter has.

        Raises:
            ValueError: naming a layer that it does not have, or that is of another width.
        """
        super().load_lora_into_transformer(fitted(state_dict, transformer), transformer, **kwargs)

    @classmethod
    def save_lora_weights(cls, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As diffusers', whole or not at all.

        Raises:
            ValueError: if ``save_directory`` cannot be written; it is as it was then.
        """
        with whole_folder(save_directory) as fresh:
            super().save_lora_weights(fresh, *args, **kwargs)
