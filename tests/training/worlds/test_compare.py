"""Curated tracks beside true ones: what is followed, by how much a track is off, and the same clips with the truth."""

import numpy as np
import pytest
from datasets import Dataset, load_from_disk

from ardrag.tracks.sampling import TrackArrays
from training.run.clips import pack_tracks
from training.worlds.compare import CompareConfig, compare, joined, main


FRAMES, SIDE = 9, 64
SHARE = np.linspace(0, 1, FRAMES, dtype=np.float32)[:, None]


def row(*ways, start=(0.3, 0.4), hidden=(), name="train-0", source="train-0.mp4"):
    """A row whose tracks go ``ways`` (pixels) from ``start``, all hidden in the frames ``hidden``."""
    xy = np.stack([np.array(start) + SHARE * np.array(way) / SIDE for way in ways], axis=1).astype(np.float32)
    seen = np.ones(xy.shape[:2], bool)
    seen[list(hidden)] = False
    tracks = pack_tracks(TrackArrays(xy, seen, np.ones(seen.shape, np.float32)))
    return {"id": name, "source": source, "frames": FRAMES, "width": SIDE, "height": SIDE} | tracks


def test_a_thing_may_be_held_anywhere():
    found = compare(row((20, 8), (0, 0), start=(0.35, 0.45)), row((20, 8)))
    assert (found.things, found.followed, found.still_tracks) == (1, 1, 1)
    assert found.errors == pytest.approx([0], abs=0.01)


def test_the_error_is_that_to_the_nearest_thing_on_average_over_the_frames():
    found = compare(row((20, 2), (10, 26), (18, 0)), row((20, 0), (0, 0), (10, 20)))
    assert (found.things, found.followed, found.still_tracks) == (2, 1, 0)
    assert found.errors == pytest.approx([1, 3, 1], abs=0.01)
    assert joined([found]).told()["off by more than 1.5 px"] == 1


def test_frames_where_a_track_cannot_be_seen_do_not_count():
    assert compare(row((20, 4), hidden=range(1, 5)), row((20, 0))).errors == pytest.approx([2.6], abs=0.01)


def test_a_track_of_nothing_and_a_thing_without_a_track():
    found = compare(row((0, 0)), row((20, 0)))
    assert (found.things, found.followed, found.errors) == (1, 0, ())
    found = compare(row((20, 0)), row((0, 0)))
    assert (found.things, found.followed, found.errors) == (0, 0, (np.inf,))


def test_several_clips_are_counted_together():
    one, other = compare(row((20, 2)), row((20, 0))), compare(row((0, 0)), row((0, 20)))
    assert joined([one, other]).told() == {
        "clips": 2,
        "things that move": 2,
        "of them followed": 1,
        "tracks that move": 1,
        "median error, px": 1.0,
        "mean error, px": 1.0,
        "off by more than 1.5 px": 0,
        "tracks that stand still": 1,
    }


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Writes rows as folders; the other columns of encoded clips do not matter here."""
    monkeypatch.setattr("training.worlds.compare.load_latents", lambda names: load_from_disk(names[0]))

    def written(**rows):
        for name, part in rows.items():
            Dataset.from_list(part).save_to_disk(tmp_path / name)
        return CompareConfig(*(str(tmp_path / name) for name in ("curated", "truth", "same")))

    return written


def test_the_true_rows_of_the_clips_that_were_kept(folders, tmp_path, capsys):
    truth = [row((20, number), name=f"train-{number}") for number in range(4)]
    curated = [row((20, 2), name="x", source="train-2.mp4"), row((20, 0), name="y", source="train-0.mp4")]
    told = main(folders(curated=curated, truth=truth))
    assert told["clips"] == told["of them followed"] == 2 and '"clips": 2' in capsys.readouterr().out
    assert list(load_from_disk(tmp_path / "same")["id"]) == ["train-2", "train-0"]


def test_clips_of_another_world_or_length_are_refused(folders):
    strange = folders(curated=[row((20, 0), source="train-9.mp4")], truth=[row((20, 0))])
    with pytest.raises(ValueError, match="truth: .* has no clip train-9; encode the clips that were filmed"):
        main(strange)
    longer = folders(curated=[row((20, 0)) | {"frames": 8}], truth=[row((20, 0))])
    with pytest.raises(ValueError, match="truth: clips of both must have equally many frames"):
        main(longer)
