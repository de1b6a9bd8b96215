"""Losses: pure functions that return the loss and its metrics."""
