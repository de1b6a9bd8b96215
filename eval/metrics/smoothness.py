"""Is the motion smooth? VBench's measure with a network that interpolates frames, and a companion without one.

*Motion smoothness* (VBench, Huang et al. 2024): every second frame is taken out, interpolated from its neighbours
(AMT-S) and compared: ``(255 - mean |frame - interpolated|) / 255``. The network and its weights (CC BY-NC 4.0) come
with the package `vbench` and are loaded only when asked for.

*Midpoint smoothness* is the same with the mean of the neighbours in the place of the network: no weights, no licence,
and numbers that must not be put beside VBench's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F


Pixels = npt.NDArray[np.uint8]
Interpolator = Callable[[Pixels, Pixels], npt.NDArray[np.floating]]
AMT_REPOSITORY, AMT_FILE = "lalala125/AMT", "amt-s.pth"
AMT_MULTIPLE = 16
"""AMT takes pictures whose sides are multiples of this."""


def midpoint(before: Pixels, after: Pixels) -> npt.NDArray[np.floating]:
    """The mean of two frames."""
    return (before.astype(np.float32) + after) / 2


def interpolation_smoothness(frames: Pixels, interpolate: Interpolator = midpoint) -> float:
    """Smoothness 0..1 of uint8 ``[T, H, W, 3]``: how well the odd frames are guessed from the even ones.

    Raises:
        ValueError: if there are fewer than three frames.
    """
    if len(frames) < 3:
        raise ValueError(f"frames: {len(frames)}; smoothness needs at least three")
    errors = [
        np.abs(frames[t].astype(np.float64) - interpolate(frames[t - 1], frames[t + 1])).mean()
        for t in range(1, len(frames) - 1, 2)
    ]
    return float((255 - np.mean(errors)) / 255)


def load_amt(weights: str | Path | None = None, device: torch.device | str = "cpu") -> Interpolator:
    """AMT-S as VBench runs it.

    Args:
        weights: file ``amt-s.pth``; None takes it from the Hub.
        device: where it runs.

    Raises:
        ValueError: if the package or the weights cannot be had.
    """
    try:
        import vbench
        from omegaconf import OmegaConf
        from vbench.third_party.amt.utils.build_utils import build_from_cfg
    except ImportError as error:
        raise ValueError(
            f"smoothness: AMT-S comes with VBench, which is not installed ({error}); pip install --no-deps vbench and "
            "omegaconf, or use midpoint smoothness"
        ) from error
    folder = Path(vbench.__file__).parent / "third_party" / "amt" / "cfgs"
    network = build_from_cfg(OmegaConf.load(folder / "AMT-S.yaml").network)
    state = torch.load(_amt_file(weights), map_location="cpu", weights_only=True)
    network.load_state_dict(state["state_dict"])
    network = network.eval().to(device)

    @torch.no_grad()
    def interpolate(before: Pixels, after: Pixels) -> npt.NDArray[np.floating]:
        pair = [_padded(frame).to(device) for frame in (before, after)]
        half = torch.full((1, 1, 1, 1), 0.5, device=device)
        middle = network(*pair, half, scale_factor=1.0, eval=True)["imgt_pred"]
        return _unpadded(middle, before.shape[0], before.shape[1])

    return interpolate


def _amt_file(weights: str | Path | None) -> Path:
    if weights is not None:
        if not Path(weights).is_file():
            raise ValueError(f"smoothness: {weights} is no file; give amt-s.pth of {AMT_REPOSITORY}")
        return Path(weights)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(AMT_REPOSITORY, AMT_FILE))
    except OSError as error:
        raise ValueError(f"smoothness: {AMT_FILE} cannot be had from {AMT_REPOSITORY} ({error})") from error


def _padded(frame: Pixels) -> Tensor:
    """Frame as ``[1, 3, H', W']`` in 0..1, its edges repeated around it up to the next multiple."""
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    (left, right), (top, bottom) = (_margins(side) for side in (frame.shape[1], frame.shape[0]))
    return F.pad(pixels, (left, right, top, bottom), mode="replicate")


def _unpadded(pixels: Tensor, height: int, width: int) -> npt.NDArray[np.floating]:
    top, left = _margins(height)[0], _margins(width)[0]
    kept = pixels[0, :, top : top + height, left : left + width].clamp(0, 1)
    return np.asarray((kept * 255).round().permute(1, 2, 0).cpu().numpy())


def _margins(side: int) -> tuple[int, int]:
    missing = -side % AMT_MULTIPLE
    return missing // 2, missing - missing // 2
