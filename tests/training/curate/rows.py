"""A curated folder without videos: what the page and the store are tested with."""

from training.curate import store


def fill(folder, drops):
    """Clips by name with the rule that they broke; those that could not be read have no picture."""
    store.begin(folder, {"fps": 16.0}, "code")
    for name, drop in drops.items():
        read = not drop.startswith("unreadable")
        row = {"id": name, "source": "a.mp4", "sha256": "0", "caption": "<b>bold</b>", "start": 0.0, "drop": drop}
        row |= {"frames": 17 * read, "fps": 16.0 * read, "height": 64 * read, "width": 64 * read, "num_tracks": 0}
        row |= {"scores": {"light": 90.0}, "sheet": b"sheet" if read else b""}
        store.write_part(folder, row | dict.fromkeys(("tracks", "visible", "force", "video"), b""))
    store.gather_parts(folder, 9)
