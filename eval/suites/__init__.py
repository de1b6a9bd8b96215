"""What is generated: our 206 clips of Sprite World, other people's benchmarks, and any folder with track files."""
