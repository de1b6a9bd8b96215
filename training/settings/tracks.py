"""How the tracks of clips are changed before a model is shown them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class TrackConfig:
    """Nothing is changed unless named; a change makes the control anew for every clip that is drawn."""

    touch_force: float = field(
        default=1.0,
        metadata={"help": "Weakest touch, 0 to 1 (B.1): the force of a track changes smoothly between it and 1."},
    )
    dropped_tracks: float = field(default=0.0, metadata={"help": "Share of tracks that are left out."})
    late_tracks: float = field(
        default=0.0, metadata={"help": "Share of tracks that begin late, within the first half of a clip."}
    )
    track_noise: float = field(
        default=0.0, metadata={"help": "How far tracks are smoothly off: SD in pixels of a picture of 128x128."}
    )

    def __post_init__(self) -> None:
        for name in ("touch_force", "dropped_tracks", "late_tracks"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is no share; use 0 to 1")
        if self.track_noise < 0:
            raise ValueError(f"track_noise: {self.track_noise} is negative; use 6, or 0 for exact tracks")

    @property
    def changes_tracks(self) -> bool:
        """Whether anything is changed."""
        return self.touch_force < 1 or bool(self.dropped_tracks or self.late_tracks or self.track_noise)
