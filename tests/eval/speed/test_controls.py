"""Controls are timed in turn on one model; what it cannot be shown is refused before anything is timed."""

import pytest
import torch

from ardrag.worlds.sprites import make_clip
from eval.speed.controls import check_controls, control_lines, session_with, time_controls
from eval.speed.sessions import pointer


def test_every_control_is_timed_as_often(make_pipeline):
    pipeline = make_pipeline()
    found = time_controls(pipeline, make_clip("test", 0), ["coloured", "carried"], 2)
    assert {name: len(values) for name, values in found.items()} == {"coloured": 2, "carried": 2}
    assert all(value > 0 for values in found.values() for value in values)


def test_a_session_is_shown_the_control_that_was_named(make_pipeline):
    pipeline, clip = make_pipeline(), make_clip("test", 0)
    made = []
    for name in ("carried", "coloured", "carried"):
        session = session_with(pipeline, clip, name)
        for latent in range(2):
            session.step(pointer(latent))
        made.append(session.latents)
        session.close()
    assert torch.equal(made[0], made[2]) and not torch.equal(made[0], made[1])


def test_the_page_compares_pairs_with_the_first():
    lines = control_lines({"coloured": [1.0, 2.0, 3.0], "carried": [1.1, 2.2, 3.3]})
    assert lines[2] == "| coloured | 2000.0 | 1.000 (1.000 to 1.000) |"
    assert lines[3] == "| carried | 2200.0 | 1.100 (1.100 to 1.100) |"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["carried"], "controls: carried are not two or more"),
        (["carried", "carried"], "not two or more different"),
        (["carried", "track_ids"], "controls: track_ids needs a transformer"),
        (["carried", "fog"], "fog"),
    ],
)
def test_what_cannot_be_compared(make_pipeline, names, said):
    pipeline = make_pipeline()
    with pytest.raises(ValueError, match=said):
        check_controls(pipeline, names)
