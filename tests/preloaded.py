"""A `python` that starts at once, for tests that start many: each is forked from one that has imported everything.

A start of Python with torch and diffusers is 5 to 6 s of a core, a fork of one that has imported them a tenth of a
second. Commands run as ever, but for variables that libraries read when they are imported: those are the first one's.

    python tests/preloaded.py NAME          # the one that has imported everything (Linux: an abstract socket)
    FOLDER/python -m training.finetune ...  # asks it (`Preloaded`): same arguments, folder, variables and files
"""

import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
COMMAND = """#!/bin/sh
exec '{python}' -IS '{ask}' "$@"
"""
ASK = r"""
import json, os, socket, sys

asked = socket.socket(socket.AF_UNIX)
asked.connect("\0{name}")
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ), {command!r}]).encode()
socket.send_fds(asked, [len(request).to_bytes(8, "big")], [0, 1, 2])
asked.sendall(request)
code = int(asked.recv(20) or b"1")
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


class Preloaded:
    """The process that has imported everything, and ``command``, the `python` that asks it."""

    def __init__(self, folder):
        self.command, name = str(folder / "python"), f"ardrag-{uuid.uuid4()}"
        ask = folder / "ask.py"
        ask.write_text(ASK.format(name=name, command=self.command))
        Path(self.command).write_text(COMMAND.format(python=sys.executable, ask=ask))
        Path(self.command).chmod(0o755)
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command, options = [sys.executable, __file__, name], {"cwd": ROOT, "env": variables}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
        assert self._process.stdout.readline() == "ready\n", "what tests need cannot be imported"

    def close(self):
        self._process.kill()
        self._process.stdout.close()
        self._process.wait()


def serve(name):
    """Answer for ever; returns in a new process, as one that has been started with the arguments that it returns."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"\0{name}")
    server.listen(64)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, lambda *_: os.waitpid(-1, os.WNOHANG))
    while True:
        asked, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return answer(asked)
        asked.close()


def answer(asked):
    """Fork a command, tell how it ended, and end it if nobody waits for it any more; returns in the command alone."""
    head, files, *_ = socket.recv_fds(asked, 8, 3)
    request = b""
    while len(request) < int.from_bytes(head, "big"):
        request += asked.recv(1 << 16)
    number = os.fork()
    if number == 0:
        asked.close()
        return become(files, *json.loads(request))
    for file in files:
        os.close(file)
    ended = os.pidfd_open(number)
    if ended in select.select([asked, ended], [], [])[0]:
        code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        asked.sendall(str(code).encode())
    else:
        os.kill(number, signal.SIGKILL)
    os._exit(0)


def become(files, arguments, folder, variables, command):
    """Take over files, folder and variables of who asked."""
    for file, own in zip(files, (0, 1, 2), strict=True):
        os.dup2(file, own)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    multiprocessing.set_executable(sys.executable)  # its processes are given files that only real children have
    sys.executable = command
    return arguments


def run(arguments):
    """What `python` does with its arguments."""
    while arguments[0] in ("-u", "-B"):
        arguments = arguments[1:]
    kind, *rest = arguments
    if kind == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(kind))
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import peft  # noqa: F401
    import torch.distributed.run  # noqa: F401
    import transformers  # noqa: F401

    import pipelines  # noqa: F401

    run(serve(sys.argv[1]))
