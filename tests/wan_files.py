"""Checkpoints in the exact public layouts, small and random: names and shapes as Wan2.1's own code makes them."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


DIM, FFN, LAYERS, TEXT, FREQ, IMAGE, HEAD = 256, 96, 2, 24, 32, 80, 128


def original_shapes(in_dim: int, image: bool, dim: int = DIM, out_dim: int = 16) -> dict[str, tuple[int, ...]]:
    """`WanModel`'s state dict (Wan2.1's `model.py`; VideoX-Fun's is the same)."""

    def linear(name: str, wide: int, narrow: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (wide, narrow), f"{name}.bias": (wide,)}

    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (dim, in_dim, 1, 2, 2),
        "patch_embedding.bias": (dim,),
        **linear("text_embedding.0", dim, TEXT),
        **linear("text_embedding.2", dim, dim),
        **linear("time_embedding.0", dim, FREQ),
        **linear("time_embedding.2", dim, dim),
        **linear("time_projection.1", 6 * dim, dim),
        "head.modulation": (1, 2, dim),
        **linear("head.head", 4 * out_dim, dim),
    }
    for i in range(LAYERS):
        block = f"blocks.{i}"
        shapes[f"{block}.modulation"] = (1, 6, dim)
        for part in ("self_attn", "cross_attn"):
            for name in "qkvo":
                shapes |= linear(f"{block}.{part}.{name}", dim, dim)
            shapes |= {f"{block}.{part}.norm_{name}.weight": (dim,) for name in "qk"}
        shapes |= {f"{block}.norm3.weight": (dim,), f"{block}.norm3.bias": (dim,)}
        shapes |= linear(f"{block}.ffn.0", FFN, dim) | linear(f"{block}.ffn.2", dim, FFN)
        if image:
            for name in ("k_img", "v_img"):
                shapes |= linear(f"{block}.cross_attn.{name}", dim, dim)
            shapes[f"{block}.cross_attn.norm_k_img.weight"] = (dim,)
    if image:
        shapes |= {f"img_emb.proj.{i}.{leaf}": (IMAGE,) for i in (0,) for leaf in ("weight", "bias")}
        shapes |= linear("img_emb.proj.1", IMAGE, IMAGE) | linear("img_emb.proj.3", dim, IMAGE)
        shapes |= {f"img_emb.proj.4.{leaf}": (dim,) for leaf in ("weight", "bias")}
    return shapes


def original_state(
    in_dim: int, image: bool, dtype: torch.dtype = torch.float32, seed: int = 0, **sizes: int
) -> dict[str, torch.Tensor]:
    """Random numbers for `original_shapes`: norms about 1, the rest small enough to stay finite."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in original_shapes(in_dim, image, **sizes).items():
        values = 0.05 * torch.randn(shape, generator=generator)
        is_norm = "norm" in key or "proj.0." in key or "proj.4." in key
        state[key] = (values + 1 if is_norm and key.endswith("weight") else values).to(dtype)
    return state


def diffusers_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same checkpoint under diffusers' names, by diffusers' own converter."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    return convert_wan_transformer_to_diffusers(dict(state))


def diffusers_model(state: dict[str, torch.Tensor]) -> Any:
    """The original computation: diffusers' `WanTransformer3DModel` with the checkpoint's numbers."""
    from diffusers import WanTransformer3DModel

    dim, in_dim = state["patch_embedding.weight"].shape[:2]
    has_image = "img_emb.proj.0.weight" in state
    model = WanTransformer3DModel(
        num_attention_heads=dim // HEAD,
        attention_head_dim=HEAD,
        in_channels=in_dim,
        out_channels=16,
        text_dim=TEXT,
        freq_dim=FREQ,
        ffn_dim=FFN,
        num_layers=LAYERS,
        image_dim=IMAGE if has_image else None,
        added_kv_proj_dim=dim if has_image else None,
    )
    missing, unexpected = model.load_state_dict(diffusers_state(state), strict=False)
    assert not unexpected and all("norm_added_q" in key for key in missing), (missing, unexpected)
    return model.eval()


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    save_file(state, path)
    return path


def save_shards(state: dict[str, torch.Tensor], folder: Path, count: int = 3) -> list[Path]:
    """A sharded checkpoint with its index, as diffusers writes one."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    keys, weight_map, files = sorted(state), {}, []
    for i in range(count):
        name = f"diffusion_pytorch_model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = keys[i::count]
        files.append(save({key: state[key] for key in part}, folder / name))
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return files


VAE_FILE = "Wan2.1_VAE.pth"
TEXT_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
IMAGE_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"


def small_vae() -> Any:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(1)
    return AutoencoderKLWan(base_dim=8, z_dim=16).eval()


def small_text_encoder(vocabulary: int = 300) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(2)
    sizes = {"d_model": TEXT, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 3}
    config = UMT5Config(vocab_size=vocabulary, feed_forward_proj="gated-gelu", is_encoder_decoder=False, **sizes)
    return UMT5EncoderModel(config).eval()


def small_image_encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(3)
    sizes = {"hidden_size": IMAGE, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 1}
    return CLIPVisionModel(CLIPVisionConfig(image_size=28, patch_size=14, hidden_act="gelu", **sizes)).eval()


def original_vae(vae: Any) -> dict[str, torch.Tensor]:
    """diffusers' VAE under the names of Wan2.1's `vae.py`, where blocks are numbered through."""
    inner = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
    inner |= {"conv_shortcut": "shortcut"}
    outer = {"quant_conv": "conv1", "post_quant_conv": "conv2", "norm_out": "head.0", "conv_out": "head.2"}
    outer |= {"conv_in": "conv1"}
    state = {}
    for key, tensor in vae.state_dict().items():
        parts = key.split(".")
        for table in (inner, outer):
            parts = [table.get(part, part) for part in parts]
        name = ".".join(parts)
        name = name.replace(".mid_block.resnets.0.", ".middle.0.").replace(".mid_block.resnets.1.", ".middle.2.")
        name = name.replace(".mid_block.attentions.0.", ".middle.1.").replace(".down_blocks.", ".downsamples.")
        name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"upsamples.{4 * int(m[1]) + 3}", name)
        state[name] = tensor
    return state


def original_text_encoder(model: Any) -> dict[str, torch.Tensor]:
    """A UMT5 encoder under the names of Wan2.1's `t5.py`."""
    names = {
        "layer.0.layer_norm": "norm1",
        "layer.1.layer_norm": "norm2",
        "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
        "layer.0.SelfAttention.": "attn.",
        "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
        "layer.1.DenseReluDense.wi_1": "ffn.fc1",
        "layer.1.DenseReluDense.wo": "ffn.fc2",
        "encoder.block.": "blocks.",
        "encoder.final_layer_norm": "norm",
        "shared": "token_embedding",
    }
    state = {}
    for key, tensor in model.state_dict().items():
        for here, there in names.items():
            key = key.replace(here, there)
        if "embed_tokens" not in key:
            state[key] = tensor
    return state


def original_image_encoder(model: Any) -> dict[str, torch.Tensor]:
    """A CLIP vision tower under the names of Wan2.1's `clip.py`, beside something of the text tower."""
    names = {
        "embeddings.patch_embedding": "patch_embedding",
        "embeddings.position_embedding.weight": "pos_embedding",
        "embeddings.class_embedding": "cls_embedding",
        "pre_layrnorm": "pre_norm",
        "post_layernorm": "post_norm",
        "encoder.layers": "transformer",
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.out_proj": "attn.proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
    }
    state: dict[str, torch.Tensor] = {"log_scale": torch.ones(()), "textual.head.weight": torch.ones(2, 2)}
    held = {key.removeprefix("vision_model."): value for key, value in model.state_dict().items()}
    for key, tensor in held.items():
        for here, there in names.items():
            key = key.replace(here, there)
        if ".k_proj." in key or ".v_proj." in key or "position_ids" in key:
            continue
        if ".q_proj." in key:
            layer, leaf = key.split(".")[1], key.rpartition(".")[2]
            parts = [held[f"encoder.layers.{layer}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            key, tensor = f"transformer.{layer}.attn.to_qkv.{leaf}", torch.cat(parts)
        state[f"visual.{key}"] = tensor[None] if key == "pos_embedding" else tensor
    state["visual.cls_embedding"] = state["visual.cls_embedding"].reshape(1, 1, -1)
    state["visual.head"] = torch.ones(4, 4)
    return state


def save_originals(folder: Path) -> Path:
    """VAE, encoders and tokenizer beside each other, as Wan2.1's own repositories have them."""
    from training.run.tiny import train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(["a red star moves right", "a blue circle"], vocab_size=300)
    tokenizer.save_pretrained(folder / "google" / "umt5-xxl")
    torch.save(original_vae(small_vae()), folder / VAE_FILE)
    torch.save(original_text_encoder(small_text_encoder(len(tokenizer))), folder / TEXT_FILE)
    torch.save(original_image_encoder(small_image_encoder()), folder / IMAGE_FILE)
    return folder


def inputs_for(channels: int, image: int | None, frames: int = 3, side: int = 4) -> dict[str, torch.Tensor]:
    """Arguments of a forward pass, ``image`` the width of image tokens; 512 text tokens, which diffusers counts on."""
    generator = torch.Generator().manual_seed(5)
    found = {
        "hidden_states": torch.randn(1, channels, frames, side, side, generator=generator),
        "timestep": torch.tensor([700.0]),
        "encoder_hidden_states": torch.randn(1, 512, TEXT, generator=generator),
    }
    if image:
        found["encoder_hidden_states_image"] = torch.randn(1, 5, image, generator=generator)
    return found
