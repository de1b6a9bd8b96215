"""Controls by name and settings; what a checkpoint may ask for that this version does not have."""

import pytest

from ardrag.controls.build import CONTROLS, build_control
from ardrag.controls.carried import Carried
from ardrag.controls.heat import Coloured, Heat


def test_a_control_is_its_configuration() -> None:
    for name, kind in CONTROLS.items():
        control = build_control(name)
        assert type(control) is kind and control.config()["name"] == name and kind.about.endswith(".")
        assert build_control(control.config()) == control
    assert build_control({"name": "carried", "radius": 0.2}) == Carried(0.2) != build_control("carried")


def test_old_checkpoints_say_whether_tracks_are_coloured() -> None:
    assert build_control(None) == Heat() and build_control(None, coloured_tracks=True) == Coloured()
    assert build_control("carried", coloured_tracks=True) == Carried()


def test_what_is_unknown_is_named() -> None:
    with pytest.raises(ValueError, match="control: 'smell' is unknown; use one of heat, .* or update this package"):
        build_control("smell")
    with pytest.raises(ValueError, match="control: None is unknown"):
        build_control({"radius": 0.2})
    with pytest.raises(ValueError, match="control: heat has no setting radius; leave it out"):
        build_control({"name": "heat", "radius": 0.2})


def test_a_brush_is_of_controls_that_show_a_piece() -> None:
    brushes = {name: build_control(name).brush for name in CONTROLS}
    assert {name: brush for name, brush in brushes.items() if brush} == {
        "carried": 0.11,
        "collage": 0.11,
        "cutout": 0.11,
        "entity": 0.08,
        "boxes": 0.11,
    }
    assert Carried(0.2).brush == 0.2
