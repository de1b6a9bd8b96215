"""Evaluation: benchmark clips in, numbers with the command that made them out."""
