"""A checkpoint's tensors, one by one, into a model that was built without memory.

Everything is checked first, against the shapes alone; only then are numbers read. The peak is the model once and one
tensor more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ardrag.controls.build import build_control
from ardrag.controls.control import Control
from ardrag.controls.track_ids import TrackIds
from ardrag.convert.keys import is_ours, to_original, to_ours
from ardrag.convert.reading import Weights
from ardrag.convert.recipes import LATENT, WIDTHS, Recipe
from ardrag.transformer import CausalWanTransformer


PATCHES = "patch_embedding.weight"
UNUSED = ("norm_added_q.weight",)
"""Ends of keys that diffusers' files have and nobody reads."""
TRACK_HEAD, OUR_HEAD = "track_encoder.", "patch_embedding.head."
"""Where Track-v0's head for its tracks lies, and ours (`ardrag.controls.track_ids`)."""
HEAD_DIM = 128
"""Width of a head in every Wan model; shapes alone do not tell it."""
CLIP_WIDTH = 1280
Progress = Callable[[Iterable[str]], Iterable[str]]


def convert(
    weights: Weights,
    recipe: Recipe,
    motion_from: Weights | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress = iter,
) -> CausalWanTransformer:
    """The checkpoint as our transformer, on the CPU.

    Args:
        weights: the checkpoint, with original or diffusers' keys.
        recipe: what it is (`recognise`).
        motion_from: a Fun-Control checkpoint whose trained motion columns fill a motion slot that is new here.
        dtype: number format of the result; None keeps the source's.
        progress: wraps the list of parameters, for a bar.

    Raises:
        ValueError: if a key is unknown, missing, or of a wrong shape. Nothing has been read then.
    """
    names = _source_names(weights)
    model = empty_model(weights, recipe, names)
    fresh = check_parameters(weights, recipe, names, model)
    if motion_from is not None:
        _check_motion(recipe, motion_from, model)
    kind = dtype or weights[names["proj_out.weight"]].dtype
    generator = torch.Generator().manual_seed(0)
    for key in progress(dict(model.named_parameters())):
        shape = model.get_parameter(key).shape
        tensor = first_values(key, shape, generator) if key in fresh else weights[names[key]]
        if key == PATCHES:
            tensor = widened(tensor, recipe, None if motion_from is None else motion_columns(motion_from))
        _put(model, key, tensor.to(kind))
    return model.eval()


def _source_names(weights: Weights) -> dict[str, str]:
    """The checkpoint's name of each of our parameters."""
    names = {}
    for key in weights.shapes:
        if key.endswith(UNUSED):
            continue
        ours = key if is_ours(key) else to_ours(key)
        if key.startswith(TRACK_HEAD):
            ours = OUR_HEAD + key.removeprefix(TRACK_HEAD)
        if ours is None:
            raise ValueError(f"source: {weights.path.name} holds {key}, which Wan2.1's transformer does not have")
        names[ours] = key
    return names


def empty_model(weights: Weights, recipe: Recipe, names: dict[str, str]) -> CausalWanTransformer:
    """The model without numbers, with its size read off the checkpoint's shapes."""

    def shape(key: str) -> tuple[int, ...]:
        if key not in names:
            raise ValueError(f"source: {weights.path.name} lacks {to_original(key)}; it is not whole")
        return weights.shapes[names[key]]

    dim, _, *patch = shape(PATCHES)
    out_channels = shape("proj_out.weight")[0] // (patch[0] * patch[1] * patch[2])
    if out_channels != LATENT:
        raise ValueError(
            f"source: {weights.path.name} makes latents of {out_channels} channels, Wan2.1's have {LATENT}; it is "
            "another generation (Wan2.2 5B), take a Wan2.1 checkpoint of 1.3B"
        )
    if dim % HEAD_DIM:
        raise ValueError(
            f"source: {weights.path.name} is {dim} wide, not a multiple of {HEAD_DIM} as Wan's models are"
        )
    has_image = "condition_embedder.image_embedder.norm1.weight" in names
    control = control_of(weights, recipe)
    layout = {name: control.width(LATENT) if name == "motion" else width for name, width in recipe.layout.items()}
    config: dict[str, Any] = {
        "patch_size": tuple(patch),
        "num_attention_heads": dim // HEAD_DIM,
        "attention_head_dim": HEAD_DIM,
        "in_channels": sum(layout.values()),
        "control_module": control.module(),
        "out_channels": LATENT,
        "text_dim": shape("condition_embedder.text_embedder.linear_1.weight")[1],
        "freq_dim": shape("condition_embedder.time_embedder.linear_1.weight")[1],
        "ffn_dim": shape("blocks.0.ffn.net.0.proj.weight")[0],
        "num_layers": 1 + max((int(key.split(".")[1]) for key in names if key.startswith("blocks.")), default=0),
        "cross_attn_norm": "blocks.0.norm2.weight" in names,
        "image_dim": shape("condition_embedder.image_embedder.norm1.weight")[0] if has_image else CLIP_WIDTH,
        "added_kv_proj_dim": dim,
        "input_layout": layout,
        "image_context": "all",
    }
    with torch.device("meta"):
        return CausalWanTransformer(**config, **recipe.transformer)


def control_of(weights: Weights, recipe: Recipe) -> Control:
    """What the checkpoint's motion slot is shown; a head of its own says its sizes by its shapes.

    Raises:
        ValueError: if such a head is not whole, or makes another number of channels.
    """
    if recipe.control != TrackIds.name:
        return build_control(recipe.control)
    key = f"{TRACK_HEAD}temporal_conv.weight"
    shape = weights.shapes.get(key, ())
    if len(shape) != 5 or shape[0] != LATENT:
        raise ValueError(
            f"source: {weights.path.name}: {key} is {list(shape)}, should be [{LATENT}, ids, frames, 1, 1]"
        )
    return TrackIds(id_dim=shape[1], channels=LATENT, frames=shape[2], bias=f"{TRACK_HEAD}proj.bias" in weights.shapes)


def check_parameters(
    weights: Weights, recipe: Recipe, names: dict[str, str], model: CausalWanTransformer
) -> frozenset[str]:
    """Check every key and shape against the model; returns the parameters that the source does not have.

    Raises:
        ValueError: naming the first key that is missing, left over, or of a wrong shape.
    """
    wanted = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
    wanted[PATCHES] = (wanted[PATCHES][0], sum(WIDTHS[name] for name in recipe.slots), *wanted[PATCHES][2:])
    left = sorted(set(names) - set(wanted))
    if left:
        raise ValueError(
            f"source: {weights.path.name} holds {names[left[0]]}, which its other shapes leave no room for"
        )
    missing = sorted(set(wanted) - set(names))
    fresh = frozenset(key for key in missing if "image" in recipe.added and is_image_branch(key))
    if len(fresh) < len(missing):
        absent = next(key for key in missing if key not in fresh)
        raise ValueError(f"source: {weights.path.name} lacks {to_original(absent)}; it is not whole")
    for key, name in names.items():
        if weights.shapes[name] != wanted[key]:
            raise ValueError(
                f"source: {weights.path.name}: {name} is {list(weights.shapes[name])}, should be {list(wanted[key])}"
            )
    return fresh


def is_image_branch(key: str) -> bool:
    """Whether a parameter belongs to what reads image tokens."""
    return "image_embedder" in key or "add_k_proj" in key or "add_v_proj" in key or "norm_added_k" in key


def first_values(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Numbers of an image branch that did not exist before: it starts to speak only when it is trained.

    Its values are zero, so that nothing is added to the text's answer; the rest is set as a new layer is, so that
    gradients reach the values.
    """
    module, _, leaf = key.rpartition(".")
    if "add_v_proj" in module or leaf == "bias":
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    bound = shape[1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def widened(weight: Tensor, recipe: Recipe, motion: Tensor | None) -> Tensor:
    """The patch embedding ``[D, C, 1, 2, 2]`` with columns for the slots that are new: zeros, or ``motion``'s."""
    parts = [weight]
    for name in recipe.added:
        given = motion if name == "motion" else None
        zeros = weight.new_zeros(weight.shape[0], WIDTHS[name], *weight.shape[2:])
        parts.append(zeros if given is None else given.to(weight.dtype))
    return torch.cat(parts, dim=1)


def motion_columns(weights: Weights) -> Tensor:
    """What a Fun-Control checkpoint has learnt to do with its motion slot: columns 16 to 31."""
    return weights[PATCHES][:, LATENT : 2 * LATENT]


def _check_motion(recipe: Recipe, motion_from: Weights, model: CausalWanTransformer) -> None:
    if "motion" not in recipe.added:
        raise ValueError(f"motion_from: {recipe.title} has a trained motion slot of its own; leave motion_from out")
    dim = model.get_parameter(PATCHES).shape[0]
    shape = motion_from.shapes.get(PATCHES, (0, 0))
    if shape[:2] != (dim, 3 * LATENT):
        raise ValueError(
            f"motion_from: {motion_from.path.name} has a patch_embedding of {list(shape[:2])}, not "
            f"{[dim, 3 * LATENT]}; give Wan2.1-Fun-1.3B-Control"
        )


def _put(model: nn.Module, key: str, tensor: Tensor) -> None:
    module, _, name = key.rpartition(".")
    setattr(model.get_submodule(module), name, nn.Parameter(tensor, requires_grad=False))


def original_state(model: CausalWanTransformer) -> Iterator[tuple[str, Tensor]]:
    """The model's parameters under their original names."""
    for key, parameter in model.named_parameters():
        name = TRACK_HEAD + key.removeprefix(OUR_HEAD) if key.startswith(OUR_HEAD) else to_original(key)
        assert name is not None, key
        yield name, parameter.detach()
