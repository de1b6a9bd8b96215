"""A point tracker without weights that does not mind blur: the patch around a point, searched where it was last seen.

Lucas-Kanade linearises the picture and needs texture; between a sharp given picture and the softer frames that a model
makes of it, it loses its point, and then follows whatever texture there is. Here a patch in colour, large enough to
hold the thing with its outline, is compared as a whole (normalised correlation, so that contrast and brightness may
change), always with the frame that the user pointed at. Painted texture gains nothing: it correlates with no patch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ardrag.judges.tracking import Trajectories, check_request


Picture = npt.NDArray[np.float32]
WINDOW, REACH = 33 / 128, 12 / 128
"""Side of the patch, and how far a point may move in a frame, relative to the shorter side of the picture."""


class PatchTracker:
    """Normalised cross-correlation (OpenCV) of a colour patch, searched around its last place, to a part of a pixel.

    Args:
        window: side of the patch, odd, pixels, best somewhat larger than what is dragged; None for `WINDOW` of the
            picture.
        reach: how far a point may move from one frame to the next, pixels in x and in y; None for `REACH` of it.
        min_correlation: a place less alike than this is not believed: the point counts as hidden in that frame, and is
            searched around its last believed place in the next.

    Raises:
        ValueError: if one of them makes no sense.
    """

    def __init__(self, window: int | None = None, reach: int | None = None, min_correlation: float = 0.3) -> None:
        sizes_fit = window is None or (window >= 5 and window % 2 == 1)
        if not sizes_fit or (reach is not None and reach < 1) or not -1 <= min_correlation <= 1:
            raise ValueError("window, reach, min_correlation: must be odd and >= 5, >= 1, in -1..1")
        self.window, self.reach, self.min_correlation = window, reach, min_correlation

    def track(self, video: Tensor, queries: Tensor) -> Trajectories:
        """See `ardrag.judges.tracking.PointTracker.track`."""
        check_request(video, queries)
        import cv2

        window, reach = self._sizes(min(video.shape[-2:]))
        margin = window // 2
        edges = (margin, margin, margin, margin, cv2.BORDER_REPLICATE)
        frames = video.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        padded: list[Picture] = [cv2.copyMakeBorder(frame, *edges).astype(np.float32) for frame in frames]
        xy = np.zeros((len(frames), len(queries), 2), np.float32)
        visible = np.zeros((len(frames), len(queries)), bool)
        for p, (start, x, y) in enumerate(queries.detach().cpu().numpy().astype(np.float64)):
            first, point = int(start), np.array([x, y])
            centre = tuple(float(value) for value in point - 0.5 + margin)  # x = 0.5 is the middle of the first pixel
            patch: Picture = np.asarray(cv2.getRectSubPix(padded[first], (window, window), centre))
            for order in (range(first, len(frames)), range(first, -1, -1)):
                xy[order, p], visible[order, p] = self._follow([padded[t] for t in order], patch, point, reach)
        return Trajectories(xy, visible)

    def _sizes(self, side: int) -> tuple[int, int]:
        """Window and reach in a picture whose shorter side is ``side``, pixels."""
        window = max(5, 2 * int(WINDOW * side / 2) + 1) if self.window is None else self.window
        return window, max(1, round(REACH * side)) if self.reach is None else self.reach

    def _follow(
        self, frames: list[Picture], patch: Picture, point: npt.NDArray[np.float64], reach: int
    ) -> tuple[npt.NDArray[np.float64], list[bool]]:
        """Places ``[T, 2]`` of ``patch`` in padded ``frames``, the first of which shows it at ``point``."""
        places, seen = [point], [True]
        for frame in frames[1:]:
            there, correlation = _search(frame, patch, places[-1], reach)
            seen.append(correlation >= self.min_correlation)
            places.append(there if seen[-1] else places[-1])
        return np.stack(places), seen


def _search(
    frame: Picture, patch: Picture, last: npt.NDArray[np.float64], reach: int
) -> tuple[npt.NDArray[np.float64], float]:
    """Most alike place within reach of ``last``, and how alike it is."""
    import cv2

    window = len(patch)
    size = np.array(frame.shape[1::-1]) - window + 1  # of the picture without its margin
    middle = np.rint(last - 0.5).astype(int)
    low, high = np.clip(middle - reach, 0, size - 1), np.clip(middle + reach, 0, size - 1)
    view = frame[low[1] : high[1] + window, low[0] : high[0] + window]
    alike: Picture = np.asarray(cv2.matchTemplate(view, patch, cv2.TM_CCOEFF_NORMED))
    row, column = np.unravel_index(int(alike.argmax()), alike.shape)
    shift = [_vertex(alike[row], int(column)), _vertex(alike[:, column], int(row))]
    return low + [column, row] + shift + 0.5, float(alike[row, column])


def _vertex(values: npt.NDArray[np.float32], peak: int) -> float:
    """Where the parabola through the highest value and its neighbours has its top, relative to ``peak``."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    left, top, right = (float(value) for value in values[peak - 1 : peak + 2])
    curvature = left - 2 * top + right
    return 0.5 * (left - right) / curvature if curvature < 0 else 0.0
