"""Who judges a video: point trackers, the template match, rewards, scorers and feature networks."""
