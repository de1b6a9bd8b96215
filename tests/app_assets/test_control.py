"""What the pointers and the plan say about each frame."""

import numpy as np
import pytest

from app_assets.control import GRAB_RADIUS, MAX_LIVE_TRACKS, MAX_PENDING, Control
from ardrag.tracks.tracks import Tracks


PLAN = Tracks.from_points([[(0, 0.2, 0.2), (8, 0.6, 0.2)]], num_frames=9, interp="linear")


def way(*places, start=0, every=10):
    return [(float(start + every * i), *place, 1.0) for i, place in enumerate(places)]


def drawn(*tracks, **rest):
    return Tracks.from_json({"schema": "ardrag.tracks/v1", "num_frames": 9, "tracks": list(tracks), **rest})


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_plan_alone_is_sampled_as_drawn():
    control = Control(PLAN)
    for frames in (range(1), range(1, 5), range(5, 9)):
        assert same(control.sample(frames), PLAN.to_array(frames=frames))
    assert control.brushes == list(PLAN.brushes()) and not control.pressed and not control.pending


def test_first_frame_is_where_it_was_taken_hold_of_and_the_way_comes_after():
    control = Control(Tracks.empty(9))
    control.move(1, way((0.1, 0.5), (0.2, 0.5), (0.5, 0.5)))
    assert np.allclose(control.sample(range(1)).xy[0, 0], (0.1, 0.5))
    rows = control.sample(range(1, 5))
    assert np.allclose(rows.xy[-1, 0], (0.5, 0.5)) and rows.visible.all() and (rows.force == 1).all()
    assert (np.diff(rows.xy[:, 0, 0]) > 0).all()


def test_way_is_spread_over_the_frames_by_its_times():
    control = Control(Tracks.empty(9))
    control.move(1, [(0.0, 0.0, 0.0, 1.0)])
    control.sample(range(1)), control.sample(range(1, 5))
    control.move(1, [(30.0, 0.3, 0.0, 1.0), (40.0, 0.8, 0.0, 0.5)])
    rows = control.sample(range(5, 9))
    assert np.allclose(rows.xy[:, 0, 0], [0.1, 0.2, 0.3, 0.8], atol=1e-6)
    assert np.isclose(rows.force[-1, 0], 0.5)


def test_let_go_it_stays_and_can_be_taken_hold_of_again():
    control = Control(Tracks.empty(9))
    control.move(1, way((0.1, 0.5), (0.5, 0.5)))
    control.sample(range(1)), control.sample(range(1, 5))
    assert control.pressed
    control.release(1)
    assert not control.pressed
    held = control.sample(range(5, 9))
    assert np.allclose(held.xy, [0.5, 0.5]) and held.visible.all()
    control.move(2, way((0.5 + 0.5 * GRAB_RADIUS, 0.5), (0.9, 0.5)))
    again = control.sample(range(9, 13))
    assert again.xy.shape[1] == 1 and np.allclose(again.xy[-1, 0], (0.9, 0.5))
    control.move(3, way((0.1, 0.1)))
    assert control.sample(range(13, 17)).xy.shape[1] == 2


def test_two_pointers_hold_two_tracks_even_close_together():
    control = Control(Tracks.empty(9))
    control.move(1, way((0.5, 0.5)))
    control.move(2, way((0.51, 0.5), (0.9, 0.5)))
    control.sample(range(1))
    rows = control.sample(range(1, 5))
    assert np.allclose(rows.xy[-1], [(0.5, 0.5), (0.9, 0.5)])


def test_pointer_takes_a_planned_track_over():
    control = Control(PLAN)
    control.sample(range(1)), control.sample(range(1, 5))
    control.move(7, way((0.41, 0.21), (0.4, 0.9)))
    rows = control.sample(range(5, 9))
    assert rows.xy.shape[1] == 1 and np.allclose(rows.xy[-1, 0], (0.4, 0.9))


def test_another_plan_keeps_columns_and_hides_what_is_gone():
    control = Control(PLAN)
    control.sample(range(1))
    other = Tracks.from_json(
        {
            "schema": "ardrag.tracks/v1",
            "num_frames": 9,
            "tracks": [{"id": "new", "points": [{"f": 0, "x": 0.7, "y": 0.7}]}],
        }
    )
    control.replan(other)
    rows = control.sample(range(1, 5))
    assert rows.visible.tolist() == [[False, True]] * 4 and np.allclose(rows.xy[:, 1], 0.7)
    control.replan(PLAN)
    assert control.sample(range(5, 9)).visible.tolist() == [[True, False]] * 4


def test_spread_of_the_plan_is_kept():
    document = {
        "schema": "ardrag.tracks/v1",
        "num_frames": 9,
        "tracks": [{"id": "a", "sigma": 0.1, "points": [{"f": 0, "x": 0, "y": 0}]}],
    }
    control = Control(Tracks.from_json(document))
    control.move(1, way((0.9, 0.9)))
    assert control.brushes == [0.1, None]


def test_what_is_grabbed_has_the_brush_of_the_press_and_keeps_it():
    control = Control(Tracks.empty(9))
    control.move(1, way((0.2, 0.2)), 0.3)
    control.sample(range(1))
    control.release(1)
    control.move(2, way((0.2, 0.2), (0.6, 0.6)), 0.05)
    control.move(3, way((0.9, 0.1)))
    assert control.brushes == [0.3, None]


def test_a_planned_track_with_another_brush_goes_on_in_a_column_of_its_own():
    """A session has one brush a track: what was made before must be made again to the same pixels."""

    def plan(sigma):
        return drawn({"id": "a", "sigma": sigma, "points": [{"f": 0, "x": 0.2, "y": 0.2}]})

    control = Control(plan(0.1))
    control.sample(range(1))
    kept = control.snapshot()
    control.replan(plan(0.3))
    assert control.brushes == [0.1, 0.3] and control.sample(range(1, 5)).visible.tolist() == [[False, True]] * 4
    assert kept.brushes == [0.1] and kept.sample(range(1, 5)).visible.all()


def test_groups_and_camera_are_columns_too():
    document = {
        "schema": "ardrag.tracks/v1",
        "num_frames": 9,
        "tracks": [
            {"id": "g", "kind": "group", "offsets": [[0, 0], [0.1, 0]], "points": [{"f": 0, "x": 0.5, "y": 0.5}]}
        ],
        "camera": {"grid": [2, 2], "keys": [{"f": 0}, {"f": 8, "pan": [0.1, 0]}]},
    }
    tracks = Tracks.from_json(document)
    rows = Control(tracks).sample(range(1, 5))
    assert same(rows, tracks.to_array(frames=range(1, 5)))


def test_snapshot_comes_back_without_pointers():
    control = Control(PLAN)
    control.sample(range(1))
    control.move(1, way((0.9, 0.9), (0.8, 0.8)))
    control.sample(range(1, 5))
    kept = control.snapshot()
    control.move(1, way((0.1, 0.1), start=100))
    control.sample(range(5, 9))
    rows = kept.sample(range(5, 9))
    assert not kept.pressed and np.allclose(rows.xy[:, 1], 0.8)


def test_tracks_held_are_bounded():
    control = Control(Tracks.empty(9))
    for pointer in range(MAX_LIVE_TRACKS):
        control.move(pointer, way((0.5, 0.5)))
    with pytest.raises(ValueError, match="drag: 64 tracks"):
        control.move(999, way((0.5, 0.5)))


def test_columns_and_waiting_places_are_bounded():
    """Columns are never dropped: a page that sends new plans for ever is told so before it slows others down."""
    control = Control(PLAN)
    point = [{"f": 0, "x": 0.5, "y": 0.5}]
    for first in (0, 100):
        control.replan(drawn(*({"id": f"t{i}", "points": point} for i in range(first, first + 100))))
    columns = len(control.brushes)
    with pytest.raises(ValueError, match="tracks: more than 256 in one take"):
        control.replan(drawn(*({"id": f"t{i}", "points": point} for i in range(200, 300))))
    assert len(control.brushes) == columns and control.sample(range(1)).visible[0, -100:].all(), (
        "the plan before rules on"
    )
    control.move(1, way((0.1, 0.9)))
    for _ in range(6):
        control.move(1, way(*[(0.1, 0.9)] * 1000))
    assert len(control._live[(("live", columns), None)].pending) == MAX_PENDING
