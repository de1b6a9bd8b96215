"""What the latency commands need: their report, and the systems that ours is timed against."""
