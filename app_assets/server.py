"""The Space's server: the page, its pictures, its socket, and Gradio's endpoints, around one loaded pipeline."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import Request, WebSocket
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from gradio import Server
from starlette.websockets import WebSocketDisconnect

from app_assets.endpoints import events_endpoint, generate_endpoint
from app_assets.gate.doors import Doors, refusal
from app_assets.gate.expiring_folder import ExpiringFolder
from app_assets.gate.origins import Origins
from app_assets.live import Connection, error
from app_assets.lobby import Lobby
from app_assets.mailbox import Mailboxes
from app_assets.messages import MAX_MESSAGE
from app_assets.pictures import MAX_UPLOAD, Pictures, film
from app_assets.player import OVER, Player
from app_assets.track_files import read_track_file
from pipelines.pipeline_ardrag import ARDragPipeline


WEB = Path(__file__).resolve().parent / "web"
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'"
)
MAX_SESSIONS = 64
"""Sessions of Gradio's clients that are remembered with what they last sent."""
ON_ZERO_GPU = bool(os.environ.get("SPACES_ZERO_GPU"))
"""Set on Hugging Face's ZeroGPU, where the model runs in a fork for a while and sockets are of no use."""


@dataclass(frozen=True)
class Limits:
    """What a server gives its visitors.

    Attributes:
        seats: visitors served at once.
        waiting: visitors that may wait for a seat.
        idle_seconds: a seat on which nothing happens for so long is given to the next.
        seat_seconds: so long a visitor may keep a seat for which others wait.
        max_frames: pixel frames of a video.
        sockets: whether pages use a WebSocket; else events through Gradio's queue, as where no socket passes.
        allowed_origins: other sites whose pages may talk to the server, such as ``https://a.org``; ``*`` is everyone.
    """

    seats: int = 3
    waiting: int = 16
    idle_seconds: float = 120.0
    seat_seconds: float = 600.0
    max_frames: int = 481
    sockets: bool = not ON_ZERO_GPU
    allowed_origins: tuple[str, ...] = ()


class Space:
    """All that the visitors share: the pipeline and the thread it runs on, pictures, seats, mailboxes, files.

    What strangers bring is read on one thread, a file at a time, so that many at once take no more memory than one.

    Gradio looks for its uploads where the environment says: there is one Space in a process that takes them.

    Raises:
        ValueError: if a limit makes no sense.
    """

    def __init__(self, pipe: ARDragPipeline, limits: Limits) -> None:
        self.pipe, self.limits = pipe, limits
        self.origins = Origins(limits.allowed_origins)
        self.pictures = Pictures(pipe)
        self.lobby = Lobby(limits.seats, limits.waiting)
        self.mailboxes, self.files = Mailboxes(), ExpiringFolder("ardrag-files-")
        os.environ["GRADIO_TEMP_DIR"] = str(self.files.folder)
        os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")  # it makes a table of them after every call
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ardrag")
        self.reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ardrag-reader")
        self.connections: set[Connection] = set()
        self.examples = self.pictures.examples()
        self.trailer: bytes | None = None

    def player(self) -> Player:
        """Takes for a new visitor."""
        return Player(self.pipe, self.pictures.find, self.limits.max_frames)

    def run(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` on the model's thread; in a ZeroGPU worker, which is a process of its own, at once."""
        return function() if ON_ZERO_GPU else self.worker.submit(function).result()

    def rehearse(self) -> None:
        """Do what a first visitor would wait for: start every example, and make the first as it is drawn.

        At least until the window is full. Turn by turn, so that a visitor who is there already waits as for one other
        visitor. Kernels and plans are made then, and texts and pictures are known by what they are. The first example
        is the trailer that a page plays by itself.
        """
        player, config = self.player(), self.pipe.transformer.config
        full = 1 + (config.sink_frames + config.window_frames + config.chunk_frames) * self._factor
        order = {"type": "start", "seed": 0, "steps": None}
        with suppress(RuntimeError, CancelledError):  # the server is being stopped
            for number, example in enumerate(self.examples, 1):
                length = max(full, example["tracks"]["num_frames"])
                named = {name: example[name] for name in ("picture", "prompt", "tracks")}
                player.post(json.dumps({**order, **named, "num_frames": length, "paced": number > 1}))
                if not self.is_live:
                    player.post(json.dumps({"type": "cancel", "take": number}))
                shown: list[bytes] = []
                while (turn := self.run(player.turn)) is not OVER:
                    reply = turn() if callable(turn) else turn
                    shown += reply.parts if reply and reply.header["type"] == "frames" else ()
                if shown and not self.trailer:
                    self.trailer = film(shown, self.pipe.config.fps)
            self.run(player.close)

    @property
    def is_live(self) -> bool:
        """Whether the model makes a video latent by latent, so that it can be dragged."""
        return bool(self.pipe.scheduler.config.mode == "causal")

    @property
    def _factor(self) -> int:
        return int(self.pipe.vae.config.scale_factor_temporal)

    def settings(self) -> dict[str, Any]:
        """What the page must know before it begins."""
        scheduler = self.pipe.scheduler.config
        return {
            "examples": self.examples,
            "fps": self.pipe.config.fps,
            "steps": scheduler.num_inference_steps,
            "live": self.is_live,
            "trailer": self.trailer is not None,
            "control": self.pipe.control.name,
            "brush": self.pipe.control.brush,
            "maxFrames": self.limits.max_frames,
            "temporalFactor": self._factor,
            "maxUpload": MAX_UPLOAD,
            "transport": "socket" if self.limits.sockets else "events",
        }

    def close(self) -> None:
        """Stop the model's thread and that which reads files; remove mailboxes and files."""
        for thread in (self.worker, self.reader):
            thread.shutdown(wait=False, cancel_futures=True)
        self.mailboxes.close()
        self.files.close()


def build_server(space: Space) -> Server:
    """The server with all its routes but those of Gradio."""
    server = Server(title="AR-Drag", docs_url=None, redoc_url=None, openapi_url=None)
    server.add_middleware(Doors, files=space.files, origins=space.origins)
    add_page(server, space)
    add_uploads(server, space)
    add_live(server, space)
    return server


def build_endpoints(space: Space) -> gr.Blocks:
    """What Gradio's queue serves."""
    limits = space.limits
    generate = generate_endpoint(space.pipe, space.files, space.run, limits.max_frames)
    stream = events_endpoint(space.player, space.mailboxes, space.run, limits.idle_seconds)
    if ON_ZERO_GPU:
        import spaces

        generate, stream = spaces.GPU(duration=60)(generate), spaces.GPU(duration=120)(stream)
    share: dict[str, Any] = {"concurrency_limit": limits.seats, "concurrency_id": "seats"}
    with gr.Blocks(mode="server") as blocks:
        gr.api(generate, api_name="generate", **share)
        gr.api(stream, api_name="events", api_visibility="undocumented", **share)
    return blocks.queue(max_size=max(1, limits.waiting), api_open=False)


def launch(space: Space, **options: Any) -> tuple[Server, str]:
    """Build the server and start it with Gradio's launch options; gives it and its address."""
    server = build_server(space)
    sizes = {"max_file_size": MAX_UPLOAD, "state_session_capacity": MAX_SESSIONS}
    _, url, _ = build_endpoints(space).launch(_app=server, **sizes, **options)
    return server, url


def add_page(server: Server, space: Space) -> None:
    """The page and its files."""

    @server.get("/", include_in_schema=False)
    def page() -> FileResponse:
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        return FileResponse(WEB / "index.html", headers=headers)

    @server.get("/settings.json")
    def settings() -> JSONResponse:
        return JSONResponse(space.settings())

    @server.get("/trailer.webp")
    def trailer() -> Response:
        if space.trailer is None:
            return refusal("trailer: there is none yet; ask again when the server has made it", 404)
        return Response(space.trailer, media_type="image/webp")

    server.mount("/web", StaticFiles(directory=WEB), name="web")


def add_uploads(server: Server, space: Space) -> None:
    """Pictures and track files that visitors bring, and the mailboxes of pages without a socket."""

    async def read_upload(request: Request, what: str, name: str, read: Callable[[bytes], Any]) -> JSONResponse:
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > MAX_UPLOAD:
                return refusal(f"{what}: {name} has more than {MAX_UPLOAD >> 20} MB; save it smaller", 413)
        try:
            loop = asyncio.get_running_loop()
            return JSONResponse(await loop.run_in_executor(space.reader, read, bytes(content)))
        except ValueError as error:
            return refusal(str(error), 422)

    @server.post("/picture")
    async def picture(request: Request, name: str = "the file") -> JSONResponse:
        return await read_upload(request, "image", name[:80], lambda content: space.pictures.add(content, name[:80]))

    @server.post("/tracks")
    async def tracks(request: Request, width: int, height: int, num_frames: int) -> JSONResponse:
        def read(content: bytes) -> Any:
            found = read_track_file(io.BytesIO(content), (width, height), num_frames, space.limits.max_frames)
            return {"tracks": json.loads(found.to_json())}

        return await read_upload(request, "tracks", "the file", read)

    @server.post("/session")
    async def open_session(request: Request) -> JSONResponse:
        return JSONResponse({"session": space.mailboxes.open()})

    @server.post("/session/{session}")
    async def send(session: str, request: Request) -> JSONResponse:
        text = (await request.body())[: MAX_MESSAGE + 1].decode("utf-8", errors="replace")
        try:
            space.mailboxes.find(session).send(text)
        except ValueError as error:
            return refusal(str(error), 404)
        return JSONResponse({"sent": True})


def add_live(server: Server, space: Space) -> None:
    """The socket."""
    limits = space.limits

    @server.websocket("/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        if not space.origins.trusts(socket.headers):
            stranger = error("origin: this page belongs to another site; open the Space itself")
            await socket.send_text(json.dumps(stranger.header))
            await socket.close(1008)
            return
        connection = Connection(
            socket, space.player(), space.lobby, space.worker, limits.idle_seconds, limits.seat_seconds
        )
        space.connections.add(connection)
        try:
            with suppress(WebSocketDisconnect):
                await connection.serve()
        finally:
            space.connections.discard(connection)
