"""Names of parameters: those of Wan2.1's original files, and diffusers', which are ours.

Each table lists modules; a parameter is a module and ``weight`` or ``bias``, or a table of its own (``modulation``).
The feed-forward's norm and the cross-attention's change numbers between the two: ``norm3`` there is ``norm2`` here.
"""

from __future__ import annotations

import re


_MODEL = {
    "patch_embedding": "patch_embedding",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_BLOCK = {
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "self_attn.norm_q": "attn1.norm_q",
    "self_attn.norm_k": "attn1.norm_k",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "cross_attn.norm_q": "attn2.norm_q",
    "cross_attn.norm_k": "attn2.norm_k",
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
_BACK_MODEL = {ours: original for original, ours in _MODEL.items()}
_BACK_BLOCK = {ours: original for original, ours in _BLOCK.items()}
_KOHYA, _KOHYA_BLOCK = (
    {name.replace(".", "_"): ours for there, ours in table.items() for name in (there, ours)}
    for table in (_MODEL, _BLOCK)
)
_BLOCK_KEY = re.compile(r"blocks\.(\d+)\.(.+)")
_WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|module)\.")


def to_ours(key: str) -> str | None:
    """Our name of an original parameter, or None for one that Wan2.1's transformer does not have."""
    return _renamed(key, _MODEL, _BLOCK)


def to_original(key: str) -> str | None:
    """The original name of one of our parameters, or None for one that the original does not have."""
    return _renamed(key, _BACK_MODEL, _BACK_BLOCK)


def is_ours(key: str) -> bool:
    """Whether ``key`` is one of our (diffusers') names."""
    return to_original(key) is not None


def from_kohya(layer: str) -> str | None:
    """Our name of a layer whose name has underscores for dots, as kohya's trainers write it, or None."""
    match = re.fullmatch(r"blocks_(\d+)_(.+)", layer)
    return f"blocks.{match[1]}.{_KOHYA_BLOCK[match[2]]}" if match and match[2] in _KOHYA_BLOCK else _KOHYA.get(layer)


def bare(key: str) -> str:
    """``key`` without what training wrapped around the model: sharding, recomputation, compilation, a prefix."""
    key = _WRAPPERS.sub("", key)
    for prefix in ("model.diffusion_model.", "diffusion_model.", "model."):
        key = key.removeprefix(prefix)
    return key


def _renamed(key: str, model: dict[str, str], block: dict[str, str]) -> str | None:
    match = _BLOCK_KEY.fullmatch(key)
    rest, table, start = (match[2], block, f"blocks.{match[1]}.") if match else (key, model, "")
    if rest in table:
        return start + table[rest]
    module, _, leaf = rest.rpartition(".")
    return f"{start}{table[module]}.{leaf}" if leaf in ("weight", "bias") and module in table else None
