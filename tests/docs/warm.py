"""A Python whose libraries are imported already: it forks for every command line, so that each starts at once.

`python warm.py serve SOCKET MODULE...` imports the modules and waits; `python warm.py ask SOCKET PYTHON ARGS...` has a
fork do what `PYTHON ARGS` would do, here, with this environment and these files, and ends as it ended. The first one
leads a process group, and ends with all of it when its stdin does.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

PARENT = "FINFLOW_SWEEP_PARENT"
"""A job of a sweep ends with the process that it names, which here is the one that asks."""


def ask(address: str, argv: Sequence[str]) -> None:
    wanted = {"argv": list(argv), "cwd": str(Path.cwd()), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        socket.send_fds(line, [b"!"], [0, 1, 2])
        line.sendall(json.dumps(wanted).encode())
        line.shutdown(socket.SHUT_WR)
        status = os.waitstatus_to_exitcode(int(line.recv(64)))
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


def serve(address: str, modules: Sequence[str]) -> dict[str, Any]:
    """Answer until stdin ends; what comes back is what a fork of this process was asked to do."""
    for name in modules:
        import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those who answer are not waited for
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    print("ready", flush=True)
    while True:
        if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:  # who started this is gone
            os.killpg(0, signal.SIGKILL)
        line, _ = listening.accept()
        if os.fork() == 0:
            break
        line.close()
    listening.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(line, 1, 3)
    text = b"".join(iter(lambda: line.recv(65536), b""))
    worker = os.fork()
    if worker:
        line.sendall(str(os.waitpid(worker, 0)[1]).encode())
        os._exit(0)
    line.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    return json.loads(text)


def become(wanted: dict[str, Any]) -> None:
    """Do what an interpreter does with its command line."""
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.environ.pop(PARENT, None)
    sys.executable, *argv = wanted["argv"]
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if argv[0] == "-m":
        sys.argv = argv[1:]
        sys.path.insert(0, "")
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        sys.path.insert(0, str(Path(argv[0]).resolve().parent))
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    own = sys.path.pop(0)  # of this file: a script has its own folder there
    if sys.argv[1] == "ask":
        ask(sys.argv[2], sys.argv[3:])
    become(serve(sys.argv[2], sys.argv[3:]))
