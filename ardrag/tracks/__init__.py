"""Tracks, what a user draws: the file format, its sampling frame by frame, its edits."""

from ardrag.tracks.tracks import TrackArrays, Tracks


__all__ = ["TrackArrays", "Tracks"]
