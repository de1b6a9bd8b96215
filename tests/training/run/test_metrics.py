"""What is measured of a run: counted arithmetic, speed over all processes, gradients of terms in closed form."""

import math
from types import SimpleNamespace

import pytest
import torch

from training.run import metrics
from training.run.metrics import Meter, memory_gib, peak_of, term_gradients


CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    return now


def test_speed_is_that_of_all_processes_since_the_last_reading(clock):
    meter = Meter(SimpleNamespace(num_processes=4, device=CPU))
    for _ in range(2):
        for _ in range(3):
            meter.begin("step")
            meter.add(torch.zeros(2, 16, 5, 8, 6), patch=4)
            meter.end()
        clock[0] += 12
        found = meter.read()
        assert found["time/samples_per_second"] == 4 * 3 * 2 / 12
        assert found["time/tokens_per_second"] == 4 * 3 * 2 * 5 * 8 * 6 / 4 / 12
        assert "time/mfu" not in found and 0.01 < found["time/memory_gib"] < 100


def test_arithmetic_is_counted_once_for_each_kind_of_step(clock, monkeypatch):
    monkeypatch.setattr(metrics, "peak_of", lambda device: 1000.0)
    meter = Meter(SimpleNamespace(num_processes=1, device=CPU))
    weight = torch.randn(6, 7, requires_grad=True)
    for kind, rows in (("small", 5), ("large", 10), ("small", 5), ("small", 5)):
        meter.begin(kind)
        (torch.randn(rows, 6) @ weight).sum().backward()  # 2 m k n forward, and as much for the weight
        meter.end()
    clock[0] += 10
    assert meter.read()["time/mfu"] == pytest.approx((3 * 5 + 10) * 2 * 2 * 6 * 7 / 10 / 1000)


def test_peaks_are_of_devices_that_are_known(monkeypatch):
    assert peak_of(CPU) is None
    for name, peak in (("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("Something else", None)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_of(torch.device("cuda")) == peak


def test_memory_is_the_most_there_was():
    before = memory_gib(CPU)
    block = torch.ones(2**27)  # half a GiB
    assert memory_gib(CPU) >= before and block.numel() == 2**27


def test_gradients_of_terms():
    at = torch.tensor([1.0, 2.0], requires_grad=True)
    terms = {"a": 3 * at[0], "b": 4 * at[0] + 3 * at[1], "none": 0 * at[0]}
    found = term_gradients(terms, at)
    assert (found["pull/a"], found["pull/b"], found["pull/none"]) == pytest.approx((3, 5, 0))
    assert found["pull/cosine_a_b"] == pytest.approx(4 / 5) and math.isnan(found["pull/cosine_a_none"])
    sum(terms.values()).backward()  # the graph is still there
    assert at.grad.tolist() == [7, 3]
