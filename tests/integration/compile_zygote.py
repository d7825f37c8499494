"""The zygote of servers that a test runs without a supervisor: a real one, started when the first of them compiles.

One a test run, for it imports torch. It forks what compiles grammars; nobody tells it to fork a rank.
"""

import atexit
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Thread

from glm_worker.messages import CompileAt
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.environment import zygote_environment
from glm_worker.supervisor.supervisor import RANK_TARGET


@cache
def compile_at() -> CompileAt:
    """Return what a supervisor tells its server: where who wants grammars compiled connects."""
    folder = tempfile.mkdtemp(prefix="glm-compile-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = str(Path(folder) / "compile.sock")
    Thread(target=_start_when_asked, args=(listening(path),), daemon=True).start()
    return CompileAt(path)


def listening(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def _start_when_asked(listener: socket.socket) -> None:
    """Start the zygote when somebody connects, and stay: it dies with the thread that started it."""
    select.select([listener], [], [])
    with listener, a_zygote(listener) as zygote:
        zygote.wait()


@contextmanager
def a_zygote(listener: socket.socket) -> Iterator["subprocess.Popen[bytes]"]:
    """Have a zygote that serves who connects to the listener."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fds = [theirs.fileno(), listener.fileno()]
        command = [sys.executable, "-m", "glm_worker.supervisor.children.zygote", "--control-fd", str(fds[0])]
        with subprocess.Popen(
            [*command, "--compile-fd", str(fds[1]), "--parent", str(os.getpid()), "--target", RANK_TARGET],
            env=zygote_environment(WorkerSettings(model="builtin://glm-nano"), os.environ),
            pass_fds=fds,
        ) as zygote:
            theirs.close()
            yield zygote
            ours.close()  # its end
