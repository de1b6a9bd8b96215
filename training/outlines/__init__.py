"""What the network of outlines is taught on."""
