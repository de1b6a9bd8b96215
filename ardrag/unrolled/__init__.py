"""Passes of the transformer on a CPU without their modules."""
