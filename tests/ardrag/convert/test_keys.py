"""Names of parameters there and back, against diffusers' own converter."""

import pytest

from ardrag.convert.keys import bare, from_kohya, is_ours, to_original, to_ours
from tests.wan_files import diffusers_state, original_shapes, original_state


def test_every_name_goes_where_diffusers_puts_it():
    state = original_state(48, image=True)
    there = {id(tensor): key for key, tensor in diffusers_state(state).items()}
    for key, tensor in state.items():
        assert to_ours(key) == there[id(tensor)]


def test_there_and_back():
    names = list(original_shapes(36, image=True))
    ours = [to_ours(key) for key in names]
    assert len(set(ours)) == len(names) and [to_original(key) for key in ours] == names
    assert all(is_ours(key) for key in ours)
    both = {key for key in names if is_ours(key)}
    assert both == {"patch_embedding.weight", "patch_embedding.bias"}


@pytest.mark.parametrize("key", ["ref_conv.weight", "blocks.0.norm1.weight", "head.head.scale", "blocks.x.modulation"])
def test_names_that_wan_does_not_have(key):
    assert to_ours(key) is None and to_original(key) is None


@pytest.mark.parametrize(
    "wrapped",
    [
        "model.blocks.0.ffn.0.weight",
        "model._fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.ffn.0.weight",
        "_orig_mod.model.diffusion_model.blocks.0._checkpoint_wrapped_module.ffn.0.weight",
    ],
)
def test_wrappers_of_training_come_off(wrapped):
    assert bare(wrapped) == "blocks.0.ffn.0.weight"


def test_names_with_underscores_for_dots():
    for key in original_shapes(48, image=True):
        if key.endswith(".weight"):
            layer, ours = key.removesuffix(".weight"), to_ours(key).removesuffix(".weight")
            assert from_kohya(layer.replace(".", "_")) == from_kohya(ours.replace(".", "_")) == ours
    assert from_kohya("blocks_0_mlp") is None and from_kohya("up_blocks_0") is None
