"""Files of checkpoints: read one tensor at a time, and refused in one sentence."""

import os

import pytest
import torch

from ardrag.convert.reading import open_weights
from tests.wan_files import original_state, save, save_shards


class Calls:
    """What a malicious pickle does when it is opened."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def state():
    return original_state(16, image=False, dtype=torch.bfloat16)


def assert_same(weights, state):
    assert set(weights) == set(state) and len(weights) == len(state)
    for key, tensor in state.items():
        assert weights.shapes[key] == tuple(tensor.shape)
        assert weights[key].dtype == tensor.dtype and torch.equal(weights[key], tensor)


def test_one_file_a_folder_and_shards_are_the_same(state, tmp_path):
    one = save(state, tmp_path / "diffusion_pytorch_model.safetensors")
    assert_same(open_weights(one), state)
    assert_same(open_weights(tmp_path), state)
    save_shards(state, tmp_path / "shards")
    assert_same(open_weights(tmp_path / "shards"), state)


def test_students_lie_in_a_pickle_beside_others(state, tmp_path):
    wrapped = {f"model._fsdp_wrapped_module.{key}": tensor for key, tensor in state.items()}
    other = {key: tensor + 1 for key, tensor in wrapped.items()}
    torch.save({"generator": other, "generator_ema": wrapped, "critic": other, "step": 600}, tmp_path / "model.pt")
    assert_same(open_weights(tmp_path / "model.pt"), state)
    chosen = open_weights(tmp_path, "generator")
    assert torch.equal(chosen["head.modulation"], state["head.modulation"] + 1)
    with pytest.raises(ValueError, match="weights: model.pt holds no 'ema'"):
        open_weights(tmp_path, "ema")


def test_a_pickle_that_wants_to_run_code_is_not_read(tmp_path):
    torch.save({"generator": Calls(tmp_path / "ran")}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="source: model.pt is a pickle of more than tensors .* ask its author"):
        open_weights(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_files_that_are_cut_off(state, tmp_path, name):
    file = tmp_path / name
    torch.save(state, file) if file.suffix == ".pt" else save(state, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"source: {name} is cut off or damaged; download it again"):
        open_weights(file)


def test_a_shard_that_is_missing_or_an_index_that_is_none(state, tmp_path):
    files = save_shards(state, tmp_path)
    files[1].unlink()
    with pytest.raises(ValueError, match="lacks the shard diffusion_pytorch_model-00002-of-00003"):
        open_weights(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("{")
    with pytest.raises(ValueError, match="index.json is cut off"):
        open_weights(tmp_path)


@pytest.mark.parametrize(("kind", "said"), [(torch.int8, "I8"), (torch.float8_e4m3fn, "F8_E4M3")])
def test_quantised_numbers_are_refused(state, tmp_path, kind, said):
    save({**state, "blocks.0.ffn.0.weight": state["blocks.0.ffn.0.weight"].to(kind)}, tmp_path / "q.safetensors")
    with pytest.raises(ValueError, match=rf"blocks\.0\.ffn\.0\.weight is in {said}, a quantised"):
        open_weights(tmp_path / "q.safetensors")


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="does not exist; give a file, a folder"):
        open_weights(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds neither safetensors nor a .pt file"):
        open_weights(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"weights\.bin is not \.safetensors"):
        open_weights(tmp_path / "weights.bin")
    torch.save({"step": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds no weights of a model"):
        open_weights(tmp_path / "a.pt")
    torch.save({"x": torch.ones(1), "model.x": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds x twice"):
        open_weights(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    with pytest.raises(ValueError, match=r"holds a\.pt and 1 more like it; name the file"):
        open_weights(tmp_path)
