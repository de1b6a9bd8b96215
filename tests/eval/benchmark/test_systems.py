"""How systems are named, what `all` means, and that references are what they claim to be."""

import numpy as np
import pytest

from eval.benchmark.systems import AR_ROWS, REFERENCE_ROWS, RIVALS, System, donor_of, expand, maker_of
from eval.suites.sprites import SpriteSuite


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("AR-Drag=a/b", System("AR-Drag", "causal", "a/b")),
        ("teacher=a/b@24", System("teacher", "bidirectional", "a/b", 24)),
        ("theirs=videos:x/y", System("theirs", "videos", "x/y")),
        ("videos:x/y", System("y", "videos", "x/y")),
        ("control=shuffled:a", System("control", "shuffled", "a")),
        ("ceiling=vae:a", System("ceiling", "vae", "a")),
        ("ours=runs/lr=0.1", System("ours", "causal", "runs/lr=0.1")),
        ("videos:runs/lr=0.1", System("lr=0.1", "videos", "runs/lr=0.1")),
        ("truth", System("truth", "truth")),
        ("still picture=still", System("still picture", "still")),
    ],
)
def test_forms(text, system):
    assert System.parse(text) == system


@pytest.mark.parametrize("text", ["a/b", "=a/b", "a=", "a=b@", "a=b@x", "a=b@0", "a=videos:", "shuffled:"])
def test_what_is_no_system(text):
    with pytest.raises(ValueError, match="systems: "):
        System.parse(text)


def test_all_lists_what_is_absent(tmp_path):
    (tmp_path / "sf" / "pipeline").mkdir(parents=True)
    systems, absent = expand(["all"], str(tmp_path))
    names = [system.name for system in systems]
    assert names == ["AR-Drag", "Self-Forcing", *REFERENCE_ROWS]
    assert absent == [*(name for name in AR_ROWS if name not in names), *RIVALS]
    assert expand(["truth"], "runs") == ([System("truth", "truth")], [])
    for texts in ([], ["a=x", "a=y"], ["truth", "all"]):
        with pytest.raises(ValueError, match="systems: .* one or more different names"):
            expand(texts, str(tmp_path))


def test_every_clip_lends_its_tracks_once():
    suite = SpriteSuite()
    donors = [donor_of(index, suite) for index in range(len(suite))]
    assert sorted(donors) == list(range(len(suite)))
    assert all(donor != index for index, donor in enumerate(donors))


def test_references_and_models(model_folder):
    suite = SpriteSuite()
    case = suite.case(0, 9)

    def make(text, seed=0):
        return maker_of(System.parse(text), suite)(case, seed)

    assert (make("truth").frames == case.truth).all() and make("truth").seconds is None
    still = make("still")
    assert (still.frames == case.picture).all() and still.frames.shape == case.truth.shape
    causal, again, other = make(f"m={model_folder}"), make(f"m={model_folder}"), make(f"m={model_folder}", 1)
    assert causal.frames.shape == case.truth.shape and 0 < causal.first_seconds < causal.seconds
    assert (causal.frames == again.frames).all() and (causal.frames != other.frames).any()
    control = make(f"c=shuffled:{model_folder}")
    assert (control.frames[0] == causal.frames[0]).all()
    whole = make(f"b={model_folder}@2")
    assert whole.first_seconds == whole.seconds and whole.frames.shape == case.truth.shape
    ceiling = make(f"v=vae:{model_folder}")
    assert ceiling.frames.shape == case.truth.shape and ceiling.first_seconds is None
    assert np.abs(ceiling.frames.astype(int) - case.truth).max() > 0
