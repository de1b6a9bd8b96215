"""From the name on a command line to a suite."""

from __future__ import annotations

from collections.abc import Callable

from eval.suites.case import Suite
from eval.suites.folder import FolderSuite
from eval.suites.mcbench import McBenchSuite
from eval.suites.movebench import MoveBenchSuite
from eval.suites.sprites import SpriteSuite
from eval.suites.tapvid import TapVidSuite
from eval.suites.vipseg import VipSegSuite


READERS: dict[str, Callable[[str], Suite]] = {
    reader.name: reader for reader in (FolderSuite, MoveBenchSuite, TapVidSuite, VipSegSuite, McBenchSuite)
}


def open_suite(text: str) -> Suite:
    """``sprites``, or ``reader:path``.

    Raises:
        ValueError: if there is no such reader, or its files are not as they should be.
    """
    name, _, path = text.partition(":")
    if text == SpriteSuite.name:
        return SpriteSuite()
    if name not in READERS or not path:
        raise ValueError(f"suite: {text!r} is unknown; use sprites, or one of {', '.join(READERS)} with :path")
    return READERS[name](path)
