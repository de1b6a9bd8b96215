"""What a result must carry to be believed and repeated: command, commit, hardware, versions. And writing it whole."""

from __future__ import annotations

import json
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


REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "pillow")


def run_record(module: str, arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Record of one run of ``python -m <module> <arguments>``; take it at the start of the run.

    Args:
        module: dotted name of the program.
        arguments: its arguments; default are those of this process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return {
        "command": shlex.join(["python", "-m", module, *given]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **commit_state(REPOSITORY),
        "hardware": hardware(),
        "versions": versions(),
    }


def commit_state(folder: Path) -> dict[str, Any]:
    """``commit`` of the checkout in ``folder`` and whether it is ``dirty``; None where there is no commit to name.

    Files below ``docs/`` do not count as changes: that is where results go.
    """
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


def record_lines(record: dict[str, Any]) -> list[str]:
    """The record as lines of Markdown, for the foot of a report."""
    machine, packages = record["hardware"], record["versions"]
    accelerators = ", ".join(machine["accelerators"]) or "no accelerator"
    state = " (with uncommitted changes)" if record["dirty"] else ""
    return [
        f"- command: `{record['command']}`",
        f"- commit: {record['commit'] or 'none'}{state}, {record['date']}",
        f"- hardware: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {accelerators}, "
        f"load average {machine['load_average']} at the start",
        "- versions: " + ", ".join(f"{name} {number}" for name, number in packages.items()),
    ]


def write_text(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented strict JSON (no NaN), whole or not at all."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
