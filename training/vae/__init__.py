"""The VAE stage's configuration and what its batches are made of."""
