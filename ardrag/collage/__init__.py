"""What a collage is made of: pieces that are cut out and laid over frames, and the ground under them."""
