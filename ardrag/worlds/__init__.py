"""Procedural worlds: video whose tracks are exactly known."""
