"""What models answered before, kept for when they are asked the same again."""
