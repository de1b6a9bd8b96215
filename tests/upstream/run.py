"""Run diffusers' own test suites on our classes, with Wan's as a control, and print the table of what passes.

    python tests/upstream/run.py path/to/diffusers [--suites Models,Pipelines] [--report report.json] [--standin]

The checkout should be of the version that is installed, or near it; its source is not used, only its ``tests``, in a
copy. Nothing is downloaded. ``--standin`` runs them on the stand-in accelerator, so that memory tests run too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as tree
from collections import defaultdict
from pathlib import Path


HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAME = re.compile(r"Test(.+?)(Ours|Wan)")
Results = dict[str, dict[str, dict[str, str]]]
"""Suite, test, whose: passed, failed or skipped."""


def main() -> int:
    """Run the command; the exit code is 1 where a test passes on Wan's class and fails on ours."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a checkout of diffusers")
    parser.add_argument("--suites", default="", help="only these, separated by commas: Models, Lora, ...")
    parser.add_argument("--report", type=Path, help="file for all results, as JSON")
    parser.add_argument("--standin", action="store_true", help="on the stand-in accelerator")
    options = parser.parse_args()
    if not (options.checkout / "tests" / "conftest.py").is_file():
        parser.error(f"{options.checkout} is no checkout of diffusers: it has no tests/conftest.py")
    with tempfile.TemporaryDirectory() as folder:
        results = read_results(run_suites(options.checkout, Path(folder), options.suites, options.standin))
    if not results:
        parser.error(
            "no test ran: pytest says above what is missing (diffusers' tests import parameterized and requests_mock)"
        )
    print(table(results))
    behind = sorted(
        f"{suite}: {test}"
        for suite, tests in results.items()
        for test, found in tests.items()
        if (found.get("Wan"), found.get("Ours")) == ("passed", "failed")
    )
    print("\nfailed here, passed by Wan's class:", *(behind or ["none"]), sep="\n- ")
    if options.report:
        options.report.write_text(json.dumps({"behind": behind, "results": results}, indent=1, sort_keys=True))
    return int(bool(behind))


def run_suites(checkout: Path, folder: Path, suites: str, standin: bool) -> Path:
    """Run pytest in a copy of the checkout's tests; returns its report in JUnit's format."""
    shutil.copytree(checkout / "tests", folder / "tests")
    place = folder / "tests" / "ardrag"
    place.mkdir()
    (place / "__init__.py").touch()
    start = "from tests_standin.device import install\n\ninstall()\n" if standin else ""
    shutil.copytree(ROOT / "tests" / "standin", folder / "tests_standin")
    conftest = folder / "tests" / "conftest.py"
    conftest.write_text(start + conftest.read_text(encoding="utf-8"), encoding="utf-8")
    (place / "test_suites.py").write_text((HERE / "suites.py").read_text(encoding="utf-8"), encoding="utf-8")
    chosen = " or ".join(f"Test{suite}" for suite in suites.split(",") if suite)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={folder / 'report.xml'}"]
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    environment |= {"DIFFUSERS_TEST_DEVICE": "hpu"} if standin else {}
    subprocess.run([*command, *(["-k", chosen] if chosen else []), str(place)], cwd=folder, env=environment)
    return folder / "report.xml"


def read_results(report: Path) -> Results:
    """What became of every test, from pytest's report."""
    results: Results = defaultdict(lambda: defaultdict(dict))
    for entry in tree.parse(report).iter("testcase"):
        match = NAME.fullmatch(entry.get("classname", "").rpartition(".")[2])
        if match is None:
            continue
        kinds = {child.tag for child in entry}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        results[match[1]][entry.get("name", "")][match[2]] = outcome
    return results


def table(results: Results) -> str:
    """Passed and failed tests of each suite, ours beside Wan's, in Markdown."""
    lines = ["| suite | ours: passed, failed | Wan's: passed, failed | skipped by both |", "|---|---|---|---|"]
    for suite, tests in sorted(results.items()):
        count = {
            (owner, outcome): sum(found.get(owner) == outcome for found in tests.values())
            for owner in ("Ours", "Wan")
            for outcome in ("passed", "failed")
        }
        skipped = sum(set(found.values()) == {"skipped"} for found in tests.values())
        ours, wan = (f"{count[owner, 'passed']}, {count[owner, 'failed']}" for owner in ("Ours", "Wan"))
        lines.append(f"| {suite} | {ours} | {wan} | {skipped} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
