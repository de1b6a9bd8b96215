"""Convolutions of a running stream with fewer products: what they make of their weights, and how they use it."""
