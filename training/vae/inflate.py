"""From single frames to clips: start the temporal layers as if every frame were alone.

Single frames train the last tap of each causal convolution only, and no temporal resampling at all: the other taps are
still the noise that they were made of, and the first clips would shake the whole network.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import nn


@torch.no_grad()
def inflate(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """Zero what single frames have not trained, make temporal resampling copy frames, in place; returns ``vae``."""
    for name, module in vae.named_modules():
        if not isinstance(module, WanCausalConv3d):
            continue
        module.weight[:, :, :-1] = 0
        if name.endswith("time_conv"):
            outputs, inputs = module.weight.shape[:2]
            nn.init.dirac_(module.weight[:, :, -1:], groups=outputs // inputs)
            module.bias.zero_()
    return vae
