"""Clients that come at a rate of their own, whatever the answers take: open-loop load, as users make it."""

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import openai

from e2e.chats import QUESTION, RIGHT
from e2e.deployments import TIMEOUT, Deployed

PAUSE_S = 0.02
MOST_AT_ONCE = 160
"""Streams that may be open at once. More than that is a story that has gone wrong."""


@dataclass(frozen=True)
class Request:
    """One answered request. Times are of the monotonic clock."""

    arrived_s: float
    ttft_s: float


@dataclass
class Arrivals:
    """What came of the requests so far. Change rate to have more or fewer of them a second, or at_once."""

    rate: float
    at_once: int = 0  # as many are kept open, beside those that come at the rate
    answered: list[Request] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ttft(self, share: float, since_s: float) -> float:
        """Return a percentile of the time to the first token of those that arrived since then; NaN without any."""
        times = sorted(each.ttft_s for each in self.answered if each.arrived_s >= since_s)
        return times[min(len(times) - 1, int(share * len(times)))] if times else math.nan


@contextlib.contextmanager
def arriving(deployed: Deployed, *, rate: float, question: str = QUESTION, right: str = RIGHT) -> Iterator[Arrivals]:
    """Send `rate` requests a second, each on a connection of its own and without retries, until the block is left.

    All that was sent is answered when this returns.
    """
    arrivals, is_over = Arrivals(rate), threading.Event()
    with (
        deployed.target.base_url(deployed.name, deployed.namespace) as url,
        ThreadPoolExecutor(MOST_AT_ONCE) as threads,
    ):

        def ask() -> None:
            began_s = time.monotonic()
            try:
                first_s, content = _stream(url, question)
            except (openai.OpenAIError, httpx.HTTPError) as error:
                arrivals.failures.append(f"{type(error).__name__}: {error}")
                return
            if right in content:
                arrivals.answered.append(Request(began_s, first_s - began_s))
            else:
                arrivals.failures.append(content)

        def send() -> None:
            due_s, kept = time.monotonic(), set[Future[None]]()
            while not is_over.wait(PAUSE_S):
                kept = {each for each in kept if not each.done()}
                kept |= {threads.submit(ask) for _ in range(arrivals.at_once - len(kept))}
                now_s = time.monotonic()
                if arrivals.rate <= 0:
                    due_s = now_s
                while arrivals.rate > 0 and due_s <= now_s:
                    threads.submit(ask)
                    due_s += 1 / arrivals.rate

        sender = threading.Thread(target=send, name="arrivals")
        sender.start()
        try:
            yield arrivals
        finally:
            is_over.set()
            sender.join()


def _stream(url: str, question: str) -> tuple[float, str]:
    """Return when the first token came, and the answer."""
    direct = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0, timeout=TIMEOUT, http_client=direct) as client:
        first_s, content = 0.0, ""
        for chunk in client.chat.completions.create(
            model="glm-nano", messages=[{"role": "user", "content": question}], stream=True, temperature=0
        ):
            first_s = first_s or time.monotonic()
            content += chunk.choices[0].delta.content or ""
        return first_s, content
