"""Inception of FID: its numbers are pytorch-fid's, its weights are checked."""

import pytest
import torch

from eval.metrics.inception import FEATURES, Inception, load_inception


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = Inception().eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.5, 1.5)
    return made


@pytest.fixture(scope="module")
def pictures():
    return torch.randint(0, 256, (2, 3, 96, 128), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_same_features_as_pytorch_fid(network, pictures):
    """Golden: `pytorch_fid.inception.InceptionV3` (0.3.0, torchvision 0.29) gives the same with these weights."""
    with torch.no_grad():
        found = network(pictures)
    assert found.shape == (2, FEATURES)
    golden = [0.0342161693, 0.0509561636, 0.0176362246, 0.0243154205]
    assert found[0, [0, 700, 1400, 2047]].tolist() == pytest.approx(golden, rel=1e-4)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="inception: .*other.pth does not hold the Inception network"):
        load_inception(tmp_path / "other.pth")
    with pytest.raises(ValueError, match="inception: the weights cannot be had"):
        load_inception(tmp_path / "missing.pth")


def test_published_names_load_without_the_classifier(network, tmp_path):
    state = {**network.state_dict(), "fc.weight": torch.zeros(1008, FEATURES), "fc.bias": torch.zeros(1008)}
    torch.save(state, tmp_path / "weights.pth")
    loaded = load_inception(tmp_path / "weights.pth")
    assert torch.equal(loaded.Mixed_7c.branch_pool.conv.weight, network.Mixed_7c.branch_pool.conv.weight)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
