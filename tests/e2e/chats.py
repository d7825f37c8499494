"""Chats kept open while the cluster changes under them: streams that count, and a client that asks all along."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import openai

from e2e.deployments import Deployed, wait_for

RUNNING = "glm_num_requests_running"
QUESTION = "Count from 1 to 100."
ANSWER_LIMIT_S = 120.0
RIGHT = ", ".join(map(str, range(1, 101)))


class Chats:
    """Streams through the Service of one deployment, each in a thread of its own."""

    def __init__(self, deployed: Deployed, threads: ThreadPoolExecutor) -> None:
        self._deployed = deployed
        self._threads = threads
        self._answers: list[Future[tuple[str, str]]] = []

    def open_on(self, *pods: str) -> None:
        """Open chats until each of these leading pods computes at least one."""

        def are_busy() -> bool:
            self._answers.append(self._threads.submit(self._deployed.answer, QUESTION))
            return all(self._deployed.metric(pod, RUNNING) > 0 for pod in pods)

        wait_for(f"chats on {', '.join(pods)}", are_busy, timeout_s=60)

    def wait_in_flight(self, pod: str) -> None:
        """Wait until this pod has been told to go, with a chat of ours still on it."""

        def leaves_with_a_chat() -> bool:
            is_leaving, num_running = self._deployed.is_leaving(pod), self._deployed.metric(pod, RUNNING)
            assert num_running > 0, "its chats have ended: this story is about none"
            return is_leaving

        wait_for(f"{pod} leaves with a chat in flight", leaves_with_a_chat, timeout_s=30)

    def assert_all_right(self) -> None:
        """Wait for all of them; fail when one was cut off or wrong."""
        assert [answer.result(ANSWER_LIMIT_S)[1] for answer in self._answers] == [RIGHT] * len(self._answers)

    def assert_none_is_silent(self) -> None:
        """Wait for all of them; fail when one neither came out right nor was told of an error."""
        for answer in self._answers:
            error = answer.exception(ANSWER_LIMIT_S)
            assert isinstance(error, openai.APIError) or answer.result()[1] == RIGHT


@contextlib.contextmanager
def chats(deployed: Deployed) -> Iterator[Chats]:
    with ThreadPoolExecutor(32) as threads:
        yield Chats(deployed, threads)


@dataclass
class Asked:
    """What a client that asks one question after the other has seen."""

    num_right: int = 0
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def asking_all_along(deployed: Deployed) -> Iterator[Asked]:
    """Ask one question after the other without retries, each on a connection of its own, until the block is left."""
    asked, is_over = Asked(), threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                content = deployed.answer()[1]
            except (openai.OpenAIError, httpx.HTTPError) as error:
                asked.failures.append(f"{type(error).__name__}: {error}")
                continue
            if "42" in content:
                asked.num_right += 1
            else:
                asked.failures.append(content)

    with ThreadPoolExecutor(1) as threads:
        asker = threads.submit(ask)
        try:
            yield asked
        finally:
            is_over.set()
    asker.result()
