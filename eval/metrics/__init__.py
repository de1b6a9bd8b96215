"""What is measured of a video: one family of metrics in each file, pure functions wherever no network is needed."""
