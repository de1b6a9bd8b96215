"""Adapters in the layouts of their trainers do what they do in diffusers' own, or are refused by name."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from ardrag.convert.keys import to_original
from pipelines import ARDragPipeline
from pipelines.hub.adapters import layer_name, our_layout


ALPHA, RANK = 4.0, 2


def add_adapter(transformer):
    torch.manual_seed(3)
    targets = ["to_q", "to_v", "to_out.0", "ffn.net.0.proj", "add_k_proj"]
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, init_lora_weights=False)
    transformer.add_adapter(config)
    return config


@pytest.fixture(scope="module")
def adapted(make_pipeline):
    pipe = make_pipeline()
    config = add_adapter(pipe.transformer)
    return pipe, get_peft_model_state_dict(pipe.transformer), config


def answer(transformer):
    torch.manual_seed(0)
    config = transformer.config
    inputs = torch.randn(1, config.in_channels, 2, 4, 4), torch.tensor([500.0])
    with torch.no_grad():
        return transformer(*inputs, torch.randn(1, 3, config.text_dim), torch.randn(1, 5, config.image_dim)).sample


def original(key):
    """``blocks.0.attn1.to_q.lora_A.weight`` under the layer's name in Wan's own code."""
    layer, part = key.split(".lora_")
    return f"{to_original(layer + '.weight').removesuffix('.weight')}.lora_{part}"


def with_alpha(state):
    """The down and up matrices with an alpha beside them."""
    names = {"lora_A": "lora_down", "lora_B": "lora_up"}
    renamed = {
        f"transformer.{key}".replace("lora_A", names["lora_A"]).replace("lora_B", names["lora_B"]): value
        for key, value in state.items()
    }
    layers = {key.split(".lora_")[0] for key in renamed}
    return renamed | {f"{layer}.alpha": torch.tensor(ALPHA) for layer in layers}


def up_and_down(state, rename):
    """``lora_down`` and ``lora_up`` with an alpha, under the names that ``rename`` gives layers."""
    parts = {"lora_A": "lora_down", "lora_B": "lora_up"}
    found = {}
    for key, value in state.items():
        layer, _, part = key.partition(".lora_")
        found[f"{rename(layer)}.{parts['lora_' + part.split('.')[0]]}.weight"] = value
        found[f"{rename(layer)}.alpha"] = torch.tensor(ALPHA)
    return found


def wan(layer):
    return to_original(f"{layer}.weight").removesuffix(".weight")


LAYOUTS = {
    "kohya": lambda state: up_and_down(state, lambda layer: "lora_unet_" + wan(layer).replace(".", "_")),
    "kohya, diffusers' names": lambda state: up_and_down(state, lambda layer: "lora_unet_" + layer.replace(".", "_")),
    "lightx2v, causvid": lambda state: (
        up_and_down(state, lambda layer: f"diffusion_model.{wan(layer)}")
        | {
            "diffusion_model.blocks.0.norm3.diff": torch.zeros(24),
            "diffusion_model.patch_embedding.diff_b": torch.zeros(24),
        }
    ),
    "comfyui": lambda state: {f"diffusion_model.{original(key)}": value for key, value in state.items()},
    "peft": lambda state: {f"base_model.model.{key}": value for key, value in state.items()},
    "diffsynth": lambda state: {original(k).replace(".weight", ".default.weight"): v for k, v in state.items()},
    "diffsynth, in its pipeline": lambda state: {f"pipe.dit.{original(key)}": value for key, value in state.items()},
    "with an alpha": with_alpha,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_load_as_diffusers_own(make_pipeline, adapted, tmp_path, layout):
    teacher, state, config = adapted
    written = LAYOUTS[layout]({key: value.contiguous() for key, value in state.items()})
    if layout == "peft":
        save_file(written, tmp_path / "adapter_model.safetensors")
        settings = {
            "r": RANK,
            "lora_alpha": ALPHA,
            "target_modules": sorted(config.target_modules),
            "peft_type": "LORA",
        }
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    else:
        save_file(written, tmp_path / "pytorch_lora_weights.safetensors")
    pipe = make_pipeline()
    pipe.load_lora_weights(str(tmp_path))
    if layout.startswith(("diffsynth", "comfyui")):  # these files have no alpha: it is the rank
        pipe.set_adapters(pipe.get_active_adapters(), ALPHA / RANK)
    torch.testing.assert_close(answer(pipe.transformer), answer(teacher.transformer), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(answer(pipe.transformer), answer(make_pipeline().transformer), atol=1e-3)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "lora: the weights given holds nothing"),
        ({"unet.down.0.lora_A.weight": torch.ones(2, 2)}, "has the key unet.down.0.lora_A.weight, which is no LoRA"),
        ({"blocks.0.attn1.to_q.weight": torch.ones(2, 2)}, "has the key blocks.0.attn1.to_q.weight, which is no LoRA"),
        ({"diffusion_model.x.lora_A.weight": torch.ones(2, 2)}, "has the key diffusion_model.x.lora_A.weight"),
        (
            {"lora_unet_blocks_0_mlp.lora_down.weight": torch.ones(2, 2)},
            "has the key lora_unet_blocks_0_mlp.lora_down",
        ),
        (
            {"diffusion_model.blocks.0.norm3.diff": torch.ones(24)},
            "changes blocks.0.norm2 as a whole .* which no adapter",
        ),
        ({"diffusion_model.blocks.0.x.diff_b": torch.ones(24)}, "blocks.0.x.diff_b, which belongs to no layer"),
        (
            {"blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 5120)},
            "lora: blocks.0.attn1.to_q is 5120 wide in the adapter and 24 in this model; .* 14B is 5120",
        ),
        ({"blocks.0.attn1.to_q.lora_B.weight": torch.ones(8, 2)}, "is 8 wide in the adapter and 24 in this model"),
    ],
)
def test_what_is_no_adapter_of_this_model(make_pipeline, state, message):
    pipe = make_pipeline()
    before = set(pipe.transformer.state_dict())
    with pytest.raises(ValueError, match=message):
        pipe.load_lora_weights(state)
    assert set(pipe.transformer.state_dict()) == before


def test_a_layer_that_this_model_lacks(make_pipeline, adapted):
    state = {key.replace("blocks.1", "blocks.7"): value for key, value in adapted[1].items()}
    with pytest.raises(ValueError, match="lora: this model has no layer blocks.7.*was trained for another model"):
        make_pipeline().load_lora_weights(state)


def test_names_of_layers():
    assert layer_name("base_model.model.blocks.3.attn2.add_k_proj") == "blocks.3.attn2.add_k_proj"
    assert layer_name("diffusion_model.blocks.3.cross_attn.k_img") == "blocks.3.attn2.add_k_proj"
    assert layer_name("blocks.3.mlp") is None
    scaled = our_layout(
        {
            "dit.blocks.0.ffn.0.lora_up.weight": torch.ones(3, 2),
            "dit.blocks.0.ffn.0.lora_down.weight": torch.ones(2, 3),
            "dit.blocks.0.ffn.0.alpha": torch.tensor(4.0),
        },
        "lora",
    )
    assert scaled["transformer.blocks.0.ffn.net.0.proj.lora_B.weight"].eq(2).all()
    assert scaled["transformer.blocks.0.ffn.net.0.proj.lora_A.weight"].eq(1).all()


def test_saved_whole_beside_a_model(adapted, tmp_path, monkeypatch):
    """An adapter that is saved into a model's folder leaves the model alone; a full disk leaves the old adapter."""
    pipe, state, _ = adapted
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"a model")
    for _ in range(2):
        ARDragPipeline.save_lora_weights(tmp_path, transformer_lora_layers=state)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == {"diffusion_pytorch_model.safetensors", "pytorch_lora_weights.safetensors"}
    assert len(load_file(tmp_path / "pytorch_lora_weights.safetensors")) == len(state)

    def full_disk(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(ValueError, match="save_directory: .*No space left"):
        ARDragPipeline.save_lora_weights(tmp_path, transformer_lora_layers=state)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_whole_changes_of_a_layer(make_pipeline):
    """A difference of two models, as some files hold it for the last layer and for biases, is added as it is."""
    torch.manual_seed(1)
    pipe, changed = make_pipeline(), make_pipeline()
    weight, bias = torch.randn(changed.transformer.proj_out.weight.shape), torch.randn(24)
    state = {"diffusion_model.head.head.diff": weight, "diffusion_model.blocks.1.ffn.2.diff_b": bias}
    changed.transformer.proj_out.weight += weight
    changed.transformer.blocks[1].ffn.net[2].bias += bias
    pipe.load_lora_weights(state)
    torch.testing.assert_close(answer(pipe.transformer), answer(changed.transformer), atol=1e-5, rtol=1e-4)


def test_scaled_fused_and_unloaded(make_pipeline, adapted):
    """Half the strength, into the weights and out of them again, two at once, and none."""
    _, state, _ = adapted
    pipe, bare = make_pipeline(), make_pipeline()
    plain = answer(bare.transformer)
    pipe.load_lora_weights(with_alpha(state), adapter_name="first")
    pipe.load_lora_weights(with_alpha(state), adapter_name="second")
    whole = {}
    for names, weights in ((["first"], [1.0]), (["first"], [0.5]), (["first", "second"], [0.5, 0.5])):
        pipe.set_adapters(names, weights)
        whole[len(names), weights[0]] = answer(pipe.transformer)
    torch.testing.assert_close(whole[2, 0.5], whole[1, 1.0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(whole[1, 0.5], whole[1, 1.0], atol=1e-3)
    pipe.set_adapters(["first"], [1.0])
    pipe.fuse_lora(lora_scale=0.5, adapter_names=["first"])
    torch.testing.assert_close(answer(pipe.transformer), whole[1, 0.5], atol=1e-5, rtol=1e-4)
    pipe.unfuse_lora()
    pipe.set_adapters(["first"], [1.0])  # diffusers leaves the scale of the fusing on
    torch.testing.assert_close(answer(pipe.transformer), whole[1, 1.0], atol=1e-5, rtol=1e-4)
    pipe.unload_lora_weights()
    torch.testing.assert_close(answer(pipe.transformer), plain, atol=1e-5, rtol=1e-4)
    assert set(pipe.transformer.state_dict()) == set(bare.transformer.state_dict())
