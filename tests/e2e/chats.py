"""Chats kept open while the cluster changes under them: streams that count, and a client that asks all along."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import openai

from e2e.deployments import Deployed, ask, wait_for

RUNNING = "glm_num_requests_running"
QUESTION = "Count from 1 to 100."
MIN_RUNNING, MOST_OPEN = 6, 32
"""Chats that a group computes at once, and that are open at most."""

OFTEN_S = 0.05
"""Between two looks for a chat on a pod that leaves."""

PAUSE_S = 0.3
"""Between two questions that are asked all along. Without it they take the CPU that new pods start with."""

ANSWER_LIMIT_S = 120.0


def counted(end: int) -> str:
    return ", ".join(map(str, range(1, end + 1)))


RIGHT = counted(100)
LONG = {"ignore_eos": True, "max_tokens": 800}
"""Of chats that are to be seen in flight: they go on behind the answer, twice as long as it takes."""


class Chats:
    """Streams through the Service of one deployment, each in a thread of its own."""

    def __init__(self, deployed: Deployed, threads: ThreadPoolExecutor) -> None:
        self._deployed = deployed
        self._threads = threads
        self._answers: list[tuple[int, Future[tuple[str, str]]]] = []  # how far to count, and what came
        self._ends = itertools.cycle(range(100, 89, -1))  # not all alike, or all would go to the group that knows them

    def open_on(self, *pods: str) -> None:
        """Open chats until each of these leading pods computes MIN_RUNNING of them."""

        def are_busy() -> bool:
            busy = [self._has_enough(pod) for pod in pods]
            return all(busy)

        wait_for(f"chats on {', '.join(pods)}", are_busy, timeout_s=60)

    def wait_in_flight(self, pod: str, leader: str | None = None) -> None:
        """Wait until this pod has been told to go while its leader (by default itself) computes a chat of ours.

        Until then chats are opened as others end.
        """
        leader = leader or pod

        def leaves_with_a_chat() -> bool:
            if not self._deployed.is_leaving(pod):
                self._has_enough(leader)
                return False
            return self._deployed.metric(leader, RUNNING) > 0

        wait_for(f"{pod} leaves with a chat in flight", leaves_with_a_chat, timeout_s=60, poll_s=OFTEN_S)

    def wait_any_in_flight(self, *pods: str) -> None:
        """Wait until one of these leading pods has been told to go while it computes a chat of ours."""

        def leaves_with_a_chat() -> bool:
            leaving = [pod for pod in pods if self._deployed.is_leaving(pod)]
            if not leaving:
                for pod in pods:
                    self._has_enough(pod)
                return False
            return self._deployed.metric(leaving[0], RUNNING) > 0

        wait_for(
            f"one of {', '.join(pods)} leaves with a chat in flight", leaves_with_a_chat, timeout_s=60, poll_s=OFTEN_S
        )

    def _has_enough(self, leader: str) -> bool:
        """Whether this pod computes MIN_RUNNING chats; if not, open what is missing, which any of the pods may get."""
        missing = MIN_RUNNING - int(self._deployed.metric(leader, RUNNING))
        room = MOST_OPEN - sum(not answer.done() for _, answer in self._answers)
        for end in itertools.islice(self._ends, max(0, min(missing, room))):
            self._answers.append((end, self._ask(end)))
        return missing <= 0

    def _ask(self, end: int) -> "Future[tuple[str, str]]":
        return self._threads.submit(self._deployed.answer, f"Count from 1 to {end}.", **LONG)

    def assert_all_right(self) -> None:
        """Wait for all of them; fail when one was cut off or wrong: to the last word, also behind the answer."""
        told = [(end, answer.result(ANSWER_LIMIT_S)[1]) for end, answer in self._answers]
        undisturbed = {end: self._ask(end) for end in dict(told)}  # at once: a batch takes as long as one of them
        for end, content in told:
            assert content.startswith(counted(end))
            assert content == undisturbed[end].result(ANSWER_LIMIT_S)[1]

    def assert_none_is_silent(self) -> None:
        """Wait for all of them; fail when one neither came out right nor was told of an error."""
        for end, answer in self._answers:
            error = answer.exception(ANSWER_LIMIT_S)
            assert isinstance(error, openai.APIError) or answer.result()[1].startswith(counted(end))


@contextlib.contextmanager
def chats(deployed: Deployed) -> Iterator[Chats]:
    with ThreadPoolExecutor(MOST_OPEN) as threads:
        yield Chats(deployed, threads)


@dataclass
class Asked:
    """What a client that asks one question after the other has seen."""

    num_right: int = 0
    failures: list[str] = field(default_factory=list)
    failed_at: list[float] = field(default_factory=list)
    """Of each failure, by time.monotonic()."""

    def fail(self, how: str) -> None:
        self.failures.append(how)
        self.failed_at.append(time.monotonic())


@contextlib.contextmanager
def asking_all_along(
    deployed: Deployed, *, num_clients: int = 1, question: str = "What is 12+30?", right: str = "42"
) -> Iterator[Asked]:
    """Ask one question after the other without retries, each on a connection of its own, until the block is left.

    num_clients: as many streams at once. right: what an answer must have in it.
    """
    asked, is_over = Asked(), threading.Event()

    def ask_all(client: openai.OpenAI) -> None:
        while not is_over.wait(PAUSE_S):
            try:
                content = ask(client, question)[1]
            except (openai.OpenAIError, httpx.HTTPError) as error:
                asked.fail(f"{type(error).__name__}: {error}")
                continue
            if right in content:
                asked.num_right += 1
            else:
                asked.fail(content)

    with deployed.client() as client, ThreadPoolExecutor(num_clients) as threads:
        askers = [threads.submit(ask_all, client) for _ in range(num_clients)]
        try:
            yield asked
        finally:
            is_over.set()
    for asker in askers:
        asker.result()
