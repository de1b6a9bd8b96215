"""The profile counts what is known: products by their shapes, in the part whose module is at work."""

import types

import pytest
import torch
from torch import nn

from eval.speed.profile import Counting, Part, Watch, profile_lines


class Encoder(nn.Module):
    def forward(self, x):
        return torch.nn.functional.conv2d(x, torch.ones(5, 2, 3, 3), padding=1)


class Denoiser(nn.Module):
    def forward(self, x, update_cache=False):
        return x @ torch.ones(4, 6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_products_are_counted_in_their_part(mode):
    """Also in inference mode, as in sessions, where operations are not taken apart into those that work."""
    encoder, denoiser = Encoder(), Denoiser()
    vae = types.SimpleNamespace(encoder=encoder, decoder=nn.Identity())
    watch = Watch(types.SimpleNamespace(vae=vae, transformer=denoiser))

    def step():
        encoder(torch.ones(1, 2, 7, 8))
        denoiser(torch.ones(3, 4))
        denoiser(torch.ones(2, 4), update_cache=True)

    with mode(), watch.watching():
        watch.latent(step)
        with Counting(watch):
            step()
    parts = watch.parts
    assert parts["encode"].convolution == 2 * 7 * 8 * 5 * 2 * 9 and parts["encode"].matrix == 0
    assert parts["denoise"].matrix == 2 * 3 * 6 * 4 and parts["cache"].matrix == 2 * 2 * 6 * 4
    assert all(len(parts[name].seconds) == 1 for name in ("encode", "denoise", "cache", "between"))
    assert parts["between"].operators >= 3  # the ones that the inputs are made of
    step()
    assert parts["denoise"].matrix == 2 * 3 * 6 * 4  # the hooks are gone


def test_the_floor_is_products_over_rates():
    rates = {"matrix": 2e9, "convolution": 4e9}
    part = Part([0.004, 0.002, 0.003], 7, 2e6, 4e6)
    assert part.floor(rates) == 0.002
    lines = profile_lines({"parts": {"encode": part, "decode": part}, "operators": [("mm", 2.0, 1.5)], "rates": rates})
    assert "| encode | 3.0 | 7 | 0.01 | 2.0 | 0.67 |" in lines and "| all | 6.0 | 14 | 0.01 | 4.0 | 0.67 |" in lines
    assert lines[-1] == "| `mm` | 2 | 1.50 |" and "2 GFLOP/s" in lines[0]
