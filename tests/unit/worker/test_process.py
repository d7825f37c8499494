import os
import signal
from collections.abc import Iterator

import pytest

from glm_worker.supervisor.children.process import is_exiting, process_state


@pytest.fixture
def child() -> Iterator[int]:
    """A process that waits to be killed. It is reaped by this fixture, not before."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_process_that_lives_is_not_exiting(child: int) -> None:
    assert not is_exiting(child)


def test_a_stopped_process_is_not_exiting(child: int) -> None:
    os.kill(child, signal.SIGSTOP)
    os.waitid(os.P_PID, child, os.WSTOPPED)
    assert process_state(child) == "T"
    assert not is_exiting(child)


def test_a_killed_process_is_exiting_until_it_is_reaped(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert process_state(child) == "Z"
    assert is_exiting(child)


def test_a_process_that_is_gone_is_exiting() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert process_state(pid) == ""
    assert is_exiting(pid)
