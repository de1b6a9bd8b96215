"""From the name on a command line to a suite."""

from __future__ import annotations

import re
from collections.abc import Callable

from eval.suites.case import OnCanvas, Suite
from eval.suites.folder import FolderSuite
from eval.suites.mcbench import McBenchSuite
from eval.suites.movebench import MoveBenchSuite
from eval.suites.photos import PhotoSuite
from eval.suites.small import CrossingSuite, SmallSuite
from eval.suites.sprites import SpriteSuite
from eval.suites.tapvid import TapVidSuite
from eval.suites.vipseg import VipSegSuite


READERS: dict[str, Callable[[str], Suite]] = {
    reader.name: reader for reader in (FolderSuite, MoveBenchSuite, TapVidSuite, VipSegSuite, McBenchSuite)
}
WORLDS: dict[str, Callable[[], Suite]] = {suite.name: suite for suite in (SpriteSuite, PhotoSuite)}
SMALL: dict[str, Callable[[str], Suite]] = {suite.name: suite for suite in (SmallSuite, CrossingSuite)}


def open_suite(text: str, size: str = "") -> Suite:
    """``sprites``, ``photos``, ``small`` and ``crossing`` with ``:OPTIONS`` or without, or ``reader:path``.

    All cases are brought to a canvas of ``size``, ``WIDTHxHEIGHT``, if given.

    Raises:
        ValueError: if there is no such reader, its files are not as they should be, or the size is none.
    """
    name, _, path = text.partition(":")
    if text not in WORLDS and name not in SMALL and (name not in READERS or not path):
        worlds = ", ".join((*WORLDS, *SMALL))
        raise ValueError(f"suite: {text!r} is unknown; use {worlds}, or one of {', '.join(READERS)} with :path")
    suite = WORLDS[text]() if text in WORLDS else {**READERS, **SMALL}[name](path)
    if not size:
        return suite
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    if found is None:
        raise ValueError(f"size: {size!r} is not WIDTHxHEIGHT, for instance 832x480")
    return OnCanvas(suite, height=int(found[2]), width=int(found[1]))
