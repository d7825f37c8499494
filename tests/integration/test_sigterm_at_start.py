"""SIGTERM while a program starts, behind the init that the Dockerfile puts before it, in a PID namespace as in a pod.

The kernel drops a SIGTERM to a PID 1 that has no handler for it; Python runs none of our lines for 20 to 100 ms.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from integration.free_ports import free_port
from integration.pods import ROOT, eventually, loopback_address

END_S = 30.0  # far below the grace period of a worker pod, 143 s
MODULES = {"glm-operator": "glm_operator.main", "glm-worker": "glm_worker.main"}
UNSHARE = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")


def entrypoint(program: str) -> list[str]:
    """Return the ENTRYPOINT of a program's image."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    found = [json.loads(line) for line in re.findall(r"^ENTRYPOINT (.+)$", dockerfile, re.MULTILINE)]
    (ours,) = [words for words in found if words[-1] == program]
    return list(ours)


def obstacle() -> str | None:
    """Why no namespace with the images' init can be had here."""
    inits = {words[0] for words in map(entrypoint, MODULES) if len(words) > 1}
    missing = [init for init in inits if not shutil.which(init)]
    if missing:
        return f"no {missing[0]}: install Debian's package tini"
    try:
        done = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no unshare: install Debian's package util-linux"
    return f"no PID namespace to be had, which root can make: {done.stderr.strip()}" if done.returncode else None


OBSTACLE = obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))


@contextmanager
def starting(
    program: str, arguments: list[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program as its image does, as PID 1 of a namespace; yield the process outside that waits for its end."""
    *init, _ = entrypoint(program)
    command = [*UNSHARE, *init, sys.executable, "-m", MODULES[program], *arguments]
    with log.open("wb") as output:
        outside = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        yield outside
    finally:
        outside.kill()  # and with it all of the namespace
        outside.wait()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def pid_1(outside: subprocess.Popen[bytes]) -> int:
    """Return the namespace's PID 1 as it is numbered outside, as soon as it is no unshare any more."""
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:  # without a pause: what is tested is the first ms
        for pid in children(outside.pid):
            if Path(f"/proc/{pid}/comm").read_text().strip() != "unshare":
                return pid
    raise AssertionError(f"no PID 1 within {END_S} s")


def assert_sigterm_ends_it(outside: subprocess.Popen[bytes], program: str, after_ms: int, log: Path) -> None:
    pid = pid_1(outside)
    time.sleep(after_ms / 1000)  # not for a condition: when the signal comes is what the test is about
    if len(entrypoint(program)) > 1:
        # After 0.3 ms, more on a busy machine, the init blocks signals and starts the program. Until then it loses them
        # as every PID 1 does. A container runtime takes longer to send one: it starts a process for it.
        eventually(lambda: children(pid))
    os.kill(pid, signal.SIGTERM)
    try:
        outside.wait(END_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{program} ran on for {END_S} s after a SIGTERM {after_ms} ms after its start:\n{log.read_text()}")


@pytest.mark.parametrize("after_ms", [0, 50, 100, 200, 1000])
def test_a_worker_ends_by_sigterm_at_any_moment_of_its_start(tmp_path: Path, after_ms: int) -> None:
    with tempfile.TemporaryDirectory(prefix="glm-") as run_dir:  # short: the path of a socket has 107 bytes at most
        environment = {
            "GLM_MODEL": "builtin://glm-nano",
            "GLM_HOST": loopback_address(),
            "GLM_RUN_DIR": f"{run_dir}/run",
            "GLM_DRAIN_ACCEPT_S": "0",
            "GLM_DRAIN_DEADLINE_S": "1",
        }
        log = tmp_path / "worker.log"
        with starting("glm-worker", ["serve"], environment, log) as outside:
            assert_sigterm_ends_it(outside, "glm-worker", after_ms, log)


@pytest.mark.parametrize("after_ms", [0, 50, 100, 200, 1000])
def test_an_operator_ends_by_sigterm_at_any_moment_of_its_start(tmp_path: Path, after_ms: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # an API server that never answers
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{silent.getsockname()[1]}"}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}]}
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config | {"current-context": "x"}))
        log = tmp_path / "operator.log"
        arguments = ["--kubeconfig", str(kubeconfig), "--management-port", str(free_port())]
        with starting("glm-operator", arguments, {}, log) as outside:
            assert_sigterm_ends_it(outside, "glm-operator", after_ms, log)
