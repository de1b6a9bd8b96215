"""A library of made-up pictures for tests: reddish ones to train on, bluish ones held out."""

import numpy as np

from ardrag.worlds.photo_library import Entry, write_library


def made_up(rng, kind, split, number):
    height, width = (int(extent) for extent in (rng.integers(140, 240, 2) if kind == "photo" else [60, 50]))
    entry = Entry(kind, split, number % 2 == 0, f"thing {number}", "made-up", f"{number}.png", height, width, 0)
    pixels = rng.integers(0, 90, entry.shape, dtype=np.uint8)
    pixels[..., 0 if split == "train" else 2] += 120
    if kind == "cutout":
        pixels[..., 1] += 120  # unlike any photograph, so that a judge can tell where it is
        pixels[..., 3] = 0
        pixels[5:-5, 5:-5, 3] = 255
    return entry, pixels


def write_made_up(folder):
    """Three photographs and four cut-outs in each split."""
    rng = np.random.default_rng(0)
    wanted = [("photo", number) for number in range(3)] + [("cutout", number) for number in range(4)]
    write_library(folder, [made_up(rng, kind, split, n) for split in ("train", "test") for kind, n in wanted])
