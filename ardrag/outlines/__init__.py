"""Where a grabbed thing ends."""
