"""Feature spaces of the distribution distances, and how a clip is shown to them.

| space | frames (FID, KID) | clips (FVD, KVD) |
|---|---|---|
| `sprite` | bundled network, as they are | bundled network, windows of 16 frames at half size |
| `standard` | Inception of pytorch-fid, resized to 299 | I3D (Kinetics-400, 400 logits), resized to 224x224 |

Distances in the first are called FID-sprite and so on. The paper does not say which FVD it reports; ours shows each
clip whole, every frame, to the I3D torchscript of StyleGAN-V.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ardrag.judges.sprite_features import load_features
from eval.metrics.inception import load_inception


Float = npt.NDArray[np.float32]
FRAMES_PER_CLIP = 8
"""Pixel frames of a clip that FID sees, evenly spread over all but the given first one."""
I3D_REPOSITORY, I3D_FILE = "flateon/FVD-I3D-torchscript", "i3d_torchscript.pt"
I3D_SIDE, I3D_SHORTEST = 224, 10


class FeatureSpace(Protocol):
    """Two networks."""

    shortest: int
    """Fewest pixel frames of a clip."""

    def frame_features(self, frames: Tensor) -> Tensor:
        """Features ``[N, D]`` of pictures uint8 ``[N, 3, H, W]``."""
        ...

    def clip_features(self, video: Tensor) -> Tensor:
        """Features ``[D]`` of one clip uint8 ``[T, 3, H, W]``."""
        ...


class SpriteSpace:
    """The bundled network of Sprite World."""

    def __init__(self) -> None:
        self.network = load_features()
        self.shortest = int(self.network.config.window)

    @torch.no_grad()
    def frame_features(self, frames: Tensor) -> Tensor:
        """See `FeatureSpace`."""
        return self.network.frame_features(frames)

    def clip_features(self, video: Tensor) -> Tensor:
        """See `FeatureSpace`."""
        return self.network.clip_features(video)


class StandardSpace:
    """Inception and I3D.

    Args:
        inception: file of pytorch-fid's weights; None downloads them.
        i3d: torchscript file; None takes it from the Hub.
        device: where they run.

    Raises:
        ValueError: if a network cannot be had.
    """

    shortest = I3D_SHORTEST

    def __init__(
        self, inception: str | Path | None = None, i3d: str | Path | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.inception = load_inception(inception, device)
        self.i3d = torch.jit.load(_i3d_file(i3d), map_location=device).eval()

    @torch.no_grad()
    def frame_features(self, frames: Tensor) -> Tensor:
        """See `FeatureSpace`."""
        return self.inception(frames.to(self.device)).cpu()

    @torch.no_grad()
    def clip_features(self, video: Tensor) -> Tensor:
        """See `FeatureSpace`."""
        pixels = video.to(self.device).float() / 127.5 - 1
        resized = F.interpolate(pixels, size=(I3D_SIDE, I3D_SIDE), mode="bilinear", align_corners=False)
        batch = resized.transpose(0, 1)[None]  # [1, 3, T, 224, 224]
        features: Tensor = self.i3d(batch, rescale=False, resize=False, return_features=True)
        return features[0].cpu()


def _i3d_file(path: str | Path | None) -> str:
    if path is not None:
        if not Path(path).is_file():
            raise ValueError(f"i3d: {path} is no file; give {I3D_FILE} of {I3D_REPOSITORY}")
        return str(path)
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(I3D_REPOSITORY, I3D_FILE)
    except OSError as error:
        raise ValueError(
            f"i3d: {I3D_FILE} cannot be had from {I3D_REPOSITORY} ({error}); give a local file"
        ) from error


def features_of(space: FeatureSpace, frames: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Packed features of one video uint8 ``[T, H, W, 3]``: ``frames`` ``[N, D]`` and ``clip`` ``[D]``.

    Raises:
        ValueError: if the video is too short for the space.
    """
    if len(frames) < space.shortest:
        raise ValueError(f"frames: {len(frames)}; distances between clips need at least {space.shortest} in each")
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    chosen = np.linspace(1, len(frames) - 1, FRAMES_PER_CLIP).round().astype(int)
    return {
        "frames": pack(space.frame_features(video[chosen]).float().numpy()),
        "clip": pack(space.clip_features(video).float().numpy()),
    }


def pack(values: Float) -> dict[str, Any]:
    """An array as JSON: shape and base64 of little-endian float32."""
    data = base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")
    return {"shape": list(values.shape), "float32": data}


def unpack(packed: dict[str, Any]) -> Float:
    """The array again."""
    return np.frombuffer(base64.b64decode(packed["float32"]), "<f4").reshape(packed["shape"])
