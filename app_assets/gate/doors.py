"""The doors of the server: which requests come in at all, how large they may be, and which files they may name.

Gradio opens some fifty routes for applications of any kind; those that this page and Gradio's clients need stay open.
What a call hands over as a file must be one that was uploaded here: Gradio fetches addresses on a client's behalf,
and says nothing that a person can read about a path. Every other path gets one and the same answer.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from gradio_client.utils import is_file_obj_with_meta
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app_assets.gate.body import Answer, Body, Coming, TooMuch
from app_assets.gate.expiring_folder import ExpiringFolder
from app_assets.gate.origins import Origins
from app_assets.messages import MAX_MESSAGE
from app_assets.pictures import MAX_UPLOAD


OWN = re.compile(
    r"/|/settings\.json|/trailer\.webp|/web/.*|/picture|/tracks|/session|/session/[^/]+|/live|/favicon\.ico|/robots\.txt"
)
GRADIOS = re.compile(
    r"/config/?|/gradio_api/(info/?|upload|queue/join|queue/data|call/.*|heartbeat/[^/]+|cancel|reset/?|startup-events)"
)
FILES = re.compile(r"/gradio_api/file=(.*)", re.DOTALL)
UPLOADS = ("/picture", "/tracks", "/gradio_api/upload")
CALLS = re.compile(r"/gradio_api/(queue/join|call/.*)")
MAX_CALL = 2 * MAX_MESSAGE + (1 << 16)
"""Bytes of a call: tracks, in which every quote may be escaped, and the rest."""
FORM = 1 << 20
"""Bytes that a form may need beside the file in it; a picture that is a little too large is told so by name."""
MAX_OPEN = 256
"""Requests and sockets open at once."""
MAX_DEPTH = 32
UPLOAD_FIRST = "send a file that was uploaded here: gradio_client.handle_file, or POST to /gradio_api/upload"


class Doors:
    """ASGI middleware: lets in what may come in.

    Args:
        app: the server.
        files: uploads and results.
        origins: whose pages may send something.
    """

    def __init__(self, app: ASGIApp, files: ExpiringFolder, origins: Origins) -> None:
        self._app, self._files, self._origins = app, files, origins
        self._open = 0
        self._coming = Coming()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        self._open += 1
        try:
            if scope["type"] == "http":
                await self._http(scope, receive, send)
            elif self._open > MAX_OPEN or route_path(scope) != "/live":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope, receive, send)
        finally:
            self._open -= 1

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope)
        reading = scope["method"] in ("GET", "HEAD", "OPTIONS")
        if self._open > MAX_OPEN:
            answer = refusal("server: it is busy; try again in a minute", 503)
        elif not self._leads_somewhere(path):
            answer = refusal("path: there is nothing here", 404)
        elif not reading and not self._origins.trusts(Headers(scope=scope)):
            answer = refusal("origin: this request comes from another site; see --allowed_origins", 403)
        else:
            await self._app(scope, receive, send) if reading else await self._sent(path, scope, receive, send)
            return
        await answer(scope, receive, send)

    def _leads_somewhere(self, path: str) -> bool:
        if named := FILES.fullmatch(path):
            return self._files.holds(named[1])
        return bool(OWN.fullmatch(path) or GRADIOS.fullmatch(path))

    async def _sent(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """A request with a body: as much of it as may come, in time."""
        body = Body(receive, MAX_UPLOAD + FORM if path in UPLOADS else MAX_CALL, self._coming)
        answer = Answer(send)
        try:
            if path == "/gradio_api/upload":
                await asyncio.to_thread(self._files.tidy, 1)
            if CALLS.fullmatch(path) and (wrong := self._wrong(await body.whole())):
                await wrong(scope, receive, send)
                return
            await self._app(scope, body.receive, answer.send)
        except TooMuch as problem:
            if not answer.begun:
                await refusal(str(problem), 413)(scope, receive, send)
        finally:
            body.close()

    def _wrong(self, body: bytes) -> JSONResponse | None:
        """What is wrong with a call's files, for clients of Gradio to show; the same whether they exist or not."""
        try:
            entry = json.loads(body)
            bad = any(not self._files.holds(str(named["path"])) for named in named_files(entry))
        except (ValueError, RecursionError):
            return refusal("message: not JSON, or nested too deep", 400)
        return validation("file", UPLOAD_FIRST) if bad else None


def route_path(scope: Scope) -> str:
    """A request's path without the prefix under which a proxy serves the page, whether it was taken off or not."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(prefix) or "/" if path == prefix or path.startswith(prefix + "/") else path


def named_files(entry: Any) -> Iterator[dict[str, Any]]:
    """All objects in a call that Gradio takes for files.

    Raises:
        ValueError: if the call is nested deeper than any.
    """
    level = [entry]
    for _ in range(MAX_DEPTH):
        level, here = [], level
        for one in here:
            if is_file_obj_with_meta(one):
                yield one
            if isinstance(one, dict):
                level += one.values()
            elif isinstance(one, list):
                level += one
    if level:
        raise ValueError("nested too deep")


def refusal(text: str, status: int) -> JSONResponse:
    """An error that the page shows word for word."""
    return JSONResponse({"message": text}, status_code=status)


def validation(parameter: str, text: str) -> JSONResponse:
    """An error of a call's parameter, in the form that Gradio's clients show."""
    detail = [{"__type__": "validate", "is_valid": False, "parameter_name": parameter, "message": text}]
    return JSONResponse({"message": f"{parameter}: {text}", "detail": detail}, status_code=422)
