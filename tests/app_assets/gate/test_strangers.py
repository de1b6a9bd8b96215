"""What a stranger may try on the open net: each way to a file, a limit or another visitor ends in one sentence."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from PIL import Image
from websockets.exceptions import InvalidStatus

from app_assets.gate import body, doors
from tests.app_assets.conftest import PATH, START, png, started, until


META = {"_type": "gradio.FileData"}
COLOUR = (203, 17, 91)
HTTP = httpx.Client(timeout=60)


@pytest.fixture(scope="module")
def running(pipeline):
    with started(pipeline, max_frames=13) as one:
        yield one


@pytest.fixture
def secret(tmp_path):
    """A picture that nobody uploaded, and whose content is easily told."""
    (tmp_path / "secret.png").write_bytes(png(Image.new("RGB", (40, 40), COLOUR)))
    return tmp_path / "secret.png"


def call(running, image, tracks="", prompt="", seed=0, num_frames=5, steps=1, track_file=None):
    """All that `/generate` answers, as text."""
    sent = {"data": [image, tracks, prompt, seed, num_frames, steps, track_file]}
    answer = HTTP.post(f"{running.url}/gradio_api/call/generate", json=sent)
    if answer.status_code != 200:
        return answer.text
    return HTTP.get(f"{running.url}/gradio_api/call/generate/{answer.json()['event_id']}").text


def upload(running, name="a.png", colour=(10, 200, 30)):
    files = {"files": (name, png(Image.new("RGB", (40, 40), colour)))}
    return HTTP.post(f"{running.url}/gradio_api/upload", files=files)


def as_file(path, **rest):
    return {"path": str(path), "meta": META, **rest}


def dotted(running, path):
    return running.space.files.folder / ".." / path.relative_to("/tmp") if path.is_relative_to("/tmp") else path


def linked(running, path):
    link = running.space.files.folder / "link.png"
    link.symlink_to(path)
    return link


WAYS_TO_NAME_A_FILE = {
    "a path alone": lambda running, path: {"path": str(path)},
    "a path that says it is Gradio's": lambda running, path: as_file(path),
    "an upload's path and dots": lambda running, path: as_file(dotted(running, path)),
    "a relative path": lambda running, path: as_file("../" * 30 + str(path)),
    "a link among the uploads": lambda running, path: as_file(linked(running, path)),
    "the folder of the uploads": lambda running, path: as_file(running.space.files.folder),
    "a file of the application": lambda running, path: as_file("app.py"),
    "a file address": lambda running, path: as_file(f"file://{path}"),
    "a stream": lambda running, path: as_file(path, is_stream=True),
    "text": lambda running, path: str(path),
    "a list": lambda running, path: [as_file(path)],
    "a picture in itself": lambda running, path: "data:image/png;base64,iVBORw0KGgo=",
    "nothing": lambda running, path: None,
    "a zero byte": lambda running, path: as_file(f"{path}\0.png"),
    "a very long name": lambda running, path: as_file("/" + "a" * 10_000),
}


@pytest.mark.parametrize("way", WAYS_TO_NAME_A_FILE.values(), ids=WAYS_TO_NAME_A_FILE)
def test_pictures_are_uploads_and_nothing_tells_whether_a_file_exists(running, secret, way):
    there = call(running, way(running, secret))
    for link in running.space.files.folder.glob("link.png"):
        link.unlink()
    assert doors.UPLOAD_FIRST in there and "webp" not in there and str(secret) not in there
    assert call(running, way(running, secret.with_name("nothing.png"))) == there


def test_uploads_work_and_their_own_names_lead_nowhere(running):
    for name in ("a.png", "../../../../tmp/evil.png", "/etc/evil.png", "C:\\evil.png", "x" * 400 + ".png"):
        (path,) = upload(running, name).json()
        assert Path(path).resolve().is_relative_to(running.space.files.folder) and Path(path).is_file()
        assert "event: complete" in call(running, as_file(path))
    assert upload(running, "..").status_code == 400


class Neighbour:
    """A server that only this one can reach; remembers who came."""

    def __init__(self):
        seen = self.seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append(self.path)
                self.send_response(200)
                self.end_headers()

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret.png"


@pytest.fixture
def neighbour():
    one = Neighbour()
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_nothing_is_fetched_for_a_stranger(running, neighbour):
    good = upload(running).json()[0]
    for named in (as_file(neighbour.url), as_file("http://localhost/x"), {"path": neighbour.url}):
        assert doors.UPLOAD_FIRST in call(running, named)
    assert doors.UPLOAD_FIRST in call(running, as_file(good), prompt=as_file(neighbour.url))
    call(running, as_file(good, url=neighbour.url))
    call(running, as_file(good), tracks=json.dumps({**json.loads(PATH.to_json()), "source": as_file(neighbour.url)}))
    for path in ("/gradio_api/file=", "/gradio_api/proxy=", "/gradio_api/file/"):
        assert HTTP.get(f"{running.url}{path}{neighbour.url}").status_code == 404
    assert neighbour.seen == []


def test_tracks_name_no_files_either(running, secret):
    """Gradio hands out every file that an answer names; a track file's own notes are not given back."""
    good = as_file(upload(running).json()[0])
    tracks = {**json.loads(PATH.to_json()), "source": {"a": [as_file("README.md"), as_file(secret)]}}
    said = call(running, good, tracks=json.dumps(tracks), num_frames=13)
    assert "event: complete" in said and "README" not in said and "secret" not in said
    for value in (as_file(secret), str(secret)):
        for answer in (call(running, good, tracks=value), call(running, good, track_file=value)):
            assert "event: complete" not in answer and "webp" not in answer
    assert doors.UPLOAD_FIRST in call(running, good, track_file=str(secret))


CLOSED = [
    "GET /gradio_api/file=app.py",
    "GET /gradio_api/file=/etc/passwd",
    "GET /gradio_api/file=..%2f..%2fetc%2fpasswd",
    "GET /gradio_api/file/etc/passwd",
    "GET /file=/etc/passwd",
    "GET /web/../app.py",
    "GET /web/..%2f..%2fapp.py",
    "GET /web/%2e%2e/%2e%2e/etc/passwd",
    "GET /web//etc/passwd",
    "GET /static/..%2f..%2froutes.py",
    "GET /assets/..%2f..%2froutes.py",
    "GET /gradio_api/custom_component/x/client/component/..%2f..%2fx",
    "GET /gradio_api/stream/a/b/1/playlist-file",
    "GET /gradio_api/deep_link?session_hash=a",
    "GET /gradio_api/run-history/records",
    "GET /gradio_api/vibe-code",
    "GET /openapi.json",
    "GET /monitoring/summary",
    "GET /gradio_api/queue/status",
    "POST /gradio_api/process_recording",
    "POST /gradio_api/component_server",
    "POST /gradio_api/run/generate",
    "POST /gradio_api/api/generate",
    "POST /gradio_api/vibe-edit",
    "POST /session/..%2f..%2fetc%2fpasswd",
    "POST /session/unknown",
]


def test_what_gradio_opens_besides_is_closed(running):
    for door in CLOSED:
        method, path = door.split(" ")
        raw = httpx.URL(running.url + "/").copy_with(raw_path=path.encode())
        answer = HTTP.request(method, raw, json={"data": []} if method == "POST" else None)
        assert answer.status_code == 404 and "root:" not in answer.text and "import" not in answer.text, door


def test_mail_and_videos_of_others_are_out_of_reach(running):
    name = HTTP.post(f"{running.url}/session").json()["session"]
    box = running.space.mailboxes.folder / name
    assert box.is_file()
    assert HTTP.get(f"{running.url}/gradio_api/file={box}").status_code == 404
    assert doors.UPLOAD_FIRST in call(running, as_file(box))
    said = call(running, as_file(upload(running).json()[0]), seed=7)
    (video,) = running.space.files.folder.glob("*/ardrag-7.mp4")
    assert str(video) in said and len(video.parent.name) >= 32
    assert HTTP.get(f"{running.url}/gradio_api/file={video}").content[4:8] == b"ftyp"


def test_socket_names_no_files_and_no_takes_of_others(running, secret):
    first, second = running.visit(), running.visit()
    first.say(**{**START, "picture": "circle", "paced": True})
    first.wait("started")
    for name in (str(secret), f"../{secret}", "../examples/circle.png", "data:image/png;base64,AA", "", "\0"):
        second.say(**{**START, "picture": name})
        assert second.wait("error")["message"] == "picture: this one is not here any more; choose it again"
    for message in ({"type": "export", "draw": False}, {"type": "cancel"}, {"type": "branch", "latent": 0}):
        second.say(take=1, **message)
        assert "take: 1 is not open any more (open: none)" in second.wait("error")["message"]
    with pytest.raises(InvalidStatus):
        running.visit("/gradio_api/queue/join")


WRONG = {
    "steps": ({"steps": 2500}, "steps: 2500 must be a whole number from 1 to 64"),
    "steps as text": ({"steps": "3"}, "steps: 3 must be a whole number"),
    "steps that are true": ({"steps": True}, "steps: True must be a whole number"),
    "length": ({"num_frames": 17}, "num_frames: 17 is more than 13, the most here"),
    "length as text": ({"num_frames": "5"}, "num_frames: 5 must be a whole number"),
    "no length": ({"num_frames": None}, "num_frames: None must be a whole number"),
    "seed": ({"seed": 10**30}, "must be a whole number from 0 to"),
    "seed as text": ({"seed": "0"}, "seed: 0 must be a whole number"),
    "prompt": ({"prompt": "x" * 1001}, "prompt: must be text of at most 1000 characters"),
    "no prompt": ({"prompt": None}, "prompt: must be text"),
    "tracks as an object": ({"tracks": {"num_frames": 5}}, "tracks: got dict, not text"),
    "no tracks": ({"tracks": None}, "tracks: got NoneType, not text"),
    "tracks that are none": ({"tracks": "{"}, "tracks: not JSON"),
    "tracks that are a list": ({"tracks": "[]"}, "tracks: must be an ardrag.tracks/v1 object"),
    "many edits": ({"tracks": json.dumps({**json.loads(PATH.to_json()), "edits": [{}] * 300})}, "300 edits, at most"),
}


@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_endpoint_has_the_sockets_limits_and_says_so(running, change, reason):
    said = call(running, as_file(upload(running).json()[0]), **change)
    assert reason in said and "webp" not in said and "show_error" not in said


def test_calls_that_are_too_much(running, monkeypatch):
    join = f"{running.url}/gradio_api/queue/join"
    assert HTTP.post(join, content=b"[" * 100_000).status_code == 400
    assert HTTP.post(join, content=b"[" * 500 + b"]" * 500).status_code == 400
    assert HTTP.post(join, content=b"0" * (3 << 20)).status_code == 413
    assert HTTP.post(f"{running.url}/session/x", content=b"0" * (3 << 20)).status_code == 413
    big = [("files", (f"{i}.png", b"0" * (6 << 20))) for i in range(4)]
    assert HTTP.post(f"{running.url}/gradio_api/upload", files=big).status_code == 413
    one = {"files": ("a.png", b"0" * ((20 << 20) + 1))}
    assert HTTP.post(f"{running.url}/gradio_api/upload", files=one).status_code == 413
    monkeypatch.setattr(body, "MAX_COMING", 1000)
    for path in ("/picture", "/tracks?width=8&height=8&num_frames=9"):
        assert HTTP.post(running.url + path, content=b"0" * 2000).status_code == 413


def test_bodies_that_never_end_are_cut_off(running, monkeypatch):
    monkeypatch.setattr(body, "BODY_SECONDS", 0.3)
    host, port = running.url.split("//")[1].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(b"POST /picture HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab")
        assert b" 413 " in slow.recv(1000)
    assert HTTP.post(f"{running.url}/session").status_code == 200


def test_too_many_at_once_are_turned_away_and_forgotten(running, monkeypatch):
    for one in running.sockets:
        one.close()
    assert until(lambda: not running.space.connections)
    monkeypatch.setattr(doors, "MAX_OPEN", 5)
    visitors = [running.visit() for _ in range(5)]
    with pytest.raises(InvalidStatus):
        running.visit()
    assert HTTP.get(f"{running.url}/settings.json").status_code == 503
    for visitor in visitors:
        visitor.socket.close()
    assert until(lambda: HTTP.get(f"{running.url}/settings.json").status_code == 200)
    running.visit().socket.close()


def test_pages_of_other_sites_reach_no_door(running):
    headers = {"origin": "https://elsewhere.example"}
    for path in ("/picture", "/tracks", "/session", "/session/x", "/gradio_api/upload", "/gradio_api/queue/join"):
        answer = HTTP.post(running.url + path, headers=headers, content=b"{}")
        assert answer.status_code == 403 and "another site" in answer.json()["message"]
    assert HTTP.post(f"{running.url}/session", headers={"origin": running.url}).status_code == 200


def test_files_named_in_a_call_are_found_wherever_they_are():
    deep = as_file("a")
    for _ in range(10):
        deep = {"x": [deep, 1, None]}
    assert [one["path"] for one in doors.named_files(deep)] == ["a"]
    with pytest.raises(ValueError, match="too deep"):
        list(doors.named_files(json.loads("[" * 40 + "]" * 40)))


def test_body_is_counted_while_it_is_here():
    async def run():
        parts = [{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"c"}]

        async def receive():
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        coming = body.Coming()
        one = body.Body(receive, 3, coming)
        assert await one.whole() == b"abc" and coming.size == 3
        assert (await one.receive())["body"] == b"abc" and (await one.receive())["type"] == "http.disconnect"
        one.close()
        assert coming.size == 0

    asyncio.run(run())
