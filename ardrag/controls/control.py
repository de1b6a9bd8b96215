"""The one interface of all controls: tracks and a picture in, the motion slot out, chunk by chunk.

    control = build_control("carried")
    stream = control.stream(vae, scene)
    motion = stream.next(Rows.of(tracks, range(0, 1)), look)      # [1, C, F, H, W], here F = 1
    state = stream.state(); ...; stream.restore(state)
    motion = control.clip(vae, scene, Rows.of(tracks))            # the same latents at once

Whatever a stream has given is settled: later rows never change it, and a stream that is restored goes on as if it had
never been interrupted. Two clips that are made side by side do not know of each other.

Most controls are videos that the VAE encodes (`PixelControl`); they only say how the video is painted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from ardrag.known.still_video import Latents, StillVideo
from ardrag.outlines.network import Outline
from ardrag.streaming_vae import StreamingVAE
from ardrag.tracks.crop import Crop
from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.schema import GROUND
from ardrag.tracks.tracks import Tracks


Brushes = tuple[float | None, ...]
"""Width of each track relative to sqrt(height * width), or None where the control's own width is meant.

`GROUND` is no width: the track pins the ground. A control that knows no ground gives it its own width.
"""
Look = Callable[[], Tensor]
"""Gives the last pixel frame ``[3, H, W]`` in [-1, 1] that is finished: what a track that begins now can take."""


@dataclass(frozen=True)
class LateLook:
    """A `Look` at a frame of known ``size`` (height, width) that may still be in the making."""

    size: tuple[int, int]
    wait: Look

    def __call__(self) -> Tensor:
        """The frame, once it is there."""
        return self.wait()


def size_of(look: Look) -> tuple[int, int]:
    """Height and width of the video; nobody waits for a frame to learn its size."""
    if isinstance(look, LateLook):
        return look.size
    _, height, width = look().shape
    return height, width


@dataclass(frozen=True)
class Rows:
    """Tracks in some pixel frames, ``arrays`` with T rows, and the brush of each of the P tracks."""

    arrays: TrackArrays
    brushes: Brushes

    @classmethod
    def of(cls, tracks: Tracks, frames: Iterable[int] | None = None) -> Rows:
        """``tracks`` in ``frames``, by default in all of the clip."""
        return cls(tracks.to_array(frames=frames), tracks.brushes())

    def cropped(self, crop: Crop) -> Rows:
        """The rows of the part of the picture that ``crop`` keeps; a brush is relative to that part."""
        return Rows(crop.arrays(self.arrays), self.brushes)

    def __len__(self) -> int:
        """Pixel frames."""
        return len(self.arrays.xy)

    @property
    def pins(self) -> npt.NDArray[np.bool_]:
        """Which tracks pin the ground, ``[P]``."""
        return np.array([brush == GROUND for brush in self.brushes], bool)

    @property
    def pinned(self) -> npt.NDArray[np.bool_]:
        """Where pins say how the ground lies, ``[T, P]``: also beyond the picture, where a camera may take them."""
        xy, visible, force = self.arrays
        beyond = ((xy < 0) | (xy > 1)).any(2) & (force > 0)
        return self.pins & (visible | beyond)

    def without_pins(self) -> Rows:
        """The rows as if nobody had touched the ground."""
        held = ~self.pins
        return Rows(
            self.arrays._replace(visible=self.arrays.visible & held, force=self.arrays.force * held), self.brushes
        )

    def part(self, start: int, stop: int) -> Rows:
        """Rows ``start .. stop``."""
        xy, visible, force = self.arrays
        return Rows(TrackArrays(xy[start:stop], visible[start:stop], force[start:stop]), self.brushes)


@dataclass(frozen=True)
class Scene:
    """What is known when a clip begins.

    ``picture`` ``[3, H, W]`` in [-1, 1] and ``reference``, its normalised latent ``[1, C, 1, h, w]``; ``masks``
    ``[P, H, W]`` in 0..1 of what each track is on, where somebody knows; the ``seed`` of what a control draws by lot;
    ``outline`` tells where things end, where a pipeline has such a network.
    """

    picture: Tensor
    reference: Tensor
    masks: Tensor | None = None
    seed: int = 0
    outline: Outline | None = None


class Piece(NamedTuple):
    """What a track holds: ``source`` ``[C, H, W]`` and where it was grabbed in it, ``xy`` in 0..1."""

    source: Tensor
    xy: tuple[float, float]


class Stretch(NamedTuple):
    """One track in frames ``start .. stop`` of some rows, with the piece that it holds there."""

    track: int
    start: int
    stop: int
    piece: Piece


Held = tuple[Piece | None, ...]
"""What each track holds."""


def grabs(rows: Rows, take: Callable[[int, tuple[float, float]], Tensor], held: Held) -> tuple[list[Stretch], Held]:
    """Which piece each track holds when, and what it holds at the end.

    ``take`` gives the source of a new piece, of a track that is grabbed at a place in 0..1.

    It is not asked where nothing is grabbed: a source that is still in the making would have to be waited for.

    A track takes its piece where it is first seen and keeps it while it is hidden. Let go (not visible, force 0) it
    drops the piece, and takes another when it is seen again.
    """
    stretches: list[Stretch] = []
    after: list[Piece | None] = []
    xy, visible, force = (column.tolist() for column in rows.arrays)
    for track in range(rows.arrays.xy.shape[1]):
        piece, begun = held[track] if track < len(held) else None, 0
        for t in range(len(rows)):
            if visible[t][track] and piece is None:
                place = xy[t][track][0], xy[t][track][1]
                piece, begun = Piece(take(track, place), place), t
            elif piece is not None and not visible[t][track] and not force[t][track]:
                stretches.append(Stretch(track, begun, t, piece))
                piece = None
        if piece is not None:
            stretches.append(Stretch(track, begun, len(rows), piece))
        after.append(piece)
    return stretches, tuple(after)


class ControlStream(ABC):
    """A control in one clip that is being made."""

    @abstractmethod
    def next(self, rows: Rows, look: Look) -> Tensor:
        """Motion slot ``[1, C, F, h, w]`` of the next latents: ``rows`` are their pixel frames.

        ``look`` gives the last finished frame; before latent 0 that is the picture.
        """

    @abstractmethod
    def state(self) -> Any:
        """This moment of the stream; it shares its tensors with the stream."""

    @abstractmethod
    def restore(self, state: Any) -> None:
        """Go back to a moment."""


class Control(ABC):
    """A member of the family; a frozen dataclass whose fields are its settings."""

    name: ClassVar[str]
    about: ClassVar[str]
    """A sentence for model cards."""
    takes_later: ClassVar[bool] = False
    """Whether a track that begins late takes what is there then, so that the clip's own frames are needed."""

    @property
    def brush(self) -> float | None:
        """How wide a piece a track holds that has no brush, relative to sqrt(H W); None: it is no piece that is shown.

        Heat has a width too, which says how sure the place is, and of which models know one only.
        """
        return None

    def width(self, latent_channels: int) -> int:
        """Channels of the motion slot for a VAE with ``latent_channels``."""
        return latent_channels

    def module(self) -> dict[str, Any] | None:
        """What the transformer must have for this control (`ardrag.controls.build.attach`); None: nothing."""
        return None

    def config(self) -> dict[str, Any]:
        """Name and settings, as a pipeline saves them; `build_control` gives the control back."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]

    @abstractmethod
    def stream(self, vae: AutoencoderKLWan, scene: Scene) -> ControlStream:
        """The control in a new clip."""

    @abstractmethod
    def blank(self, vae: AutoencoderKLWan, scene: Scene) -> Latents:
        """Motion slot of an endless clip without a track, the numbers of a stream."""

    @abstractmethod
    def clip(self, vae: AutoencoderKLWan, scene: Scene, rows: Rows, keyframes: Tensor | None = None) -> Tensor:
        """Motion slot ``[1, C, F, h, w]`` of a whole clip at once, the numbers of a stream.

        ``keyframes`` ``[F, 3, H, W]`` are the last pixel frames of the latents, where the clip is known already: what
        a track that begins late takes up. Without them it takes what is in the picture.
        """


class PixelControl(Control):
    """A control that is a video, encoded by the VAE: ``[3, T, H, W]`` in [-1, 1]."""

    def begin(self, scene: Scene) -> Any:
        """What the control remembers at the start of a clip; None for most.

        Raises:
            ValueError: if the control needs something of the scene that is not there.
        """
        return None

    @abstractmethod
    def paint(self, rows: Rows, look: Look, memory: Any = None) -> tuple[Tensor, Any]:
        """The next frames of the video ``[3, T, H, W]``, and what the control has to remember of them.

        Args:
            rows: the tracks in these frames, one latent's or several.
            look: gives the last frame before them; its size is the video's.
            memory: what the call before returned; what `begin` returned at the start of a clip.
        """

    def paint_clip(
        self, rows: Rows, scene: Scene, keyframes: Tensor | None = None, temporal_factor: int = 4
    ) -> Tensor:
        """The video ``[3, T, H, W]`` of a whole clip; see `Control.clip` for ``keyframes``."""
        memory, parts = self.begin(scene), []
        for start, stop in segments(rows.arrays, temporal_factor):
            latent = (start + temporal_factor - 1) // temporal_factor
            seen = scene.picture if keyframes is None or not latent else keyframes[latent - 1]
            video, memory = self.paint(rows.part(start, stop), lambda frame=seen: frame, memory)  # type: ignore[misc]
            parts.append(video)
        return torch.cat(parts, dim=1)

    def stream(self, vae: AutoencoderKLWan, scene: Scene) -> ControlStream:
        """See `Control`."""
        return PixelStream(self, vae, scene)

    def blank(self, vae: AutoencoderKLWan, scene: Scene) -> Latents:
        """See `Control`; without a track the same frame is painted for ever."""
        rows = Rows.of(Tracks.empty(1), range(1))
        frame = self.paint(rows, lambda: scene.picture, self.begin(scene))[0][:, 0].to(scene.reference.device)
        still = StillVideo(vae, frame, frame)
        return lambda start, stop: still(start, stop).to(scene.reference.dtype)

    def clip(self, vae: AutoencoderKLWan, scene: Scene, rows: Rows, keyframes: Tensor | None = None) -> Tensor:
        """See `Control`."""
        stream = StreamingVAE(vae)
        video = self.paint_clip(rows, scene, keyframes, stream.temporal_factor)
        return stream.encode(video[None].to(scene.reference.device)).to(scene.reference.dtype)


class PixelStream(ControlStream):
    """A `PixelControl` in one clip: the painted frames go through the VAE as they come."""

    def __init__(self, control: PixelControl, vae: AutoencoderKLWan, scene: Scene) -> None:
        self._control = control
        self._like = scene.reference
        self._vae = StreamingVAE(vae)
        self._memory: Any = control.begin(scene)
        self._started = False

    def next(self, rows: Rows, look: Look) -> Tensor:
        """See `ControlStream`."""
        video, self._memory = self._control.paint(rows, look, self._memory)
        video = video[None].to(self._like.device)
        first = 0 if self._started else 1
        rest = video[:, :, first:]
        parts = [video[:, :, :first]] * first + list(rest.split(self._vae.temporal_factor, 2)) * bool(rest.shape[2])
        self._started = True
        return torch.cat([self._vae.encode_next(part) for part in parts], dim=2).to(self._like.dtype)

    def state(self) -> Any:
        """See `ControlStream`."""
        return self._vae.state(), self._memory, self._started

    def restore(self, state: Any) -> None:
        """See `ControlStream`."""
        moment, self._memory, self._started = state
        self._vae.restore(moment)


def segments(arrays: TrackArrays, temporal_factor: int) -> Iterator[tuple[int, int]]:
    """Pixel frames ``start .. stop`` that may be painted at once: they end where a latent begins with a new track."""
    count = len(arrays.xy)
    begins = arrays.visible.copy()
    begins[1:] &= ~arrays.visible[:-1]
    latents = [0, *range(1, count, temporal_factor)]
    cuts = [0] + [f for f in latents[1:] if begins[f : f + temporal_factor].any()] + [count]
    yield from zip(cuts, cuts[1:], strict=False)


def spreads(brushes: Sequence[float | None], default: float) -> list[float]:
    """The width of each track, ``default`` where it has none of its own."""
    return [default if brush is None or brush == GROUND else brush for brush in brushes]
