"""Wan2.1's original VAE, text and image encoder files, as the diffusers and transformers models that a pipeline has.

Sizes are read off the shapes. Heads are the originals': 80 wide in the image encoder, as many as the text encoder's
table of distances has columns.
"""

from __future__ import annotations

import re
from typing import Any

from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from torch import Tensor, nn

from ardrag.convert.reading import Weights


CLIP_HEAD = 80
_TEXT_BLOCK = {
    "norm1": "layer.0.layer_norm",
    "norm2": "layer.1.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
_IMAGE_MODEL = {
    "cls_embedding": "embeddings.class_embedding",
    "pos_embedding": "embeddings.position_embedding.weight",
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "pre_norm.weight": "pre_layrnorm.weight",
    "pre_norm.bias": "pre_layrnorm.bias",
    "post_norm.weight": "post_layernorm.weight",
    "post_norm.bias": "post_layernorm.bias",
}
_IMAGE_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def convert_vae(weights: Weights) -> AutoencoderKLWan:
    """`Wan2.1_VAE.pth`.

    Raises:
        ValueError: if it is not Wan2.1's VAE.
    """
    base = weights.shapes.get("encoder.conv1.weight", (96,))[0]
    latent = weights.shapes.get("conv2.weight", (16,))[0]
    with init_empty_weights():
        vae = AutoencoderKLWan(base_dim=base, z_dim=latent)
    state = convert_wan_vae_to_diffusers({key: weights[key] for key in weights})
    return _filled(vae, state, weights)


def convert_text_encoder(weights: Weights) -> Any:
    """`models_t5_umt5-xxl-enc-bf16.pth` as a `UMT5EncoderModel`.

    Raises:
        ValueError: if it is not Wan2.1's text encoder.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    shapes = weights.shapes
    vocabulary, width = shapes.get("token_embedding.weight", (1, 1))
    buckets, heads = shapes.get("blocks.0.pos_embedding.embedding.weight", (1, 1))
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=shapes.get("blocks.0.attn.q.weight", (heads,))[0] // heads,
        d_ff=shapes.get("blocks.0.ffn.fc1.weight", (1,))[0],
        num_layers=_blocks(shapes, r"blocks\.(\d+)\."),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    state: dict[str, Tensor] = {}
    for key in weights:
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)\.weight", key)
        if match and match[2] in _TEXT_BLOCK:
            state[f"encoder.block.{match[1]}.{_TEXT_BLOCK[match[2]]}.weight"] = weights[key]
        elif key == "token_embedding.weight":
            state["shared.weight"] = state["encoder.embed_tokens.weight"] = weights[key]
        elif key == "norm.weight":
            state["encoder.final_layer_norm.weight"] = weights[key]
        else:
            raise _unknown(weights, key)
    with init_empty_weights():
        model = UMT5EncoderModel(config)
    return _filled(model, state, weights)


def convert_image_encoder(weights: Weights) -> Any:
    """The vision half of `models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth` as a `CLIPVisionModel`.

    Raises:
        ValueError: if it is not Wan2.1's image encoder.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModel

    shapes = weights.shapes
    width, _, patch, _ = shapes.get("visual.patch_embedding.weight", (CLIP_HEAD, 3, 14, 14))
    tokens = shapes.get("visual.pos_embedding", (1, 257, width))[1] - 1
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=shapes.get("visual.transformer.0.mlp.0.weight", (1,))[0],
        num_hidden_layers=_blocks(shapes, r"visual\.transformer\.(\d+)\."),
        num_attention_heads=width // CLIP_HEAD,
        image_size=patch * round(tokens**0.5),
        patch_size=patch,
        hidden_act="gelu",
    )
    state: dict[str, Tensor] = {}
    for key in weights:
        if key.startswith("visual.") and not key.startswith("visual.head"):
            state.update(_image_parts(key.removeprefix("visual."), weights, key))
    with init_empty_weights():
        model = CLIPVisionModel(config)
    names = set(dict(model.named_parameters()))
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in names) else ""
    return _filled(model, {prefix + name: tensor for name, tensor in state.items()}, weights)


def _image_parts(name: str, weights: Weights, key: str) -> dict[str, Tensor]:
    """One parameter of the vision tower under its new name or names."""
    tensor = weights[key]
    if name in _IMAGE_MODEL:
        table = name in ("cls_embedding", "pos_embedding")
        return {_IMAGE_MODEL[name]: tensor.flatten() if name == "cls_embedding" else tensor[0] if table else tensor}
    match = re.fullmatch(r"transformer\.(\d+)\.(.+)\.(weight|bias)", name)
    if match and match[2] == "attn.to_qkv":
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"encoder.layers.{match[1]}.self_attn.{p}_proj.{match[3]}": part.clone() for p, part in parts}
    if match and match[2] in _IMAGE_BLOCK:
        return {f"encoder.layers.{match[1]}.{_IMAGE_BLOCK[match[2]]}.{match[3]}": tensor}
    raise _unknown(weights, key)


def _blocks(shapes: dict[str, tuple[int, ...]], pattern: str) -> int:
    found = [int(match[1]) for match in (re.match(pattern, key) for key in shapes) if match]
    return 1 + max(found, default=0)


def _unknown(weights: Weights, key: str) -> ValueError:
    return ValueError(
        f"components: {weights.path.name} holds {key}, which the original does not have; give Wan2.1's file"
    )


def _filled(model: nn.Module, state: dict[str, Tensor], weights: Weights) -> Any:
    """``model`` with the numbers of ``state``, which must be all of them and of the right shapes."""
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    wrong = sorted(key for key in wanted if key not in state or tuple(state[key].shape) != wanted[key])
    wrong += sorted(set(state) - set(wanted))
    if wrong:
        raise ValueError(
            f"components: {weights.path.name} does not hold {wrong[0]} as the original has it; give Wan2.1's own file"
        )
    model.load_state_dict(state, assign=True)
    return model.eval()
