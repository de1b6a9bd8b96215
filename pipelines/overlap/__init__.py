"""Independent parts of a session side by side on two cores."""
