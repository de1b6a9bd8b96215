"""One video in the making: paced by what is seen, rewound to the same pixels, branched without touching the past."""

import numpy as np
import pytest

from app_assets.take import MAX_LEAD, SETTLE_LATENTS, Take
from ardrag.tracks.tracks import Tracks
from tests.app_assets.conftest import PATH


@pytest.fixture
def begin(pipeline, picture):
    sessions = []

    def start():
        sessions.append(pipeline.start_session(picture, "a red star", seed=3, history_latents=2))
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


def run(take):
    while take.due:
        take.step()
    return np.stack(list(take.session.frames))


def finished(turns):
    """What comes of ``turns``."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            return end.value


def test_clip_is_made_at_once_and_is_what_the_pipeline_makes(begin, pipeline, picture):
    take = Take(begin, PATH, 13, paced=False)
    frames = run(take)
    assert take.done and len(frames) == 13
    parts = pipeline.stream(picture, "a red star", tracks=PATH, num_frames=13, seed=3)
    assert np.array_equal(frames, np.stack([frame for part in parts for frame in part]))


def test_watched_take_waits_for_a_press_and_for_the_eyes(begin):
    take = Take(begin, Tracks.empty(41), 41, paced=True)
    assert not take.due
    take.control.move(1, [(0.0, 0.5, 0.5, 1.0)])
    ahead = len(run(take))
    assert 1 <= ahead - 1 <= MAX_LEAD + 4
    take.saw(ahead - 1, 0.0)
    assert take.due
    take.control.release(1)
    for _ in range(SETTLE_LATENTS):
        assert take.due, "let go, what was dragged has not arrived yet"
        take.step()
        take.saw(len(take.session.frames) - 1, 0.0)
    assert not take.due
    take.playing = True
    assert take.due


def test_lead_grows_with_the_way_of_a_message(begin):
    take = Take(begin, Tracks.empty(41), 41, paced=True)
    near = take.lead
    take.saw(0, 0.25)
    assert take.lead == min(near + 4, MAX_LEAD)


def test_lag_is_counted_from_what_was_on_the_screen(begin):
    take = Take(begin, Tracks.empty(41), 41, paced=True)
    take.control.move(1, [(0.0, 0.5, 0.5, 1.0)])
    assert take.step().lag is None
    take.dragged(0)
    made = take.step()
    assert (made.first, made.lag, len(made.frames)) == (1, 1, 4)
    assert made.places == [[[0.5, 0.5, 1.0]]] * 4
    assert take.step().lag is None


@pytest.mark.parametrize("latent", [0, 1, 2, 3])
def test_rewound_beyond_memory_too_and_the_same_again(begin, latent):
    take = Take(begin, PATH, 13, paced=False)
    frames = run(take)
    kept = finished(take.rewind(latent))
    assert kept == len(take.session.frames) == (0 if latent == 0 else 4 * latent - 3)
    take.playing = True
    take.saw(99, 0.0)
    while not take.done:
        take.step()
    assert np.array_equal(np.stack(list(take.session.frames)), frames)


def test_branch_leaves_the_take_as_it_is(begin):
    take = Take(begin, PATH, 13, paced=False)
    frames = run(take)
    twin = finished(take.branch(2))
    twin.control.move(1, [(0.0, 0.9, 0.9, 1.0)])
    twin.saw(99, 0.0)
    while not twin.done:
        twin.step()
    other = np.stack(list(twin.session.frames))
    assert np.array_equal(np.stack(list(take.session.frames)), frames)
    assert np.array_equal(other[:5], frames[:5]) and not np.array_equal(other[5:], frames[5:])
    twin.close()


def test_branch_at_the_end_of_a_clip_that_is_being_made_waits(begin):
    take = Take(begin, PATH, 13, paced=False)
    take.step(), take.step()
    twin = finished(take.branch(2))
    assert take.due and not twin.due and len(twin.session.frames) == 5
    twin.close()


def test_latent_that_was_never_made_is_an_error(begin):
    take = Take(begin, PATH, 13, paced=False)
    run(take)
    for way in (take.rewind, take.branch):
        with pytest.raises(ValueError, match="latent: 9 is not in this take; choose 0 to 4"):
            finished(way(9))
    assert len(take.session.frames) == 13


@pytest.mark.parametrize("latent", [0, 2])
def test_drawn_track_can_be_taken_hold_of_after_a_rewind(begin, latent):
    take = Take(begin, PATH, 13, paced=False)
    run(take)
    finished(take.rewind(latent))
    x, y = take.session.last_row.xy[0] if latent else (0.5, 0.5)
    take.control.move(1, [(0.0, float(x), float(y), 1.0)])
    assert len(take.control.brushes) == (1 if latent else 2), "before the first frame a press makes a new track"
