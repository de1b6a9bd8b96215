"""What a session remembers of its video: finished frames on the disk, the control that was applied."""
