"""Every message that a page may send is read as meant; every other one is refused by name."""

import json

import pytest

from app_assets.messages import MAX_MESSAGE, MAX_WAY, Drag, Rewind, Seen, Start, pack, read_message
from tests.app_assets.conftest import PATH, START


def text(**message):
    return json.dumps(message)


DRAG = {
    "type": "drag",
    "take": 1,
    "seq": 0,
    "seen": -1,
    "pointers": [{"id": 5, "way": [[1.5, 0, 1, 0.5]]}],
    "released": [5],
}


def test_start_with_and_without_tracks():
    message = read_message(text(**START))
    assert isinstance(message, Start) and message.tracks.tracks == () and message.seed == 3
    message = read_message(text(**{**START, "tracks": json.loads(PATH.to_json()), "steps": None}))
    assert message.tracks == PATH and message.steps is None


def test_drag_and_the_short_ones():
    assert read_message(text(**DRAG)) == Drag(1, 0, -1, {5: [(1.5, 0.0, 1.0, 0.5)]}, {5: None}, (5,))
    wide = {**DRAG["pointers"][0], "sigma": 0.2}
    assert read_message(text(**{**DRAG, "pointers": [wide]})).brushes == {5: 0.2}
    assert read_message(text(type="seen", take=1, frame=3)) == Seen(1, 3, 0.0)
    assert read_message(text(type="branch", take=1, latent=2)) == Rewind(1, 2, True)
    for name, rest in (("run", {"on": True}), ("export", {"draw": False}), ("cancel", {})):
        assert read_message(text(type=name, take=2, **rest)).take == 2


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x00", "message: binary"),
        ("[]", "message: must be a JSON object"),
        ("{", "message: not JSON"),
        ('{"type": "seen", "take": NaN}', "NaN is no number"),
        ("[" * 100_000, "message: not JSON"),
        ("x" * (MAX_MESSAGE + 1), "message: longer"),
        (text(type="jump"), "type: 'jump' is unknown"),
        (text(type=[]), "type: "),
        (text(**{**START, "seed": -1}), "seed: -1"),
        (text(**{**START, "seed": True}), "seed: True"),
        (text(**{**START, "num_frames": 1e9}), "num_frames"),
        (text(**{**START, "num_frames": 12}), "num_frames is 12, but a clip has 4k"),
        (text(**{**START, "prompt": "x" * 1001}), "prompt: must be text of at most 1000"),
        (text(**{**START, "paced": 1}), "paced: 1 must be true or false"),
        (text(**{**START, "tracks": "[]"}), "tracks: must be an ardrag.tracks/v1 object"),
        (text(**{**START, "tracks": {**json.loads(PATH.to_json()), "num_frames": 97}}), "tracks: they last 97"),
        (text(type="seen", take=0, frame=1), "take: 0"),
        (text(type="seen", take=1, frame=1, rtt=99), "rtt: "),
        (text(**{**DRAG, "pointers": {}}), "pointers: must be a list"),
        (text(**{**DRAG, "pointers": [{}] * 17}), "pointers: must be a list of at most 16"),
        (text(**{**DRAG, "pointers": [3]}), r"pointers\[0\]: must be an object"),
        (text(**{**DRAG, "pointers": [{"id": 1, "way": []}]}), r"pointers\[0\].way: must be rows"),
        (text(**{**DRAG, "pointers": [{"id": 1, "way": [[0, 0, 0, 1]] * (MAX_WAY + 1)}]}), "at most 1024"),
        (text(**{**DRAG, "pointers": [{"id": 1, "way": [[0, 0, 0]]}]}), r"way\[0\]: must be four finite numbers"),
        (text(**{**DRAG, "pointers": [{"id": 1, "way": [[0, 0, 0, True]]}]}), "four finite numbers"),
        (text(**{**DRAG, "pointers": [{"id": 1, "way": [[0, 1.2, 0, 1]]}]}), "within 0..1"),
        *(
            (text(**{**DRAG, "pointers": [{**DRAG["pointers"][0], "sigma": sigma}]}), r"pointers\[0\].sigma: .* to 1")
            for sigma in (0, 1.1, -0.2, True, "wide")
        ),
        (text(**{**DRAG, "released": "5"}), "released: must be a list"),
    ],
)
def test_everything_else_is_refused_by_name(message, reason):
    with pytest.raises(ValueError, match=reason):
        read_message(message)


def test_pack_tells_its_parts_apart():
    data = pack({"type": "frames"}, [b"abc", b"", b"z"])
    size = int.from_bytes(data[:4], "big")
    assert json.loads(data[4 : 4 + size]) == {"type": "frames", "sizes": [3, 0, 1]}
    assert data[4 + size :] == b"abcz"
    with pytest.raises(ValueError):
        pack({"value": float("nan")}, [])
