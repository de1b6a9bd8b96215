"""What strangers say, through every door, damaged in every way: done, or refused with a sentence; nothing is left."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app_assets.endpoints import read_order, uploaded
from app_assets.gate.doors import Doors
from app_assets.gate.expiring_folder import ExpiringFolder
from app_assets.gate.origins import Origins
from app_assets.player import OVER, Player
from tests.app_assets.conftest import PATH, START
from tests.fuzzing import fuzz, memory_before, peak_memory, refused_or_read


MOST_MIB = 128
"""Memory that thousands of messages may leave behind, at most."""
MOST_TURNS = 200
WHOLE = st.integers(-2, 12) | st.sampled_from([-(1 << 63), 1 << 53, 10**40])
NUMBER = WHOLE | st.floats() | st.booleans() | st.none()
TEXT = st.text(max_size=12) | st.sampled_from(["p", "circle", "../p", "/etc/passwd", "\ud800", "\0", "x" * 2000])
PLAIN = NUMBER | TEXT
JSON = PLAIN | st.lists(PLAIN | st.lists(NUMBER, max_size=4), max_size=3) | st.dictionaries(TEXT, PLAIN, max_size=2)
TRACKS = json.loads(PATH.to_json())
WAY = [[0.0, 0.5, 0.5, 1.0], [20.0, 0.6, 0.5, 1.0]]
STARTS: list[dict[str, Any]] = [
    {**START, "steps": 1, "num_frames": 5},
    {**START, "steps": 1, "num_frames": 13, "paced": True, "tracks": TRACKS},
]
LATER: list[dict[str, Any]] = [
    {"type": "drag", "take": 1, "seq": 1, "seen": 0, "pointers": [{"id": 1, "way": WAY}], "released": [2]},
    {"type": "plan", "take": 1, "num_frames": 13, "tracks": TRACKS},
    {"type": "run", "take": 1, "on": True},
    {"type": "seen", "take": 1, "frame": 3, "rtt": 0.1},
    {"type": "rewind", "take": 1, "latent": 0},
    {"type": "branch", "take": 1, "latent": 1},
    {"type": "cancel", "take": 1},
]
GOOD = STARTS + 3 * LATER
CALL = {"tracks": PATH.to_json(), "prompt": "a", "seed": 0, "num_frames": 13, "steps": 1}


@st.composite
def changed(draw: st.DrawFn, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """One of the samples, with some values replaced, taken out or put in, also deep inside."""
    message: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from(samples))))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = message
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys)) if keys else None
            if key is None or not isinstance(place[key], dict | list) or draw(st.booleans()):
                break
            place = place[key]
        kind = draw(st.sampled_from(["replace", "replace", "take", "put"]))
        if kind == "put" and isinstance(place, dict):
            place[draw(TEXT)] = draw(JSON)
        elif key is not None and kind == "take":
            del place[key]
        elif key is not None:
            place[key] = draw(JSON)
    return message


@st.composite
def texts(draw: st.DrawFn) -> str | bytes:
    """A message as it comes over the socket: often JSON, sometimes cut, sometimes anything."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.text(max_size=64) | st.binary(max_size=64))
    text = json.dumps(draw(changed(GOOD)))
    return text[: draw(st.integers(0, len(text)))] if kind == 1 else text


@pytest.mark.slow
def test_messages_of_the_socket(pipeline: Any, picture: Image.Image) -> None:
    """All come to one visitor after the other, on top of what the ones before have left; latents are really made."""
    heard, messages, before = list[str](), list[bool](), memory_before()

    def find(name: str) -> Image.Image:
        if name != "p":
            raise ValueError("picture: this one is not here any more; choose it again")
        return picture

    def fresh() -> Player:
        player = Player(pipeline, find, 13)
        player.post(json.dumps(STARTS[0]))
        while player.turn() is not OVER:
            pass
        return player

    players = [fresh()]

    @fuzz
    @given(texts())
    def check(text: str | bytes) -> None:
        player = players[0]

        def done() -> None:
            player.post(text)
            for _ in range(MOST_TURNS):
                turn = player.turn()
                if turn is OVER:
                    return
                reply = turn() if callable(turn) else turn
                if reply is not None:
                    heard.append(reply.header["type"])
                    json.dumps(reply.header, allow_nan=False)
            raise AssertionError("a message that is never done with")

        messages.append(refused_or_read(done))
        if len(messages) % 50 == 0:
            player.close()
            players[0] = fresh()

    check()
    assert 0 < sum(messages) < len(messages) and {"started", "frames", "error", "branched", "rewound"} <= set(heard)
    assert peak_memory() - before < MOST_MIB
    print(
        f"{len(messages)} messages, {sum(messages)} read, {heard.count('frames')} latents, "
        f"{heard.count('error')} errors of takes; {before:.0f} to {peak_memory():.0f} MiB"
    )


PATHS = st.sampled_from(
    ["/gradio_api/call/generate", "/gradio_api/queue/join", "/gradio_api/file=", "/picture", "/tracks", "/session/x"]
) | st.text(max_size=40).map(lambda text: "/" + text)
FILES = st.sampled_from(["/etc/passwd", "../x", "app.py", "http://127.0.0.1/x", "\0", "", "~", "x" * 5000]) | TEXT


def request(doors: Doors, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of what the doors answer to a POST."""
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "root_path": "", "query_string": b""}
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    asyncio.run(doors(scope, receive, send))
    return said[0]["status"], said[1]["body"]


@pytest.mark.slow
def test_calls_of_the_endpoints() -> None:
    """Through the doors with any path and any body, and then as the parameters of `/generate`."""
    files, counts, before = ExpiringFolder("ardrag-fuzz-"), {200: 0}, memory_before()
    inside = files.new_place()
    inside.write_bytes(b"x")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})

    doors = Doors(app, files, Origins())
    values = st.fixed_dictionaries(
        {"path": FILES | st.just(str(inside)), "meta": st.just({"_type": "gradio.FileData"})}
    )

    @fuzz
    @given(PATHS, changed([CALL]), values | JSON, st.integers(0, 5))
    def check(path: str, call: dict[str, Any], image: Any, cut: int) -> None:
        body = json.dumps({"data": [image, *call.values()]}).encode()
        status, said = request(doors, path, body[: len(body) // 2] if cut == 0 else body)
        counts[status] = counts.get(status, 0) + 1
        assert status == 200 or json.loads(said)["message"]
        fields = {name: call.get(name) for name in CALL}
        refused_or_read(lambda: read_order(**fields))
        if refused_or_read(lambda: uploaded(image, files, "image")):
            assert image["path"] == str(inside)
            counts["uploads"] = counts.get("uploads", 0) + 1

    try:
        check()
    finally:
        files.close()
    assert {200, 400, 404, 422, "uploads"} <= counts.keys() and peak_memory() - before < MOST_MIB
    print(f"{counts}; {before:.0f} to {peak_memory():.0f} MiB")
