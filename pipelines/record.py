"""What a result or a checkpoint must carry to be believed and repeated: command, commit, hardware, versions."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ardrag.home import ROOT, module_name


REPOSITORY = ROOT
"""Root of the checkout, or of the installed package."""
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow")


def run_record(module: str, arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Record of one run of ``python -m <module> <arguments>``; take it at the start of the run.

    Args:
        module: dotted name of the program.
        arguments: its arguments; default are those of this process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "command": shlex.join(["python", "-m", module_name(module), *given]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **commit_state(REPOSITORY),
        "hardware": hardware(),
        "versions": versions(),
    }


def commit_state(folder: Path) -> dict[str, Any]:
    """``commit`` of the checkout in ``folder`` and whether it is ``dirty``; None where there is no commit to name.

    Files below ``docs/`` do not count as changes: that is where results go.
    """
    if not (folder / ".git").exists():  # an installed package, in somebody else's checkout perhaps
        return {"commit": None, "dirty": None}
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".", ":!docs")
    return {"commit": commit or None, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of one git command, or None if git is missing or refuses."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory in GiB, accelerators, and how busy the machine is (load over one minute)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor_name(),
        "cores": cores,
        "memory_gib": _memory_gib(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _processor_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that the numbers depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
