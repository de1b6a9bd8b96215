"""Where is a known sprite in a picture? Exact template matching, the tracker that no reward uses.

Sprite World knows what each sprite looks like, so the position of a sprite in a generated frame can be measured from
pixels alone: the place where the picture changes most as the sprite would change it. Evaluation and validation report
the distance between that place and the drawn path.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ardrag.worlds.sprite_drawing import Float
from ardrag.worlds.sprites import Sprite, SpriteClip, render


Pixels = npt.NDArray[np.uint8]
VISIBLE_SHARE = 0.04


def match_score(frames: Pixels, scene: Pixels, rgba: Float, open_view: torch.Tensor | None = None) -> torch.Tensor:
    """How clearly the sprite shows at each place: the matched filter for a known form of unknown contrast.

    With picture ``f``, scene without the sprite ``b``, opacity ``a`` and colour ``c``, pasting the sprite changes the
    scene by ``s = a (c - b)``. The score is the correlation ``sum (f - b) s`` divided by the norm of ``s``. It finds a
    sprite by what it changes, even one that looks like its background or that a model paints too faintly; the
    picture is explained best where the score is highest.

    Args:
        frames: uint8 ``[T, H, W, 3]``.
        scene: uint8 ``[T, H, W, 3]``, the same frames without the sprite.
        rgba: premultiplied sprite ``[S, S, 4]`` in 0..1.
        open_view: ``[T, H, W]`` in 0..1, how much of each pixel no other sprite hides; None means all.

    Returns:
        ``[T, H + 1, W + 1]`` for even ``S`` (entry ``(y, x)``: centre at pixel coordinates ``(x, y)``), ``[T, H, W]``
        for odd (centre at ``(x + 0.5, y + 0.5)``). Minus infinity where less than 4 % of the sprite's largest
        change could be seen, because it would lie off the picture or be hidden.
    """
    without = _planes(scene)
    change = _planes(frames) - without
    weight = torch.ones_like(without[:, :1]) if open_view is None else open_view[:, None]
    sprite = torch.from_numpy(rgba).permute(2, 0, 1)
    alpha, painted = sprite[3:], sprite[:3]  # painted = alpha * colour

    def correlate(planes: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        return cross_correlation(weight * planes, kernel)[:, 0]

    agreement = correlate(change, painted) - correlate((change * without).sum(1, keepdim=True), alpha)
    energy = correlate(torch.ones_like(weight), painted.square().sum(0, keepdim=True))
    energy = energy - 2 * correlate(without, alpha * painted)
    energy = energy + correlate(without.square().sum(1, keepdim=True), alpha.square())
    seen = energy > VISIBLE_SHARE * energy.amax((1, 2), keepdim=True)
    return torch.where(seen, agreement / energy.clamp(min=1e-6).sqrt(), -torch.inf)


def cross_correlation(planes: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Correlation of ``planes`` ``[T, C, H, W]`` with ``kernel`` ``[C, S, S]``, zero-padded by ``S // 2``.

    Equal to ``conv2d(planes, kernel[None], padding=S // 2)`` up to rounding; by Fourier transform, because the kernels
    here are as large as a sprite.
    """
    size = kernel.shape[-1]
    half = size // 2
    padded = F.pad(planes, (half, half, half, half))
    grid = (padded.shape[-2], padded.shape[-1])
    spectrum = (torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, s=grid).conj()).sum(1, keepdim=True)
    return torch.fft.irfft2(spectrum, s=grid)[..., : grid[0] - size + 1, : grid[1] - size + 1]


def _planes(frames: Pixels) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


def locate(frames: Pixels, scene: Pixels, rgba: Float, open_view: torch.Tensor | None = None) -> Float:
    """Centre of the best match in every frame, ``[T, 2]`` as ``(x, y)`` in pixels; arguments as `match_score`.

    Between the places of the grid by the top of a parabola through the best score and its neighbours.
    """
    score = match_score(frames, scene, rgba, open_view)
    best = score.flatten(1).argmax(1)
    rows, columns = best // score.shape[2], best % score.shape[2]
    around = F.pad(score, (1, 1, 1, 1), value=-torch.inf)
    frame = torch.arange(len(score))
    across = _top(*(around[frame, rows + 1, columns + step] for step in range(3)))
    down = _top(*(around[frame, rows + step, columns + 1] for step in range(3)))
    shift = 0.5 * (rgba.shape[0] % 2)
    return (torch.stack([columns + across, rows + down], dim=-1) + shift).numpy()


def _top(before: torch.Tensor, best: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Top of the parabola through three neighbours, from the middle one; 0 beside unknown or flat places."""
    bend = before - 2 * best + after
    top = 0.5 * (before - after) / bend
    return torch.where(torch.isfinite(top) & (bend < 0), top, 0.0).clamp(-0.5, 0.5)


def unhidden(sprites: tuple[Sprite, ...], height: int, width: int, num_frames: int) -> torch.Tensor:
    """How much of each pixel ``sprites`` leave open, ``[T, H, W]`` in 0..1."""
    ends = [render(sprites, np.full((height, width, 3), shade, np.float32), num_frames) for shade in (1, 0)]
    return (_planes(ends[0]) - _planes(ends[1]))[:, 0]


def sprite_centres(clip: SpriteClip, frames: Pixels) -> Float:
    """Where each sprite that should move is in ``frames``, ``[T, P, 2]`` as ``(x, y)`` in pixels, by `locate`.

    Only the first ``len(frames)`` frames of the clip are looked at.
    """
    length, height, width = frames.shape[:3]
    columns = []
    for mover in clip.movers:
        sprite, behind, front = clip.sprites[mover], clip.sprites[:mover], clip.sprites[mover + 1 :]
        scene = render(behind + front, clip.background / np.float32(255), length)
        columns.append(locate(frames, scene, sprite.rgba, unhidden(front, height, width, length)))
    return np.stack(columns, axis=1)


def path_errors(clip: SpriteClip, frames: Pixels, centres: Float | None = None) -> Float:
    """Distance in pixels between each drawn path and the sprite that should follow it, ``[T, P]``.

    NaN where the tracked point is not visible. ``centres`` are those of `sprite_centres`, if they are known already.
    """
    length = len(frames)
    found = sprite_centres(clip, frames) if centres is None else centres
    grabs = np.array([clip.sprites[mover].grab for mover in clip.movers], np.float32)
    distance = np.linalg.norm(found + grabs - clip.xy[:length], axis=-1)
    return np.where(clip.visible[:length], distance, np.nan).astype(np.float32)


def colour_errors(clip: SpriteClip, frames: Pixels, centres: Float, reach: int = 2) -> Float:
    """Mean absolute difference (of 255) of a sprite's colour where it was found from the true one, ``[T, P]``.

    Colours are means over ``2 * reach + 1`` pixels square around the centre. NaN where the tracked point is not
    visible or the true sprite's centre is hidden or off the picture.
    """
    columns = []
    for p, mover in enumerate(clip.movers):
        sprite, front = clip.sprites[mover], clip.sprites[mover + 1 :]
        open_view = unhidden(front, frames.shape[1], frames.shape[2], len(frames)).numpy()
        rows = []
        for t, frame in enumerate(frames):
            shown = _patch(open_view[t][..., None], sprite.xy[t], reach)
            known = clip.visible[t, p] and shown.size and shown.min() > 0.99
            pair = [_patch(*view, reach) for view in ((frame, centres[t, p]), (clip.frames[t], sprite.xy[t]))]
            known = known and all(patch.size for patch in pair)
            rows.append(np.abs(np.subtract(*(patch.mean((0, 1)) for patch in pair))).mean() if known else np.nan)
        columns.append(rows)
    return np.array(columns, np.float32).T


def _patch(picture: npt.NDArray[Any], centre: npt.NDArray[Any], reach: int) -> npt.NDArray[Any]:
    x, y = (int(value) for value in centre)
    return picture[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].astype(np.float64)


def background_psnr(clip: SpriteClip, frames: Pixels) -> npt.NDArray[np.float64]:
    """PSNR in dB, frame by frame ``[T]``, over the pixels that no sprite of the clip ever touches."""
    return psnr(frames, clip.background, clip.untouched)


def psnr(
    frames: Pixels, truth: Pixels, where: npt.NDArray[np.bool_] | None = None, smallest: float = 1e-3
) -> npt.NDArray[np.float64]:
    """PSNR in dB, frame by frame ``[T]``, of uint8 ``[T, H, W, 3]`` against ``truth`` of one or as many frames.

    ``where`` ``[H, W]`` marks the pixels that are compared (None: all); NaN everywhere if it marks none. A squared
    error below ``smallest`` counts as that, which bounds the result (78 dB).

    Raises:
        ValueError: if the sizes differ.
    """
    if frames.shape[1:] != truth.shape[-3:] or (truth.ndim == 4 and len(truth) != len(frames)):
        raise ValueError(f"frames and truth: shapes {frames.shape} and {truth.shape} must agree")
    marked = np.ones(frames.shape[1:3], bool) if where is None else where
    if not marked.any():
        return np.full(len(frames), np.nan)
    wanted = np.broadcast_to(truth, frames.shape)
    squared = [
        np.square(frame[marked].astype(np.float64) - true[marked]).mean()
        for frame, true in zip(frames, wanted, strict=True)
    ]
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(squared, smallest)))
