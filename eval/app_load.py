"""Whether the Space bears a crowd, some of whom mean it ill: who gets how much, what is kept, what is left afterwards.

    python -m eval.app_load [--model FOLDER] [--visitors 8] [--minutes 10]

Starts `app.py` as a process of its own. Visitors drag live, take after take. Beside them one floods the server with
messages, one begins clips and never reads, one vanishes in the middle of every clip, and a program asks for 2,500
steps. Memory is the resident size of the server's process.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from eval.app_latency import App, Live, Page, live, running_app
from eval.record import record_lines, run_record, write_json, write_text


TAKE_SECONDS = 15.0
"""How long a visitor drags before they begin another take."""
SEATS = 16
GOALS = {"fairness": 1.5, "growth_mib": 64}
STEPS = 2500
STALL_SECONDS = 30.0


class Crowd:
    """Threads that go on until the time is up; what each did, by name."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.did: dict[str, list[Any]] = {}
        self._threads: list[threading.Thread] = []

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.end

    def join(self, name: str, act: Callable[[], Any]) -> None:
        """Let one more do ``act`` again and again; what breaks a connection is counted as having been cut off."""
        done = self.did.setdefault(name, [])

        def run() -> None:
            while not self.over:
                try:
                    done.append(act())
                except (ConnectionClosed, OSError, RuntimeError, TimeoutError) as error:
                    done.append(str(error)[:80] or type(error).__name__)
                    time.sleep(0.2)

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def wait(self, sample: Callable[[], None]) -> None:
        """Wait until all are gone, and ``sample`` every second."""
        while any(thread.is_alive() for thread in self._threads):
            sample()
            time.sleep(1.0)


def flood(url: str, order: dict[str, Any], crowd: Crowd) -> int:
    """Say as much as one can for a take's time, also nonsense; gives how many messages were taken."""
    page, sent, end = Page(url), 0, time.monotonic() + TAKE_SECONDS
    reader = threading.Thread(target=_discard, args=(page,), daemon=True)
    reader.start()
    try:
        page.say(type="start", num_frames=97, paced=False, **order)
        while time.monotonic() < end and not crowd.over:
            way = [[float(i), 0.5, 0.5, 1.0] for i in range(200)]
            page.say(type="drag", take=1, seq=sent, seen=0, pointers=[{"id": 1, "way": way}], released=[])
            page.say(type="branch", take=1, latent=1)
            page.socket.send("[" * 1000)
            sent += 3
        return sent
    finally:
        page.close()


def _discard(page: Page) -> None:
    with suppress(ConnectionClosed, OSError):
        while True:
            page.socket.recv()


def stall(url: str, order: dict[str, Any]) -> str:
    """Begin the longest clip and take nothing of it for a while."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = url.rstrip("/").split("//")[1].split(":")
        one.connect((host, int(port)))
        page = Page(url, sock=one, max_queue=1)
        page.say(type="start", num_frames=481, paced=False, **order)
        time.sleep(STALL_SECONDS)
    return "left"


def vanish(url: str, order: dict[str, Any]) -> str:
    """Begin a clip, and be gone without a word."""
    page = Page(url)
    page.say(type="start", num_frames=97, paced=False, **order)
    page.socket.recv(60)
    page.socket.socket.close()
    time.sleep(0.5)
    return "gone"


def ask_too_much(url: str) -> str:
    """Ask for far too many steps of an uploaded picture; gives what the server says."""
    picture = (Path(__file__).resolve().parents[1] / "examples" / "circle.png").read_bytes()
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    (path,) = json.loads(_post(url + "gradio_api/upload", head + picture + b"\r\n--x--\r\n", form))
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    data = json.dumps({"data": [image, "", "", 0, 33, STEPS, None]}).encode()
    event = json.loads(_post(url + "gradio_api/call/generate", data, {"Content-Type": "application/json"}))["event_id"]
    with urllib.request.urlopen(url + f"gradio_api/call/generate/{event}", timeout=60) as answer:
        said = answer.read().decode()
    time.sleep(2.0)
    return "refused" if f"steps: {STEPS} must be" in said else said[:80]


def _post(url: str, content: bytes, headers: dict[str, str]) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, content, headers), timeout=60) as answer:
        found: bytes = answer.read()
    return found


def resident_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def left_behind(app: App, folder: Path) -> dict[str, int]:
    """Open files of the server, and files in its temporary folder."""
    files = sum(path.is_file() for path in folder.rglob("*"))
    return {"open_files": len(list(Path(f"/proc/{app.pid}/fd").iterdir())), "files": files}


def free_seats(url: str, order: dict[str, Any]) -> int:
    """How many of as many visitors as there are seats get one at once."""
    pages = [Page(url) for _ in range(SEATS)]
    try:
        for page in pages:
            page.say(type="start", num_frames=5, paced=True, **order)
        return sum(page.hear()["type"] == "seated" for page in pages)
    finally:
        for page in pages:
            page.close()


def measure(app: App, folder: Path, visitors: int, minutes: float) -> dict[str, Any]:
    """Let the crowd in; gives what each got and what the server kept."""
    with urllib.request.urlopen(app.url + "settings.json") as answer:
        settings = json.load(answer)
    example, fps, steps = settings["examples"][0], settings["fps"], settings["steps"]
    order = {"picture": example["picture"], "prompt": "", "seed": 0, "steps": steps, "tracks": None}
    live(app.url, example, steps, fps, 1.0, 0)  # warm-up
    before, memory, began = left_behind(app, folder), list[float](), time.monotonic()
    crowd = Crowd(60 * minutes)
    for i in range(visitors):
        crowd.join(f"visitor {i + 1}", lambda i=i: live(app.url, example, steps, fps, TAKE_SECONDS, i))
    crowd.join("floods", lambda: flood(app.url, order, crowd))
    crowd.join("stalls", lambda: stall(app.url, order))
    crowd.join("vanishes", lambda: vanish(app.url, order))
    crowd.join("asks too much", lambda: ask_too_much(app.url))
    crowd.wait(lambda: memory.append(resident_mib(app.pid)))
    seconds = time.monotonic() - began
    time.sleep(STALL_SECONDS)  # in which a server gives up who does not read
    return {
        "visitors": [summary(crowd.did[f"visitor {i + 1}"]) for i in range(visitors)],
        "others": {name: did for name, did in crowd.did.items() if not name.startswith("visitor")},
        "memory_mib": [statistics.median(memory[i : i + 60]) for i in range(0, len(memory), 60)],
        "before": before,
        "after": left_behind(app, folder),
        "free_seats": free_seats(app.url, order),
        "seconds": seconds,
        "video_fps": fps,
        "steps": steps,
    }


def summary(takes: Sequence[Live | str]) -> dict[str, Any]:
    """What one visitor met: frames shown a second while they dragged, the median press, and what broke."""
    good = [take for take in takes if isinstance(take, Live)]
    return {
        "takes": len(good),
        "fps": sum(take.frames for take in good) / max(1e-9, sum(take.seconds for take in good)),
        "press_ms": statistics.median(take.press_ms for take in good) if good else None,
        "broken": [take for take in takes if not isinstance(take, Live)],
    }


def fairness(visitors: Sequence[dict[str, Any]]) -> float:
    """The fastest visitor's rate against the slowest's.

    Raises:
        RuntimeError: if a visitor saw nothing; it tells what their takes broke off with.
    """
    for number, visitor in enumerate(visitors, start=1):
        if not visitor["takes"]:
            raise RuntimeError(f"visitor {number} saw no take to its end: {visitor['broken'][:1]}")
    rates = [visitor["fps"] for visitor in visitors]
    return max(rates) / min(rates)


def growth(memory: Sequence[float]) -> float:
    """MiB by which the highest minute from the third on lies above the second."""
    return max(memory[2:], default=memory[-1]) - memory[min(1, len(memory) - 1)]


def markdown(results: dict[str, Any]) -> str:
    """The page that `docs/results/app_load.md` holds."""
    visitors, others, before, after = (results[name] for name in ("visitors", "others", "before", "after"))
    broken = sum(len(visitor["broken"]) for visitor in visitors)
    refused = sum(said == "refused" for said in others["asks too much"])
    messages = sum(sent for sent in others["floods"] if isinstance(sent, int))
    grown = f"{growth(results['memory_mib']):+.0f} MiB (goal: under {GOALS['growth_mib']})"
    rows = [
        ("fastest against slowest visitor", f"{fairness(visitors):.2f} (goal: at most {GOALS['fairness']})"),
        ("takes that broke off", f"{broken} of {broken + sum(visitor['takes'] for visitor in visitors)}"),
        ("memory after the second minute", grown),
        ("seats free afterwards", f"{results['free_seats']} of {SEATS}"),
        ("open files before, after", f"{before['open_files']}, {after['open_files']}"),
        ("files before, after, after the server's end", f"{before['files']}, {after['files']}, {results['left']}"),
        (f"calls for {STEPS} steps, refused", f"{len(others['asks too much'])}, {refused}"),
        ("messages of the one who floods", f"{messages}"),
        ("clips begun and never read, begun and left", f"{len(others['stalls'])}, {len(others['vanishes'])}"),
    ]
    return "\n".join(
        [
            "# The Space in a crowd",
            "",
            f"`app.py` as a process of its own with {SEATS} seats; {len(visitors)} visitors who drag live for "
            f"{results['seconds'] / 60:.1f} minutes, {results['steps']} steps per latent, beside one who floods, one "
            "who does not read, one who vanishes, and a program that asks for too much.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows),
            "",
            f"| visitor | takes | frames shown a second (of {results['video_fps']:g}) | press to moved frame |",
            "|---|---|---|---|",
            *(
                f"| {i} | {one['takes']} | {one['fps']:.2f} | {one['press_ms']:.0f} ms |"
                for i, one in enumerate(visitors, start=1)
            ),
            "",
            "Resident memory, median of each minute: "
            + ", ".join(f"{value:.0f}" for value in results["memory_mib"])
            + " MiB.",
            "",
            *record_lines(results["record"]),
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="folder or Hub name (default: the bundled checkpoint)")
    parser.add_argument("--visitors", type=int, default=8, help="visitors who drag")
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long")
    parser.add_argument("--output_dir", type=Path, default=Path("docs/results"), help="where the results go")
    options = parser.parse_args(arguments)
    if not 1 <= options.visitors <= SEATS - 3 or options.minutes <= 0:
        parser.error(f"visitors: 1 to {SEATS - 3}; minutes: above 0")
    record = run_record("eval.app_load", arguments)
    with tempfile.TemporaryDirectory(prefix="ardrag-load-") as name:
        folder = Path(name)
        with running_app(options.model, folder) as app:
            found = measure(app, folder, options.visitors, options.minutes)
        results = {**found, "left": sum(path.is_file() for path in folder.rglob("*")), "record": record}
    write_json(options.output_dir / "app_load.json", results)
    write_text(options.output_dir / "app_load.md", markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
