"""A folder that lacks a tensor is refused by its name, whichever component; what is tied or renamed is not missed."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ardrag.transformer import CausalWanTransformer
from pipelines import ARDragPipeline
from pipelines.hub.complete import missing_tensors, saved_names


@pytest.fixture
def folder(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def drop_tensor(folder):
    """Take one tensor out of the only file of a component; returns its name."""
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    gone = sorted(tensors)[len(tensors) // 2]
    del tensors[gone]
    save_file(tensors, file, {"format": "pt"})
    return gone


@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder", "image_encoder"])
def test_a_missing_tensor_is_named(folder, component):
    gone = drop_tensor(folder / component)
    with pytest.raises(ValueError, match=rf"(?s){component}.* lacks {gone}; its files are not whole") as error:
        ARDragPipeline.from_pretrained(folder)
    assert type(error.value) is ValueError


def test_a_part_that_is_given_need_not_be_whole(folder, pipeline):
    drop_tensor(folder / "vae")
    assert ARDragPipeline.from_pretrained(folder, vae=pipeline.vae).vae is pipeline.vae


def test_the_transformer_alone(folder):
    model, info = CausalWanTransformer.from_pretrained(folder / "transformer", output_loading_info=True)
    assert not info["missing_keys"] and not any(p.is_meta for p in model.parameters())
    gone = drop_tensor(folder / "transformer")
    with pytest.raises(ValueError, match=f"CausalWanTransformer in .* lacks {gone}"):
        CausalWanTransformer.from_pretrained(folder, subfolder="transformer")


def test_a_variant_is_checked_by_its_own_files(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path, variant="fp16")
    ARDragPipeline.from_pretrained(tmp_path, variant="fp16")
    assert "shared.weight" in saved_names(tmp_path / "text_encoder", "fp16")
    assert not saved_names(tmp_path / "text_encoder", None)


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        self.second.weight = self.first.weight


@pytest.mark.parametrize(
    ("saved", "missing"),
    [
        ({"first.weight", "first.bias", "second.bias"}, []),
        ({"tower.first.weight", "tower.first.bias", "tower.second.bias"}, []),
        ({"first.bias", "second.weight"}, ["second.bias"]),
        ({"first.bias", "second.bias"}, ["first.weight", "second.weight"]),
    ],
)
def test_tied_and_renamed_tensors(saved, missing):
    assert sorted(missing_tensors(Tower(), saved)) == missing
