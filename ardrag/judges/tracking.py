"""Point trackers behind one interface: where does a point of the video go? (AR-Drag section 3.3, Eq. 16.)

A tracker is given a video and query points and says where each point is in every frame, and whether it is seen:

    track(video [T, 3, H, W] uint8, queries [P, 3] = (frame, x, y) px) -> Trajectories(xy [T, P, 2], visible [T, P])

`LucasKanadeTracker` needs no weights. `CoTracker` is what the paper uses; its code and weights are CC-BY-NC-4.0 (not
for commercial use), are not on the package index and are loaded only when asked for. Report results with a tracker
that was not the reward.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


logger = logging.getLogger(__name__)
COTRACKER_INSTALL = "pip install git+https://github.com/facebookresearch/co-tracker"
COTRACKER_LICENCE = "CoTracker's code and weights are CC-BY-NC-4.0: not for commercial use"


class Trajectories(NamedTuple):
    """Tracked points: ``xy`` float32 ``[T, P, 2]`` in pixels and ``visible`` bool ``[T, P]``."""

    xy: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]


class PointTracker(Protocol):
    """What a reward or an evaluation asks of a tracker."""

    def track(self, video: Tensor, queries: Tensor) -> Trajectories:
        """Follow ``queries`` ``[P, 3]`` = (frame, x, y) px through ``video`` uint8 ``[T, 3, H, W]``, both ways."""
        ...


def check_request(video: Tensor, queries: Tensor) -> None:
    """Check what every tracker is asked.

    Raises:
        ValueError: naming the argument and the remedy.
    """
    if video.ndim != 4 or video.shape[1] != 3 or video.dtype != torch.uint8:
        raise ValueError(f"video: {list(video.shape)} {video.dtype} must be [T, 3, H, W] uint8, 0..255")
    if queries.ndim != 2 or queries.shape[1] != 3 or not bool(queries.isfinite().all()):
        raise ValueError(f"queries: {list(queries.shape)} must be [P, 3] finite numbers: frame, x, y in pixels")
    frames, height, width = len(video), *video.shape[2:]
    limits = torch.tensor([frames - 1, width, height], dtype=queries.dtype, device=queries.device)
    if bool((queries < 0).any()) or bool((queries > limits).any()):
        raise ValueError(f"queries: a point lies outside of {frames} frames of {width}x{height} pixels")


class LucasKanadeTracker:
    """Pyramidal Lucas-Kanade flow (OpenCV) from frame to frame, believed where the way back leads to the start.

    Args:
        window: side of the patch that is followed, pixels.
        levels: pyramid levels above the full picture.
        max_round_trip: pixels by which forward and backward may disagree; beyond, the point is lost and stays lost.
        min_correlation: how alike the patches before and after must be; below, it is another patch.
    """

    def __init__(
        self, window: int = 15, levels: int = 3, max_round_trip: float = 1.0, min_correlation: float = 0.6
    ) -> None:
        if window < 5 or levels < 0 or max_round_trip <= 0 or not -1 <= min_correlation <= 1:
            raise ValueError("window, levels, max_round_trip, min_correlation: must be >= 5, >= 0, > 0, in -1..1")
        self.window, self.levels = window, levels
        self.max_round_trip, self.min_correlation = max_round_trip, min_correlation

    def track(self, video: Tensor, queries: Tensor) -> Trajectories:
        """See `PointTracker.track`."""
        check_request(video, queries)
        import cv2

        frames = video.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        points = queries.detach().cpu().numpy().astype(np.float32)
        xy = np.zeros((len(grey), len(points), 2), np.float32)
        visible = np.zeros((len(grey), len(points)), bool)
        for frame in np.unique(points[:, 0].astype(int)):
            rows = np.flatnonzero(points[:, 0].astype(int) == frame)
            for order in (range(frame, len(grey)), range(frame, -1, -1)):
                self._follow(grey, list(order), points[rows, 1:], rows, xy, visible)
        return Trajectories(xy, visible)

    def _follow(
        self,
        grey: list[npt.NDArray[np.uint8]],
        order: list[int],
        start: npt.NDArray[np.float32],
        rows: npt.NDArray[np.intp],
        xy: npt.NDArray[np.float32],
        visible: npt.NDArray[np.bool_],
    ) -> None:
        """Follow ``start`` ``[N, 2]`` through the frames of ``order`` and write its columns ``rows``."""
        place, alive = start.copy(), np.ones(len(start), bool)
        xy[order[0], rows], visible[order[0], rows] = place, alive
        height, width = grey[0].shape
        for before, after in zip(order, order[1:], strict=False):
            there, found = self._flow(grey[before], grey[after], place)
            back, returned = self._flow(grey[after], grey[before], there)
            inside = ((there >= 0) & (there <= [width - 1, height - 1])).all(1)
            near = np.linalg.norm(back - place, axis=1) <= self.max_round_trip
            alike = self._correlation(grey[before], place, grey[after], there) >= self.min_correlation
            alive = alive & found & returned & inside & near & alike
            place = np.where(alive[:, None], there, place)
            xy[after, rows], visible[after, rows] = place, alive

    def _flow(
        self, one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], points: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        import cv2

        size = (self.window, self.window)
        flow: Any = cv2.calcOpticalFlowPyrLK  # its stubs do not know that the next points may be left out
        starts = points[:, None].astype(np.float32)
        moved, status, _ = flow(one, other, starts, None, winSize=size, maxLevel=self.levels)
        return moved[:, 0], status[:, 0].astype(bool)

    def _correlation(
        self,
        one: npt.NDArray[np.uint8],
        points: npt.NDArray[np.float32],
        other: npt.NDArray[np.uint8],
        places: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float64]:
        """Normalised correlation ``[N]`` of the patches around ``points`` and ``places``; 1 where both are flat."""
        import cv2

        found = []
        for pair in zip(points, places, strict=True):
            patches = [
                cv2.getRectSubPix(grey, (self.window, self.window), (float(x), float(y))).astype(np.float64)
                for grey, (x, y) in zip((one, other), pair, strict=True)
            ]
            first, second = (patch - patch.mean() for patch in patches)
            # A grey level of spread is added to each, so that the noise of flat patches does not decide.
            scale = np.sqrt((np.square(first).mean() + 1) * (np.square(second).mean() + 1))
            found.append(((first * second).mean() + 1) / scale)
        return np.array(found)


class CoTracker:
    """CoTracker3 (Karaev et al., 2024), offline (the whole clip at once) or online (causal windows).

    Args:
        checkpoint: local file of weights; None downloads the published ones through `torch.hub`.
        online: use the online model.
        device: where it runs.

    Raises:
        ValueError: if the package is missing (with the line that installs it), or the checkpoint is no such file.
    """

    def __init__(
        self, checkpoint: str | Path | None = None, online: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        self.online = online
        self.device = torch.device(device)
        if checkpoint is None:
            name = "cotracker3_online" if online else "cotracker3_offline"
            self.predictor = self._from_hub(name).to(self.device)
        else:
            self.predictor = self._from_file(Path(checkpoint)).to(self.device)
        logger.warning(COTRACKER_LICENCE)

    @staticmethod
    def _from_hub(name: str) -> Any:
        try:
            return torch.hub.load("facebookresearch/co-tracker", name, trust_repo=True)
        except Exception as error:
            raise ValueError(
                f"tracker: CoTracker cannot be had ({error}); install it with `{COTRACKER_INSTALL}` and give a "
                "checkpoint file, or use the Lucas-Kanade tracker, which needs no weights"
            ) from error

    def _from_file(self, checkpoint: Path) -> Any:
        try:
            from cotracker.predictor import CoTrackerOnlinePredictor, CoTrackerPredictor
        except ImportError as error:
            raise ValueError(f"tracker: CoTracker is not installed; `{COTRACKER_INSTALL}`") from error
        if not checkpoint.is_file():
            raise ValueError(f"checkpoint: {checkpoint} is no file; give the .pth of CoTracker3, or None to download")
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        kind, window = (CoTrackerOnlinePredictor, 16) if self.online else (CoTrackerPredictor, 60)
        predictor = kind(checkpoint=None, window_len=window, v2=False)
        predictor.model.load_state_dict(state.get("model", state))
        return predictor

    @torch.no_grad()
    def track(self, video: Tensor, queries: Tensor) -> Trajectories:
        """See `PointTracker.track`; frames before a query are tracked backwards in time."""
        check_request(video, queries)
        clip = video[None].float().to(self.device)  # 0..255, as CoTracker takes it
        points = queries[None].float().to(self.device)
        tracks, visible = self._online(clip, points) if self.online else self._offline(clip, points)
        seen = visible[0].reshape(len(video), len(queries))
        return Trajectories(tracks[0].float().cpu().numpy(), seen.bool().cpu().numpy())

    def _offline(self, clip: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.predictor(clip, queries=points, backward_tracking=True)
        return found

    def _online(self, clip: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Windows of two steps, each half a window on; the last one is filled up by repeating the last frame."""
        step, frames = int(self.predictor.step), clip.shape[1]
        missing = max(2 * step - frames, -(frames - 2 * step) % step)
        padded = torch.cat([clip, clip[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
        self.predictor(padded[:, : 2 * step], is_first_step=True, queries=points)
        tracks = visible = clip.new_zeros(0)
        for start in range(0, padded.shape[1] - step, step):
            tracks, visible = self.predictor(padded[:, start : start + 2 * step])
        return tracks[:, :frames], visible[:, :frames]
