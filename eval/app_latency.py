"""How fast the Space answers: press to first moved frame, live rate and lag, measured on a running server.

    python -m eval.app_latency [--model FOLDER] [--rounds 9] [--visitors 3 8]

Starts `app.py` as a process of its own and talks to it over its socket, as the page does: frames are decoded when they
come, shown at the video's own rate, and what is shown is told to the server. Times are those of a visitor: the way of
every message counts, the browser's painting does not.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm
from websockets.sync.client import ClientConnection, connect

from eval.model import SPACE_NAME
from eval.record import REPOSITORY, record_lines, run_record, write_json, write_text


START_SECONDS = 300.0
SPARE_FRAMES = 16
"""By which a clip is longer than what its visitor will see of it."""
GOALS = {"press_ms": 1000, "live_fps": 12}


@dataclass
class Live:
    """What one visitor met while they dragged."""

    press_ms: float
    """Press to the arrival of the first frame that is not the picture itself."""
    frames: int = 0
    late: int = 0
    """Frames that were not there when their time had come."""
    seconds: float = 0.0
    lags: list[int] = field(default_factory=list)
    """Frames between what was on the screen at a drag and the first that it reached."""


class Page:
    """One visitor: says what a page would say, and keeps a clock of what is on the screen."""

    def __init__(self, url: str, **options: Any) -> None:
        address = url.rstrip("/").replace("http", "ws", 1) + "/live"
        self.socket: ClientConnection = connect(address, max_size=None, **options)

    def say(self, **message: Any) -> None:
        """Send one message."""
        self.socket.send(json.dumps(message))

    def hear(self, timeout: float | None = 60) -> dict[str, Any]:
        """Wait for one message; its pictures are decoded.

        Raises:
            RuntimeError: if the server says that something is wrong.
        """
        data = self.socket.recv(timeout)
        if isinstance(data, str):
            message = json.loads(data)
        else:
            size = int.from_bytes(data[:4], "big")
            message, at = json.loads(data[4 : 4 + size]), 4 + size
            for length in message["sizes"]:
                Image.open(io.BytesIO(data[at : at + length])).load()
                at += length
        if message["type"] == "error":
            raise RuntimeError(message["message"])
        return message

    def wait(self, kind: str) -> dict[str, Any]:
        """Wait for a message of one kind."""
        while (message := self.hear())["type"] != kind:
            pass
        return message

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def clip_frames(shown: float) -> int:
    """Frames of a clip in which ``shown`` of them can be seen before it ends, with some to spare: 4k + 1."""
    return 4 * math.ceil(shown / 4) + SPARE_FRAMES + 1


def live(url: str, example: dict[str, Any], steps: int, fps: float, seconds: float, seed: int) -> Live:
    """Press on an example where its first track begins, drag to where it ends for ``seconds``, let go."""
    page = Page(url)
    try:
        order = {"prompt": example["prompt"], "seed": seed, "steps": steps, "tracks": None, "paced": True}
        page.say(type="start", picture=example["picture"], num_frames=clip_frames(fps * seconds), **order)
        page.wait("started")  # the page asks for this when the pointer comes near
        points = example["tracks"]["tracks"][0]["points"]
        start, end = ((points[i]["x"], points[i]["y"]) for i in (0, -1))
        pressed = time.perf_counter()
        drag(page, 1, -1, 0.0, start)
        while page.wait("frames")["first"] == 0:
            pass
        made, found = 5, Live(press_ms=1000 * (time.perf_counter() - pressed))
        began, shown, seq = time.perf_counter(), 0, 1
        while (now := time.perf_counter() - began) < seconds:
            if shown + 1 < made and now >= (shown + 1) / fps:
                shown += 1
                page.say(type="seen", take=1, frame=shown)
            elif now >= (shown + 1 + found.late) / fps:
                found.late += 1
            share = min(1.0, now / seconds)
            seq += 1
            drag(page, seq, shown, 1000 * now, tuple(a + share * (b - a) for a, b in zip(start, end, strict=True)))
            for message in arrived(page, 0.5 / fps):
                made = message["first"] + len(message["sizes"])
                found.lags += [message["lag"]] if message["lag"] is not None else []
        found.frames, found.seconds = shown, time.perf_counter() - began
        return found
    finally:
        page.close()


def drag(page: Page, seq: int, seen: int, ms: float, place: Sequence[float]) -> None:
    """Say where the pointer is."""
    page.say(type="drag", take=1, seq=seq, seen=seen, pointers=[{"id": 1, "way": [[ms, *place, 1.0]]}], released=[])


def arrived(page: Page, seconds: float) -> Iterator[dict[str, Any]]:
    """Frames that come within ``seconds``."""
    end = time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        try:
            message = page.hear(left)
        except TimeoutError:
            return
        if message["type"] == "frames":
            yield message


def whole_clip(url: str, example: dict[str, Any], steps: int, num_frames: int) -> float:
    """Frames per second of a clip that is made as fast as possible, from its first latent's arrival on."""
    page = Page(url)
    try:
        order = {"prompt": example["prompt"], "seed": 0, "steps": steps, "tracks": None, "paced": False}
        page.say(type="start", picture=example["picture"], num_frames=num_frames, **order)
        page.wait("frames")
        began = time.perf_counter()
        page.wait("done")
        return (num_frames - 1) / (time.perf_counter() - began)
    finally:
        page.close()


def together(visitors: int, function: Any) -> list[Any]:
    """Run ``function`` for several visitors at once."""
    results: list[Any] = [None] * visitors
    threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, function(i))) for i in range(visitors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if None in results:
        raise RuntimeError("a visitor was not served; see the messages above")
    return results


def measure(url: str, rounds: int, visitors: Sequence[int], seconds: float) -> dict[str, Any]:
    """All measurements on the server at ``url``."""
    with urllib.request.urlopen(url.rstrip("/") + "/settings.json") as answer:
        settings = json.load(answer)
    example, fps, steps = settings["examples"][0], settings["fps"], settings["steps"]
    live(url, example, steps, fps, 1.0, 0)  # warm-up
    one = [live(url, example, steps, fps, seconds, seed) for seed in tqdm(range(rounds), desc="one visitor")]
    clips = [whole_clip(url, example, steps, 65) for _ in range(min(3, rounds))]
    many = {n: together(n, lambda i: live(url, example, steps, fps, seconds, i)) for n in visitors}
    return {
        "one": summary(one),
        "many": [{**summary(found), "visitors": count} for count, found in many.items()],
        "clip_fps": statistics.median(clips),
        "rounds": rounds,
        "video_fps": fps,
        "steps": steps,
    }


def summary(found: Sequence[Live]) -> dict[str, Any]:
    """Medians over visits, and the worst press."""
    presses = [visit.press_ms for visit in found]
    return {
        "press_ms": statistics.median(presses),
        "press_ms_worst": max(presses),
        "live_fps": statistics.median(visit.frames / visit.seconds for visit in found),
        "lag_frames": statistics.median(lag for visit in found for lag in visit.lags),
        "late_frames": sum(visit.late for visit in found) / sum(max(1, visit.frames) for visit in found),
    }


class App(NamedTuple):
    """A running Space: its address, and the process that it is."""

    url: str
    pid: int


@contextmanager
def running_app(model: str | None, folder: Path | None = None) -> Iterator[App]:
    """Start the Space as a process, with its temporary files in ``folder`` if one is given.

    Raises:
        ValueError: if it does not come up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), "--host", "127.0.0.1", "--seats", "16"]
    place = {} if folder is None else {"TMPDIR": str(folder)}
    process = subprocess.Popen(
        [*command, *(["--model", model] if model else [])], cwd=REPOSITORY, env={**os.environ, **place}
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(url + "settings.json"):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise ValueError("model: the Space did not start; run python app.py to see why") from None
                time.sleep(0.2)
        yield App(url, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def markdown(results: dict[str, Any]) -> str:
    """The page that `docs/results/app_latency.md` holds."""
    one, many = results["one"], results["many"]
    heads = [f"{found['visitors']} at once" for found in many]
    rows = [
        ("press to first moved frame, median", "{press_ms:.0f} ms"),
        ("the same, worst", "{press_ms_worst:.0f} ms"),
        (f"live, frames shown per second (the video plays at {results['video_fps']:g})", "{live_fps:.1f}"),
        ("frames that came late", "{late_frames:.1%}"),
        ("lag of a drag, median", "{lag_frames:g} frames"),
    ]
    return "\n".join(
        [
            "# The Space's speed",
            "",
            f"`app.py` as a process of its own, a visitor on its socket; {results['rounds']} visits, model "
            f"`{results['model']}`, "
            f"{results['steps']} steps per latent. Goals: first moved frame under {GOALS['press_ms']} ms, live at "
            f"{GOALS['live_fps']} frames per second or more.",
            "",
            f"| | one visitor | {' | '.join(heads)} |",
            "|---" * (2 + len(many)) + "|",
            *(f"| {name} | {' | '.join(text.format(**found) for found in (one, *many))} |" for name, text in rows),
            "",
            f"A clip made as fast as possible comes at {results['clip_fps']:.0f} frames per second.",
            "",
            *record_lines(results["record"]),
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="folder or Hub name (default: the bundled checkpoint)")
    parser.add_argument("--rounds", type=int, default=9, help="visits one after the other")
    parser.add_argument("--visitors", type=int, nargs="+", default=[3, 8], help="numbers of visitors at once")
    parser.add_argument("--report_name", default="app_latency", help="name of the results' files")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each drags")
    parser.add_argument("--output_dir", type=Path, default=Path("docs/results"), help="where the results go")
    options = parser.parse_args(arguments)
    if min(options.rounds, *options.visitors) < 1 or options.seconds <= 0:
        parser.error("rounds, visitors and seconds must be above 0")
    record = run_record("eval.app_latency", arguments)
    with running_app(options.model) as app:
        results = {
            **measure(app.url, options.rounds, options.visitors, options.seconds),
            "record": record,
            "model": options.model or SPACE_NAME,
        }
    write_json(options.output_dir / f"{options.report_name}.json", results)
    write_text(options.output_dir / f"{options.report_name}.md", markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
