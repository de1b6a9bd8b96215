"""A running server and real sockets: visitors get their own frames, wait their turn, and leave nothing behind."""

from __future__ import annotations

import base64
import gc
import json
import os
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from websockets.exceptions import ConnectionClosed

from app_assets import live, player
from ardrag.tracks.schema import Canvas
from ardrag.tracks.tracks import Tracks
from pipelines.session import Session
from tests.app_assets.conftest import PATH, START, png, until


ROOT = Path(__file__).resolve().parents[2]


def upload(running, colour=(200, 30, 30), name="a.png"):
    content = png(
        Image.effect_noise((40, 40), 60).convert("RGB") if colour is None else Image.new("RGB", (40, 40), colour)
    )
    return httpx.post(f"{running.url}/picture", params={"name": name}, content=content).json()["picture"]


def test_clip_and_files_over_the_socket(run_space):
    running = run_space()
    visitor = running.visit()
    visitor.say(**{**START, "picture": upload(running), "tracks": json.loads(PATH.to_json())})
    visitor.wait("done")
    frames = [part for message in visitor.heard if message["type"] == "frames" for part in message["parts"]]
    assert len(frames) == 13 and visitor.heard[0]["type"] == "seated"
    visitor.say(type="export", take=1, draw=False)
    files = visitor.wait("files")
    assert files["names"] == ["video.mp4", "tracks.json"] and b"ftyp" in files["parts"][0][:16]
    assert Tracks.from_json(files["parts"][1]).num_frames == 13


def test_three_at_once_see_their_own_and_the_fourth_waits(run_space):
    running = run_space(seats=3, waiting=1)
    colours = [(220, 20, 20), (20, 220, 20), (20, 20, 220)]
    visitors = [running.visit() for _ in range(5)]
    for visitor, colour in zip(visitors[:3], colours, strict=True):
        visitor.say(**{**START, "picture": upload(running, colour), "num_frames": 41})
    for visitor in visitors[:3]:
        assert visitor.wait("seated")
    visitors[3].say(**{**START, "picture": upload(running)})
    assert visitors[3].wait("queue")["position"] == 1
    visitors[4].say(**{**START, "picture": upload(running)})
    assert "queue: 1 visitors wait already" in visitors[4].wait("error")["message"]
    for visitor in visitors[:3]:
        visitor.wait("done")
    seen: set[bytes] = set()
    for visitor in visitors[:3]:
        first = next(message for message in visitor.heard if message["type"] == "frames")
        assert first["parts"][0] not in seen, "another visitor's picture"
        seen.add(first["parts"][0])
        assert {message["take"] for message in visitor.heard if "take" in message} == {1}
    visitors[0].socket.close()
    assert visitors[3].wait("seated") and visitors[3].wait("done")


def test_two_visitors_of_one_seed_get_what_each_alone_would_get(run_space):
    running = run_space(seats=2)
    pictures = [upload(running, colour) for colour in ((220, 20, 20), (20, 20, 220))]

    def clip(visitor):
        visitor.wait("done")
        return [part for message in visitor.heard if message["type"] == "frames" for part in message["parts"]]

    alone = []
    for picture in pictures:
        visitor = running.visit()
        visitor.say(**{**START, "picture": picture})
        alone.append(clip(visitor))
        visitor.socket.close()
    together = [running.visit() for _ in pictures]
    for visitor, picture in zip(together, pictures, strict=True):
        visitor.say(**{**START, "picture": picture})
    assert [clip(visitor) for visitor in together] == alone and alone[0] != alone[1]


def test_idle_seat_is_given_to_the_next(run_space):
    running = run_space(seats=1, idle_seconds=0.3)
    first, second = running.visit(), running.visit()
    first.say(**{**START, "picture": upload(running), "paced": True})
    first.wait("started")
    second.say(**{**START, "picture": upload(running), "paced": True})
    assert second.wait("queue")["position"] == 1
    assert first.wait("expired")["seconds"] == 0.3
    assert second.wait("started")
    first.say(type="run", take=1, on=True)
    first.say(**{**START, "picture": upload(running)})
    assert first.wait("done"), "who comes back gets a seat again"


def test_seat_that_others_wait_for_is_given_up_in_time(run_space):
    running = run_space(seats=1, seat_seconds=0.3)
    first, second = running.visit(), running.visit()
    first.say(**{**START, "picture": "circle", "paced": True})
    first.wait("started")
    assert first.socket.recv is not None and not until(lambda: running.space.lobby.taken == 0, seconds=0.6)
    second.say(**{**START, "picture": "circle", "paced": True})
    assert second.wait("queue")["position"] == 1
    first.say(type="run", take=1, on=True)
    assert first.wait("expired") == {"type": "expired", "seconds": 0.3, "idle": False}
    assert second.wait("started")


def test_doors_share_the_model_latent_by_latent(run_space, monkeypatch):
    """Two sockets, one of which has 45 old latents made again, and a program: nobody has two turns while others wait.

    A latent is over when the other two have asked for theirs, however slow this machine is: who is next is then the
    server's choice alone.
    """
    running, order, together, step = run_space(seats=3), [], 24, Session._advance
    flood, calm = running.visit(), running.visit()
    flood.say(**{**START, "picture": "circle", "num_frames": 97, "seed": 1})
    flood.wait("done")

    def held(session, *args):
        made = step(session, *args)
        if len(order) < together:
            order.append(
                session._inputs.seed if until(lambda: running.space.worker._work_queue.qsize() >= 2, 60) else 0
            )
        return made

    monkeypatch.setattr(Session, "_advance", held)  # of a step, and of a stream
    for _ in range(3):
        flood.say(type="branch", take=1, latent=15)
    image = handle_file(ROOT / "examples" / "circle.png")
    job = Client(running.url, verbose=False).submit(image=image, num_frames=61, steps=2, seed=2, api_name="/generate")
    calm.say(**{**START, "picture": "circle", "num_frames": 61, "seed": 3})
    calm.wait("done")
    job.result()
    order = order[max(order.index(seed) for seed in (1, 2, 3)) :]  # beginning a video is a turn too
    shares = [order.count(seed) for seed in (1, 2, 3)]
    assert sum(shares) >= together - 6 and max(shares) <= min(shares) + 1, order
    assert all(one != following for one, following in zip(order, order[1:], strict=False)), order


def test_visitor_who_takes_nothing_is_gone(run_space, monkeypatch):
    monkeypatch.setattr(live, "SEND_SECONDS", 0.3)
    monkeypatch.setattr(player, "encode_frame", lambda frame: os.urandom(200_000))
    running = run_space()
    host, port = running.url.split("//")[1].split(":")
    files = len(os.listdir("/proc/self/fd"))
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.connect((host, int(port)))
        visitor = running.visit(sock=stalled, max_queue=1)
        visitor.say(**{**START, "picture": "circle", "num_frames": 481})
        assert until(lambda: running.space.lobby.taken == 1)
        assert until(lambda: not running.space.connections) and running.space.lobby.taken == 0
    running.sockets.clear()
    assert until(lambda: len(os.listdir("/proc/self/fd")) <= files + 2)


def test_visitors_who_vanish_leave_nothing(run_space):
    running = run_space(seats=3, waiting=200)
    picture = upload(running)
    warm = running.visit()
    warm.say(**{**START, "picture": picture})
    warm.wait("done")
    warm.socket.close()
    assert until(lambda: not running.space.connections)
    files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for i in range(100):
        visitor = running.visit()
        visitor.say(**{**START, "picture": picture, "num_frames": 97})
        if i % 3 == 0:
            visitor.hear()
        visitor.socket.socket.close() if i % 2 else visitor.socket.close()
    running.sockets.clear()
    assert until(lambda: not running.space.connections), "a connection is still served"
    assert (running.space.lobby.taken, running.space.lobby.queued) == (0, 0)
    gc.collect()
    assert until(lambda: threading.active_count() <= threads + 2)
    assert until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= files + 4), "files are still open"
    visitor = running.visit()
    visitor.say(**{**START, "picture": picture})
    assert visitor.wait("done")


def test_nonsense_gets_a_sentence_and_the_server_goes_on(run_space):
    running = run_space()
    visitor = running.visit()
    visitor.socket.send(b"\x00\x01")
    assert "message: binary" in visitor.wait("error")["message"]
    visitor.socket.send('{"type": "drag", "take": 1, "seq": 1, "seen": NaN}')
    assert "NaN is no number" in visitor.wait("error")["message"]
    way = [[0, 0.5, 0.5, 1]] * 10_000
    visitor.say(type="drag", take=1, seq=1, seen=0, pointers=[{"id": 1, "way": way}])
    assert "at most 1024 in one message" in visitor.wait("error")["message"]
    visitor.say(**{**START, "picture": "nobody's"})
    assert "picture: this one is not here any more" in visitor.wait("error")["message"]
    visitor.say(type="rewind", take=99, latent=0)
    assert "take: 99 is not open any more" in visitor.wait("error")["message"]
    visitor.socket.send('{"type":"ping"}')
    assert visitor.wait("pong")
    visitor.say(**{**START, "picture": upload(running)})
    assert visitor.wait("done")


def test_pages_of_other_sites_are_turned_away(run_space):
    running = run_space()
    visitor = running.visit(origin="https://elsewhere.example")
    assert "origin: " in visitor.hear()["message"]
    with pytest.raises(ConnectionClosed):
        visitor.hear()
    headers = {"origin": "https://elsewhere.example"}
    for path in ("/picture", "/session"):
        answer = httpx.post(running.url + path, headers=headers, content=b"x")
        assert answer.status_code == 403 and "another site" in answer.json()["message"]
    assert running.visit(origin=running.url)


def test_events_through_gradios_queue(run_space):
    """Where no socket passes: the same messages as text, control through posts to the session's mailbox."""
    running = run_space()
    session = httpx.post(f"{running.url}/session").json()["session"]
    client = Client(running.url, verbose=False)
    job = client.submit(session, api_name="/events")
    assert httpx.post(f"{running.url}/session/wrong", content="{}").status_code == 404
    for message in ({"type": "jump"}, {**START, "picture": upload(running)}):
        assert httpx.post(f"{running.url}/session/{session}", content=json.dumps(message)).json() == {"sent": True}
    heard = []
    for text in job:
        heard.append(json.loads(text))
        if heard[-1]["type"] == "done":
            break
    assert [message["type"] for message in heard] == ["seated", "error", "started", *["frames"] * 4, "done"]
    frames = [part for message in heard if message["type"] == "frames" for part in message["parts"]]
    assert len(frames) == 13 and base64.b64decode(frames[0])[:4] == b"RIFF"
    running.space.mailboxes.find(session).close()
    assert until(job.done)
    assert httpx.post(f"{running.url}/session/{session}", content="{}").status_code == 404


def test_endpoint_for_programs(run_space, tmp_path):
    running = run_space(max_frames=41)
    (tmp_path / "a.png").write_bytes(png(Image.new("L", (50, 50), 90)))
    client = Client(running.url, verbose=False)
    arguments = {"image": handle_file(tmp_path / "a.png"), "seed": 3, "num_frames": 13, "steps": 2}
    job = client.submit(**arguments, tracks=PATH.to_json(), prompt="a red star", api_name="/generate")
    *steps, (made, video, tracks) = list(job)
    assert [step[0]["made"] for step in steps] == [1, 5, 9, 13]
    assert all(url.startswith("data:image/webp") for step in steps for url in step[0]["frames"])
    assert made is None and b"ftyp" in Path(video).read_bytes()[:16]
    source = {"tool": "ardrag-generate", "prompt": "a red star", "seed": 3, "steps": 2}
    assert Tracks.from_json(tracks) == replace(PATH, source=source)
    wrong = [
        ({"num_frames": 45}, "num_frames: 45 is more than 41"),
        ({"num_frames": 12}, "4k"),
        ({"seed": -1}, "seed"),
    ]
    for change, reason in wrong:
        with pytest.raises(Exception, match=reason):
            client.predict(**{**arguments, **change}, api_name="/generate")
    with pytest.raises(Exception, match="not JSON"):
        client.predict(**arguments, tracks="{", api_name="/generate")


def test_tracks_for_programs_go_through_the_crop_of_their_picture(run_space, tmp_path):
    running = run_space()
    client = Client(running.url, verbose=False)
    side = running.space.pipe.config.buckets[0][0]
    portrait = Image.effect_noise((side, 2 * side), 90).convert("RGB")
    square = portrait.crop((0, side // 2, side, 3 * side // 2))
    made = []
    for picture, y in ((portrait, 0.375), (square, 0.25)):  # the middle half of the portrait: y = 2 * 0.375 - 0.5
        picture.save(tmp_path / "picture.png")
        tracks = Tracks.from_points([[(0, 0.25, y), (8, 0.75, y)]], num_frames=9)
        arguments = {"image": handle_file(tmp_path / "picture.png"), "tracks": tracks.to_json(), "num_frames": 9}
        *steps, _ = list(client.submit(**arguments, api_name="/generate"))
        made.append([url for step in steps for url in step[0]["frames"]])
    assert made[0] == made[1] and len(made[0]) == 9
    wrong = replace(tracks, canvas=Canvas(640, 480)).to_json()
    with pytest.raises(Exception, match="canvas: the tracks were drawn on 640 x 480"):
        client.predict(image=handle_file(tmp_path / "picture.png"), tracks=wrong, num_frames=9, api_name="/generate")


def test_snippet_of_the_readme_runs_as_written(run_space, monkeypatch, capsys):
    snippets = re.findall(r"```py\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    (snippet,) = (snippet for snippet in snippets if "gradio_client" in snippet)
    monkeypatch.chdir(ROOT)
    exec(snippet.replace("http://127.0.0.1:7860", run_space().url), {"__name__": "readme"})
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == "33 of 33 frames" and said[-1].endswith("33")


def test_uploads_too_large_are_cut_short(run_space):
    running = run_space()
    answer = httpx.post(f"{running.url}/picture", params={"name": "big.png"}, content=b"0" * (21 << 20), timeout=60)
    assert answer.status_code == 413 and "big.png has more than 20 MB" in answer.json()["message"]


def test_page_and_its_settings(run_space):
    running = run_space(max_frames=65)
    page = httpx.get(running.url)
    assert "script-src 'self'" in page.headers["content-security-policy"] and 'src="web/app.js"' in page.text
    for name in ("app.js", "style.css", "tracks.js"):
        assert httpx.get(f"{running.url}/web/{name}").status_code == 200
    settings = httpx.get(f"{running.url}/settings.json").json()
    quiet = httpx.get(f"{run_space(sockets=False).url}/settings.json").json()
    assert quiet["transport"] == "events"
    assert settings["maxFrames"] == 65 and settings["transport"] == "socket" and len(settings["examples"]) >= 3
    assert (settings["control"], settings["brush"]) == ("heat", None)
    assert httpx.get(f"{running.url}/web/../app.py").status_code == 404
