"""Modules under the names that model cards of version 0.1 show; `ardrag` finds them here as its own."""
