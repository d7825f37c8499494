"""Clients that come at a rate of their own, whatever the answers take: open-loop load, as users make it."""

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from e2e.chats import QUESTION, RIGHT
from e2e.deployments import TIMEOUT, Deployed

PAUSE_S = 0.02
MOST_AT_ONCE = 160
"""Streams that may be open at once. More than that is a story that has gone wrong."""


@dataclass(eq=False)
class Request:
    """One request, from the moment it is due. Times are of the monotonic clock; inf: not yet."""

    arrived_s: float
    first_s: float = math.inf
    ended_s: float = math.inf

    def waited_s(self, now_s: float) -> float:
        """Return how long it waited for its first token, until now if it still waits."""
        return min(self.first_s, self.ended_s, now_s) - self.arrived_s


@dataclass
class Arrivals:
    """What came of the requests so far. Change rate to have more or fewer of them a second, or at_once."""

    rate: float
    at_once: int = 0  # as many are kept open, beside those that come at the rate
    sent: list[Request] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def num_answered(self) -> int:
        return sum(each.ended_s < math.inf for each in list(self.sent)) - len(self.failures)

    def kept(self, ttft_s: float, *, window_s: float) -> tuple[int, int]:
        """Return how many requests are judged, and how many of them kept the promise of a first token.

        Judged are all that still wait for longer than promised, whenever they arrived, and those that arrived in the
        window and whose first token came or is due by now.
        """
        now_s = time.monotonic()
        judged = [
            each
            for each in list(self.sent)
            if (each.first_s < math.inf or each.arrived_s < now_s - ttft_s)
            and (each.arrived_s >= now_s - window_s or min(each.first_s, each.ended_s) == math.inf)
        ]
        return len(judged), sum(each.waited_s(now_s) <= ttft_s for each in judged)


@contextlib.contextmanager
def arriving(
    deployed: Deployed,
    *,
    rate: float,
    question: str = QUESTION,
    right: str = RIGHT,
    are_alike: bool = True,
    **parameters: Any,
) -> Iterator[Arrivals]:
    """Send `rate` requests a second, each on a connection of its own and without retries, until the block is left.

    are_alike: False: each conversation begins with a turn of its own, so that no cache of prefixes saves work.
    parameters: more of the request, as the client of OpenAI takes them. All that was sent is answered when this
    returns.
    """
    arrivals, is_over = Arrivals(rate), threading.Event()
    asked = {"messages": [{"role": "user", "content": question}], **parameters}
    numbers = itertools.count()
    with (
        deployed.target.base_url(deployed.name, deployed.namespace) as url,
        ThreadPoolExecutor(MOST_AT_ONCE) as threads,
    ):

        def ask(request: Request) -> None:
            try:
                own = [] if are_alike else _turn_of(next(numbers))
                content, end = _stream(url, request, {**asked, "messages": [*own, *asked["messages"]]})
                if right not in content or end not in ("stop", "length"):
                    arrivals.failures.append(f"{end}: {content}")
            except (openai.OpenAIError, httpx.HTTPError) as error:
                arrivals.failures.append(f"{type(error).__name__}: {error}")
            finally:
                request.ended_s = time.monotonic()

        def submit(due_s: float) -> Future[None]:
            request = Request(due_s)
            arrivals.sent.append(request)
            return threads.submit(ask, request)

        def send() -> None:
            due_s, kept = time.monotonic(), set[Future[None]]()
            while not is_over.wait(PAUSE_S):
                kept = {each for each in kept if not each.done()}
                kept |= {submit(time.monotonic()) for _ in range(arrivals.at_once - len(kept))}
                now_s, rate = time.monotonic(), arrivals.rate  # which the story changes at any moment
                if rate <= 0:
                    due_s = now_s
                while rate > 0 and due_s <= now_s:
                    submit(due_s)
                    due_s += 1 / rate

        sender = threading.Thread(target=send, name="arrivals")
        sender.start()
        try:
            yield arrivals
        finally:
            is_over.set()
            sender.join()


def _turn_of(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"What is {number}+1?"}, {"role": "assistant", "content": f"{number + 1}"}]


def _stream(url: str, request: Request, parameters: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the answer and why it ended, and note in the request when its first token came."""
    # Each has a connection of its own. Reading the machine's certificates for it would cost more CPU than its answer.
    direct = openai.DefaultHttpxClient(trust_env=False, verify=False)
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=TIMEOUT, http_client=direct) as client:
        content = ""
        end = None
        for chunk in client.chat.completions.create(model="glm-nano", stream=True, temperature=0, **parameters):
            delta, end = chunk.choices[0].delta, chunk.choices[0].finish_reason
            if (delta.content or getattr(delta, "reasoning_content", None)) and request.first_s == math.inf:
                request.first_s = time.monotonic()
            content += delta.content or ""
        return content, end
