"""From a suite and a system to videos and their measures."""
