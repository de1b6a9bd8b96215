"""A stand-in accelerator: after `install()` PyTorch has the device "hpu" on a machine without one.

Its memory and kernels are the CPU's, but it is not the CPU: tensors of the two cannot meet, exactly as with CUDA. So
placement, offloading, caches and generators are tested anywhere. It says nothing about speed, streams or a real
device's numerics. It is for processes of its own (`python -m pytest -m standin`): diffusers believes in it then.
"""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import torch


ANSWERS: dict[str, Any] = {
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "is_initialized": True,
    "_is_in_bad_fork": False,
    "is_bf16_supported": True,
    "get_device_name": "stand-in",
    "memory_allocated": 0,
    "max_memory_allocated": 0,
    "memory_reserved": 0,
    "mem_get_info": (8 << 30, 8 << 30),
    "get_amp_supported_dtype": [torch.float16, torch.bfloat16],
    "get_device_properties": types.SimpleNamespace(total_memory=8 << 30, name="stand-in"),
}
SILENT = ["set_device", "synchronize", "empty_cache", "manual_seed", "manual_seed_all", "set_rng_state", "_lazy_init"]


def build() -> None:
    """Compile and load the device; half a minute, once. The result is kept in STANDIN_BUILD or the user's cache.

    Raises:
        OSError, RuntimeError: without a C++ compiler or ninja.
    """
    from torch.utils import cpp_extension

    cache = Path.home() / ".cache" / "standin-device" / torch.__version__
    folder = Path(os.environ.get("STANDIN_BUILD") or cache)
    folder.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).with_name("device.cpp")
    cpp_extension.load("standin_device", [str(source)], build_directory=str(folder), extra_cflags=["-O1"])


def install() -> torch.device:
    """Make the device known to PyTorch and diffusers, for the rest of the process.

    Raises:
        OSError, RuntimeError: as `build`.
    """
    from diffusers.utils import torch_utils

    build()
    module: Any = types.ModuleType("torch.hpu")
    for name, answer in ANSWERS.items():
        setattr(module, name, lambda *_, answer=answer, **__: answer)
    for name in (*SILENT, "reset_peak_memory_stats"):
        setattr(module, name, lambda *_, **__: None)
    module.get_rng_state = lambda *_: torch.get_rng_state()
    torch._register_device_module("hpu", module)
    sys.modules["torch.hpu"] = module
    torch_utils.TorchDeviceBackend._detect_device_type = staticmethod(lambda *_: "hpu")  # it asks a fixed list
    return torch.device("hpu")
