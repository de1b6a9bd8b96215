"""Tracks, what a user draws: the file format, its sampling frame by frame, its edits."""

from ardrag.tracks.sampling import TrackArrays
from ardrag.tracks.tracks import Tracks


__all__ = ["TrackArrays", "Tracks"]
