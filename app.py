"""The Space: drag on a picture, and the video that follows plays under the pointer while it is made.

    python app.py [--model FOLDER_OR_HUB_NAME] [--host 0.0.0.0] [--port 7860] [--share] [--seats 3]
    python app.py --root_path /ardrag --allowed_origins https://pages.example.org     # behind a proxy

One model serves several visitors, who take turns latent by latent; nothing else is shared between them. The page is in
`app_assets/web`, the server in `app_assets/server.py`; the endpoint `/generate` does the same for programs.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

from app_assets.server import ON_ZERO_GPU, Limits, Space, launch
from pipelines.hub.opening import add_model_options, open_pipeline
from pipelines.pipeline_ardrag import BUNDLED_CHECKPOINT


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line of the Space."""
    limits = Limits()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    model = os.environ.get("ARDRAG_MODEL") or str(BUNDLED_CHECKPOINT)
    parser.add_argument("--model", default=model, help="folder or Hub name (default: ARDRAG_MODEL, or bundled)")
    add_model_options(parser)
    parser.add_argument("--host", help="address to listen on (default: this machine only; 0.0.0.0 is everyone)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="also make a public link that lasts a week")
    parser.add_argument("--seats", type=int, default=limits.seats, help="visitors served at once")
    parser.add_argument("--waiting", type=int, default=limits.waiting, help="visitors that may wait for a seat")
    parser.add_argument("--idle_seconds", type=float, default=limits.idle_seconds, help="when an idle seat is freed")
    parser.add_argument(
        "--seat_seconds", type=float, default=limits.seat_seconds, help="how long one may keep what others wait for"
    )
    parser.add_argument("--max_frames", type=int, default=limits.max_frames, help="pixel frames of a video")
    parser.add_argument("--no_sockets", action="store_true", help="pages use events, for proxies that stop WebSockets")
    parser.add_argument("--root_path", help="path or address under which a proxy serves the page, such as /ardrag")
    parser.add_argument(
        "--allowed_origins", nargs="+", default=[], help="other sites whose pages may use it (https://name; * is all)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Load the model and serve the page."""
    options = parse_arguments(arguments)
    try:
        sockets = Limits.sockets and not options.no_sockets
        limits = Limits(
            options.seats,
            options.waiting,
            options.idle_seconds,
            options.seat_seconds,
            options.max_frames,
            sockets,
            tuple(options.allowed_origins),
        )
        pipe = open_pipeline(options.model, options.device, options.dtype, options.lora)
        space = Space(pipe, limits)
    except ValueError as error:
        sys.exit(f"app.py: {error}")
    address = {"server_name": options.host, "server_port": options.port, "root_path": options.root_path}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # else visitors' files outlive a stopped server
    if not ON_ZERO_GPU:
        threading.Thread(target=space.rehearse, daemon=True).start()
    try:
        launch(space, share=options.share, **address)
    finally:
        space.close()


if __name__ == "__main__":
    main()
