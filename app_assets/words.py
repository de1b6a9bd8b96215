"""What visitors read: progress, and the library's errors word for word."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr


def visible_errors(handler: Callable[..., Any], answer: Callable[[str], Any] | None = None) -> Callable[..., Any]:
    """Show the library's ValueErrors to the visitor, word for word; file names instead of the server's paths.

    ``answer`` turns the text into what the handler gives back; without it the message is Gradio's own error.
    """

    def shown(error: ValueError, arguments: Sequence[Any]) -> Any:
        text = str(error)
        for value in arguments:
            if isinstance(value, str) and Path(value).is_absolute() and Path(value).name:
                text = text.replace(value, Path(value).name)
        if answer is None:
            raise gr.Error(text, print_exception=False) from None
        return answer(f"**Error** | {text}")

    @functools.wraps(handler)
    def plain(*arguments: Any) -> Any:
        try:
            return handler(*arguments)
        except ValueError as error:
            return shown(error, arguments)

    @functools.wraps(handler)
    def streaming(*arguments: Any) -> Iterator[Any]:
        try:
            yield from handler(*arguments)
        except ValueError as error:
            yield shown(error, arguments)

    return streaming if inspect.isgeneratorfunction(handler) else plain


def progress_text(done: int, total: int, first_seconds: float, later_frames: int, later_seconds: float) -> str:
    """Measured speed, for people."""
    text = f"**{done} of {total} frames** | first frame after {first_seconds:.2f} s"
    return text + (f" | {later_frames / later_seconds:.1f} frames/s" if later_frames and later_seconds > 0 else "")


def whole(value: Any, name: str) -> int:
    """A number field as int."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        raise ValueError(f"{name}: {value!r} is not a whole number; type one")
    return int(value)
